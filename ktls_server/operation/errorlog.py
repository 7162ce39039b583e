"""The error log: Python's `logging`, to standard error, set up in this one place.

Under systemd each line carries its priority as sd-daemon(3) describes, and no time, since the journal has its own.
What a client does is at most a debug line.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

_log = logging.getLogger(__name__)

_PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""SD_DEBUG, SD_INFO, SD_WARNING, SD_ERR, SD_CRIT."""


class _JournalFormatter(logging.Formatter):
    """Each line of a message, a traceback's too, with its priority: the journal takes every line for an entry."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 5)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def configure(level: str) -> None:
    """Send every record of at least `level` (debug, info, warning, error) to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    if goes_to_journal():
        handler.setFormatter(_JournalFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    sys.unraisablehook = _log_unraisable


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Log what was raised where nobody could catch it.

    A server name that is not ASCII is one of those: CPython decodes it inside OpenSSL's callback, then refuses the handshake.
    Its own report would write a traceback and the client's bytes for each.
    """
    if isinstance(unraisable.exc_value, UnicodeDecodeError) and isinstance(unraisable.object, bytes):
        _log.debug("a client asked for a server name that is not ASCII")
    else:
        exception = unraisable.exc_value or unraisable.exc_type()
        _log.error("an exception that nobody could catch", exc_info=exception)


def goes_to_journal() -> bool:
    """Whether standard error is the journal's socket: JOURNAL_STREAM holds its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
