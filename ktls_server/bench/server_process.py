"""A server to measure, in a process of its own: it says its URL on standard output, and ends with SIGTERM."""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import Final

from ..errors import SystemRefusal

_STOP_SECONDS: Final = 10
_OWN_VARIABLES: Final = "KTLS_SERVER_"


class ServerProcess:
    """Runs from construction to `close`. `url` ends with a slash, `pid` is the process whose tree is measured."""

    def __init__(self, command: list[str]) -> None:
        """Start it, and wait until it listens. Raises SystemRefusal with what it said, where it does not."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process, see close()
        # Options of a server that the user runs in earnest are not those of the one that is measured.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
            # Ctrl-C is for the parent, which ends the server in order.
            process_group=0,
        )
        self.pid = self._process.pid
        self.url = self._wait_for_url()

    def _wait_for_url(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("url: "):
                return line.removeprefix("url: ").strip()
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        self.close()
        raise SystemRefusal(f"the server to measure did not start: {said or 'it did not say why'}")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.communicate()
        self._errors.close()
