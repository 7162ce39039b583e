"""The real server, as a process: started by its command line, watched from outside, ended by SIGTERM.

What is known of it is what an operator knows: its announcement, its access log, its standard error, /proc/PID. A server
that ends with another status than 0, or says anything on standard error beside its announcement, fails the test run.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ktls_server.kernel.probe import tls_stat
from tests.waiting import WAIT_SECONDS, eventually

START_SECONDS = 180
"""How long a server may take to listen: an emulated machine on a busy one takes a minute."""

EMULATED = "User Mode Linux" in Path("/proc/cpuinfo").read_text()
"""Whether this kernel encrypts at some 20 MB/s (portable C code) and starts processes slowly."""

LOG_FIELDS: dict[str, type | tuple[type, ...]] = {
    "time": str,
    "remote": str,
    "method": (str, type(None)),
    "path": (str, type(None)),
    "status": int,
    "bytes": int,
    "duration_ms": (int, float),
    "tls_version": str,
    "cipher": str,
    "tx": str,
}
"""What every line of the JSON access log has at least, and of which type. A head that could not be read has no method."""

LogLine = dict[str, object]


@dataclass(frozen=True, slots=True)
class Variant:
    """How a server is run: who encrypts, on which event loop, with which further options."""

    path: str
    loop: str
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.path}-{self.loop}"

    def arguments(self) -> list[str]:
        """For the command line. "kernel" is the default, `--ktls auto`: a connection may still fall back."""
        ktls = "auto" if self.path == "kernel" else "off"
        return ["--ktls", ktls, "--loop", self.loop, "--access-log", "json", *self.options]


class Server:
    """One server process and what can be seen of it."""

    def __init__(self, directory: Path, scratch: Path, variant: Variant, environment: dict[str, str]) -> None:
        """Start serving `directory` and return once it listens. Its output goes to files in `scratch`."""
        self.directory = directory
        self.variant = variant
        self._log_path, self._error_path = scratch / "access.log", scratch / "stderr"
        with self._log_path.open("wb") as log, self._error_path.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ktls_server", "serve", str(directory), "--port", "0", *variant.arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=errors,
                env=environment,
            )
        self.facts = self._announced()
        self._known_complaints = 0
        self.port = int(self.facts["url"].rstrip("/").rpartition(":")[2])
        self.certificate = Path(self.facts["certificate"])
        self._own_descriptors = self.descriptors()

    def _announced(self) -> dict[str, str]:
        """The facts that the server printed, by key."""
        deadline = time.monotonic() + START_SECONDS
        while "\ncertificate: " not in self.errors() or not self.errors().endswith("\n"):
            assert self._process.poll() is None, f"the server did not start: {self.errors()}"
            if time.monotonic() > deadline:
                self._process.kill()
                self._process.wait()
                raise AssertionError(f"the server does not listen after {START_SECONDS} s: {self.errors()}")
            time.sleep(0.02)
        return dict(line.split(": ", 1) for line in self.errors().splitlines())

    @property
    def pid(self) -> int:
        return self._process.pid

    def url(self, path: str) -> str:
        return f"https://localhost:{self.port}{path}"

    def errors(self) -> str:
        """Standard error so far: the announcement, as long as all is well."""
        return self._error_path.read_text()

    def complaints(self) -> list[str]:
        """What stands on standard error beside the announcement, and has not been asked for before."""
        # Several certificates are several lines under one key.
        lines = [line for line in self.errors().splitlines() if line.partition(": ")[0] not in self.facts]
        known, self._known_complaints = self._known_complaints, len(lines)
        return lines[known:]

    def log(self) -> list[LogLine]:
        """The access log so far, each line checked against the fields that it must have."""
        return [_checked(line) for line in self._log_path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def logged(self, path: str, count: int = 1) -> list[LogLine]:
        """The `count` lines of requests for `path`, once they are written."""
        lines: list[LogLine] = []

        def found() -> bool:
            lines[:] = [line for line in self.log() if line["path"] == path]
            return len(lines) >= count

        eventually(found, f"{count} access log line(s) for {path}")
        assert len(lines) == count, lines
        return lines

    def assert_unharmed(self) -> None:
        """Nothing is open that was not open at the start, nothing was complained about."""
        eventually(
            lambda: len(self.descriptors()) <= len(self._own_descriptors),
            f"all of {self.descriptors()} closed but {self._own_descriptors}",
        )
        assert self._process.poll() is None, f"the server died: {self.errors()}"
        assert self.complaints() == []

    def descriptors(self) -> list[str]:
        """What each open descriptor of the server is."""
        found = []
        for entry in os.scandir(f"/proc/{self.pid}/fd"):
            try:
                found.append(os.readlink(entry.path))
            except FileNotFoundError:
                continue  # closed between the two looks
        return found

    def stop(self) -> None:
        """SIGTERM, and what must then be true of a server that had a good life."""
        status = self.terminate()
        assert self.complaints() == []
        assert status == 0, f"exit status {status}"
        self.log()
        assert self._log_path.read_bytes()[-1:] in (b"", b"\n"), "the last line of the access log is not whole"

    def terminate(self) -> int:
        """SIGTERM; the exit status, negative for the number of a signal."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the server did not end within {WAIT_SECONDS} s of SIGTERM") from None


class KeyedSockets:
    """How many sockets the kernel was keyed for since this was made, by its own count (/proc/net/tls_stat)."""

    def __init__(self) -> None:
        self._before = tls_stat()

    def _since(self, counter: str) -> int:
        return tls_stat().get(counter, 0) - self._before.get(counter, 0)

    def expect_transmit(self, server: Server, connections: int) -> None:
        """The kernel encrypts so many connections where that is the server's path, and none where it is not."""
        assert self._since("TlsTxSw") == (connections if server.variant.path == "kernel" else 0)

    def expect_receive(self, connections: int) -> None:
        """The kernel decrypts so many connections."""
        assert self._since("TlsRxSw") == connections


def _checked(line: str) -> LogLine:
    fields: LogLine = json.loads(line)
    for name, kind in LOG_FIELDS.items():
        assert isinstance(fields.get(name), kind), f"{name} in {line!r}"
    assert fields["tx"] in ("kernel", "userspace"), line
    return fields


def environment(cache: Path, extra: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """For a server process: no settings from outside, the development certificate in `cache`, warnings shown."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KTLS_SERVER_")}
    return {**inherited, "XDG_CACHE_HOME": str(cache), "PYTHONWARNINGS": "always", **dict(extra)}
