"""Certificates and keys, and when they were read: replaced while the server runs, on demand or when the files change."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from ..errors import ConfigurationError
from ..handshake.context import TlsContexts
from ..settings import Settings

_log = logging.getLogger(__name__)


class Certificates:
    """The TLS contexts, and the age of what is in them. A forked process goes on with what its parent knew."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError where a certificate or a key is not usable."""
        self._paths = [path for path in (*settings.cert, *settings.key, settings.client_ca) if path is not None]
        self._user = settings.user
        # Looked at before the files are read: what is replaced in between counts as changed.
        self._times: dict[Path, tuple[int, int]] = {}
        self._times = self._modification_times()
        self.contexts = TlsContexts(settings)

    def warn_of_unreadable(self) -> None:
        """Say, once root is given up, which files can not be read again. They are in use all the same."""
        unreadable = [str(path) for path in self._paths if not os.access(path, os.R_OK)]
        if unreadable:
            _log.warning(
                "user %s cannot read %s: when they are renewed, restart the server, or let that user read them",
                self._user,
                ", ".join(unreadable),
            )

    def rotate_ticket_keys(self) -> None:
        """Go on to the next session ticket keys, if it is time."""
        self.contexts.rotate_ticket_keys(time.time())

    def changed(self) -> bool:
        """Whether a file was replaced since it was last read."""
        return self._modification_times() != self._times

    def reload(self) -> bool:
        """Read all again, for the connections to come; False where a pair is not usable, and then the old ones stay."""
        self._times = self._modification_times()
        try:
            self.contexts.reload()
        except (ConfigurationError, OSError) as error:
            cure = f"; --user {self._user} has to be able to read them, or restart the server" if self._user else ""
            _log.error("the certificates stay as they were: %s%s", error, cure)
            return False
        _log.info("certificates read again")
        return True

    def _modification_times(self) -> dict[Path, tuple[int, int]]:
        """What cannot be looked at has not changed: it is just being replaced, or out of reach since root was given up."""
        times = {}
        for path in self._paths:
            try:
                status = path.stat()
            except OSError:
                if path in self._times:
                    times[path] = self._times[path]
            else:
                times[path] = status.st_mtime_ns, status.st_ino
        return times
