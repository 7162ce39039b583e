"""`make bench-peers`: the same work for each server, one process each, in turns: CPU time and memory of the server.

    python -m benchmarks.peers [--peers-python PYTHON] [--rounds N] [--only NAME]... [--json FILE] [--plot FILE]

Four works: a large file, a small one over keep-alive connections, a full handshake with one request, and connections that
do nothing. In each round every server does every work once, so that whatever else the machine does meets all of them.
TLS 1.3, TLS_AES_128_GCM_SHA256, a P-256 certificate, no resumption. What is compared is the CPU time of the server's
processes: the client and its speed are no part of it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import report
from benchmarks.contestants import Contestant, Missing, Site, contestants
from ktls_server.bench.clients import ClientProcess, Job, Result, environment_with_suite
from ktls_server.bench.path_check import check_path, keyed_connections
from ktls_server.bench.processes import cpu_seconds, resident_bytes
from ktls_server.certificates import certificate_in
from ktls_server.errors import SystemRefusal
from ktls_server.kernel.probe import probe

SUITE: Final = "TLS_AES_128_GCM_SHA256"
SMALL_FILE_BYTES: Final = 1024
START_SECONDS: Final = 20
STOP_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class Effort:
    """How much work. The figures of the whole comparison are the defaults; tests take less."""

    rounds: int = 5
    seconds: float = 1.0
    large_file_bytes: int = 32 << 20
    idle_connections: int = 500


DEFAULT_EFFORT: Final = Effort()


@dataclass(slots=True)
class Measured:
    """One figure a round for each work, by the names in `report.COLUMNS`."""

    contestant: Contestant
    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """One more round's figure."""
        self.figures.setdefault(name, []).append(value)


class Server:
    """A contestant that runs, until `stop`."""

    def __init__(self, contestant: Contestant, site: Site, start_seconds: float = START_SECONDS) -> None:
        """Raises SystemRefusal where it does not come up."""
        self.contestant = contestant
        self.port = _free_port()
        self._log = site.scratch / f"log-{self.port}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                contestant.command(self.port), stdout=log, stderr=log, start_new_session=True, cwd=site.scratch
            )
        self._wait_until_it_listens(start_seconds)

    @property
    def pid(self) -> int:
        return self._process.pid

    def _wait_until_it_listens(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        self.stop()
        said = self._log.read_text(errors="replace").strip().splitlines()
        raise SystemRefusal(f"{self.contestant.name} did not start: {said[-1] if said else 'it said nothing'}")

    def stop(self) -> None:
        """End its processes, and wait for that."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _job(kind: str, server: Server, path: str, connections: int, seconds: float) -> Job:
    return {"kind": kind, "port": server.port, "path": path, "connections": connections, "seconds": seconds}


def _run(client: ClientProcess, server: Server, job: Job) -> tuple[float, Result]:
    """The server's CPU seconds for a job, and the client's result. Raises SystemRefusal if the wrong side encrypted."""
    keyed_before = keyed_connections()
    client.give(job)
    client.wait_until_ready()
    before = cpu_seconds(server.pid)
    client.go()
    result = client.result()
    # What the server still does for connections that have just ended belongs to them.
    if job["kind"] == "handshakes":
        time.sleep(0.05)
    used = cpu_seconds(server.pid) - before
    if result["cipher"] != SUITE:
        raise SystemRefusal(f"{server.contestant.name} agreed on {result['cipher']}, not on {SUITE}")
    connections = result["count"] if job["kind"] == "handshakes" else job["connections"]
    check_path(
        server.contestant.name,
        kernel=server.contestant.kernel,
        connections=connections,
        keyed=keyed_connections() - keyed_before,
    )
    return used, result


def measure_round(client: ClientProcess, server: Server, measured: Measured, effort: Effort) -> None:
    """Every work once."""
    used, result = _run(client, server, _job("download", server, "/static/large.bin", 2, effort.seconds))
    measured.add("large_cpu_seconds_per_gb", used / result["bytes"] * 1e9)
    used, result = _run(client, server, _job("requests", server, "/static/small.bin", 8, effort.seconds))
    measured.add("small_cpu_us_per_request", used / result["count"] * 1e6)
    used, result = _run(client, server, _job("handshakes", server, "/static/small.bin", 1, effort.seconds))
    measured.add("handshake_cpu_ms", used / result["count"] * 1e3)


def measure_idle(client: ClientProcess, server: Server, measured: Measured, connections: int) -> None:
    """What one connection more takes in a server that is new, after a few that have come and gone."""
    _run(client, server, _job("idle", server, "/static/small.bin", 8, 0))
    time.sleep(0.2)
    before = resident_bytes(server.pid)
    client.give(_job("idle", server, "/static/small.bin", connections, 0))
    client.wait_until_ready()
    time.sleep(0.2)
    grown = resident_bytes(server.pid) - before
    client.go()
    client.result()
    measured.add("idle_kib", grown / connections / 1024)


def make_site(folder: Path, large_file_bytes: int) -> Site:
    """The files, and a P-256 certificate."""
    static, scratch = folder / "site" / "static", folder / "scratch"
    static.mkdir(parents=True)
    scratch.mkdir()
    # A pattern that does not contain the end of a chunked body, in which granian sends files.
    line = bytes(range(64, 128)) * 1024
    (static / "large.bin").write_bytes(line * (large_file_bytes // len(line)))
    (static / "small.bin").write_bytes(line[:SMALL_FILE_BYTES])
    pair = certificate_in(folder / "certificate")
    return Site(folder / "site", scratch, pair.cert, pair.key)


def compare(
    site: Site, chosen: Iterable[Contestant], effort: Effort, say: Callable[[str], None]
) -> tuple[list[Measured], list[Missing]]:
    """All figures of all servers, and those that failed with the reason."""
    failed: list[Missing] = []
    with contextlib.ExitStack() as stack:
        client = ClientProcess("benchmarks.load", environment_with_suite(SUITE, site.scratch))
        stack.callback(client.close)
        entries: list[tuple[Server, Measured]] = []
        for contestant in chosen:
            try:
                with _running(contestant, site) as server:
                    measured = Measured(contestant)
                    say(f"idle connections: {contestant.name}")
                    measure_idle(client, server, measured, effort.idle_connections)
                server = stack.enter_context(_running(contestant, site))
            except SystemRefusal as refusal:
                failed.append(Missing(contestant.name, str(refusal)))
                continue
            entries.append((server, measured))
        for number in range(effort.rounds):
            # Every other round the other way round, so that nobody always comes after the same one.
            for server, measured in entries if number % 2 == 0 else reversed(entries):
                say(f"round {number + 1} of {effort.rounds}: {server.contestant.name}")
                measure_round(client, server, measured, effort)
        return [measured for _, measured in entries], failed


@contextlib.contextmanager
def _running(contestant: Contestant, site: Site) -> Iterator[Server]:
    server = Server(contestant, site)
    try:
        yield server
    finally:
        server.stop()


def comparison(measured: Iterable[Measured], missing: Iterable[Missing], effort: Effort) -> dict[str, Any]:
    """What is reported."""
    rows = [
        report.Row(one.contestant.name, one.contestant.version, one.contestant.kernel, dict(one.figures))
        for one in measured
    ]
    return report.outcome(
        rows, [(one.name, one.reason) for one in missing], {"tls": f"TLS 1.3, {SUITE}", **asdict(effort)}
    )


def say(line: str) -> None:
    """Progress, on standard error."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="The same work for each server.")
    parser.add_argument("--peers-python", type=Path, metavar="PYTHON", help="interpreter that has the Python peers")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="servers whose name begins so")
    parser.add_argument("--rounds", type=int, default=DEFAULT_EFFORT.rounds)
    parser.add_argument("--seconds", type=float, default=DEFAULT_EFFORT.seconds, help="for each work in each round")
    parser.add_argument("--idle-connections", type=int, default=DEFAULT_EFFORT.idle_connections)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="PNG or SVG")
    options = parser.parse_args(arguments)
    effort = Effort(options.rounds, options.seconds, DEFAULT_EFFORT.large_file_bytes, options.idle_connections)
    with tempfile.TemporaryDirectory() as folder:
        site = make_site(Path(folder), effort.large_file_bytes)
        # Absolute, because the servers run in a folder of their own.
        found_python = options.peers_python is not None and options.peers_python.exists()
        peers_python = options.peers_python.absolute() if found_python else None
        found = list(contestants(site, probe(), peers_python))
        chosen = [one for one in found if not options.only or one.name.startswith(tuple(options.only))]
        missing = [one for one in chosen if isinstance(one, Missing)]
        able = [one for one in chosen if isinstance(one, Contestant)]
        measured, failed = compare(site, able, effort, say)
    outcome = comparison(measured, [*missing, *failed], effort)
    print(report.table(outcome))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")
    if options.plot is not None:
        report.plot(outcome, options.plot)
    # A server that is not here is said above; one that is here and fails is a fault.
    return 1 if failed or not measured else 0


if __name__ == "__main__":
    sys.exit(main())
