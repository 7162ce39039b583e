"""Measures the servers on a kernel whose clock counts instructions; writes the run as JSON.

    python -m benchmarks.instructions.guest FILE [--peers-python PYTHON] [--only NAME]... [--repetitions N]

One virtual processor, whose clock advances by 2 ns with each instruction: the CPU time that the kernel charges to the
server's processes is twice the number of their instructions. The client shares the processor, and its time is its own.

Each figure is the difference between more and less of the same work, so that whatever comes once cancels out.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import platform
import ssl
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from benchmarks.contestants import Contestant, Missing, Site, contestants
from benchmarks.instructions.figures import Figures, Measured, Run, figures_of, to_json
from benchmarks.peers import SUITE, Server
from ktls_server.bench.clients import ClientProcess, environment_with_suite
from ktls_server.bench.path_check import check_path, keyed_connections
from ktls_server.bench.processes import cpu_seconds
from ktls_server.certificates import certificate_in
from ktls_server.errors import SystemRefusal
from ktls_server.kernel.probe import probe

SECONDS_PER_INSTRUCTION: Final = 2e-9
"""QEMU's `-icount shift=1`."""

SETTLE_SECONDS: Final = 0.05
"""For what a server still does after the client has seen the end. Virtual time costs nothing while nobody runs."""

FILE_AGE_SECONDS: Final = 3.0
"""Files on a server are seldom seconds old."""

NAMES: Final = (
    "ktls_server, uvloop, kTLS",
    "ktls_server, uvloop",
    "nginx, kTLS",
    "nginx",
    "aiohttp, aiofastnet, kTLS",
    "aiohttp, aiofastnet",
)
"""As `contestants` calls them."""

LARGE: Final = "large.bin"
SMALL: Final = "small.bin"
SMALL_BYTES: Final = 1024
MANY: Final = "many"
MANY_FILES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Effort:
    """How much work. Of `requests` and `connections`, the first count is done to be subtracted from the second."""

    repetitions: int = 3
    large_bytes: int = 12_000_000
    requests: tuple[int, int] = (50, 250)
    connections: tuple[int, int] = (5, 25)
    page_files: int = 51


@dataclass(frozen=True, slots=True)
class Bench:
    """What measures one server: the load client, the server, and how much to do."""

    client: ClientProcess
    server: Server
    effort: Effort
    unseen: Iterator[int] = field(default_factory=lambda: iter(range(MANY_FILES)))
    """The files of the large folder that this server was not asked for yet."""

    def figures(self) -> Figures:
        """All figures. Raises SystemRefusal where the wrong side encrypts."""
        self._count("requests", SMALL, self.effort.requests[0])  # what Python and the server do for the first time
        return figures_of([self._repetition() for _ in range(self.effort.repetitions)])

    def _repetition(self) -> tuple[float, float, float, float, float]:
        effort = self.effort
        large = self._count("requests", LARGE, 1) - self._count("requests", SMALL, 1)
        few, many = effort.requests
        requests = self._count("requests", SMALL, many) - self._count("requests", SMALL, few)
        browser = self._count("requests", SMALL, many, browser=True) - self._count("requests", SMALL, few, browser=True)
        page = self._page(effort.page_files) - self._page(1)
        few_new, many_new = effort.connections
        connections = self._count("connections", SMALL, many_new) - self._count("connections", SMALL, few_new)
        return (
            large / (effort.large_bytes - SMALL_BYTES),
            requests / (many - few),
            browser / (many - few),
            page / (effort.page_files - 1),
            connections / (many_new - few_new),
        )

    def _page(self, count: int) -> float:
        """`count` files of a large folder that were never asked for before."""
        paths = [f"/static/{MANY}/{number:05}.png" for number in islice(self.unseen, count)]
        return self._count("page", SMALL, count, browser=True, paths=paths)

    def _count(self, kind: str, file: str, count: int, **more: object) -> float:
        """The server's instructions for one job. Makes sure of who encrypted."""
        contestant = self.server.contestant
        keyed_before = keyed_connections()
        self.client.give({"kind": kind, "port": self.server.port, "path": f"/static/{file}", "count": count, **more})
        self.client.wait_until_ready()
        time.sleep(SETTLE_SECONDS)
        before = cpu_seconds(self.server.pid)
        self.client.go()
        result = self.client.result()
        time.sleep(SETTLE_SECONDS)
        used = cpu_seconds(self.server.pid) - before
        if result["cipher"] != SUITE:
            raise SystemRefusal(f"{contestant.name} agreed on {result['cipher']}, not on {SUITE}")
        connections = count if kind == "connections" else 1
        keyed = keyed_connections() - keyed_before
        check_path(contestant.name, kernel=contestant.kernel, connections=connections, keyed=keyed)
        return used / SECONDS_PER_INSTRUCTION


def measure(site: Site, chosen: Iterable[Contestant | Missing], effort: Effort) -> Run:
    """Every server that can run, one after the other: nothing else has the processor while one is measured."""
    servers: list[Measured] = []
    missing: dict[str, str] = {}
    client = ClientProcess("benchmarks.instructions.client", environment_with_suite(SUITE, site.scratch))
    with contextlib.closing(client):
        for contestant in chosen:
            if isinstance(contestant, Missing):
                missing[contestant.name] = contestant.reason
                continue
            print(f"measuring {contestant.name}", file=sys.stderr, flush=True)
            try:
                figures = _figures_of(contestant, site, client, effort)
            except SystemRefusal as refusal:
                missing[contestant.name] = str(refusal)
            else:
                servers.append(Measured(contestant.name, contestant.version, contestant.kernel, figures))
    return Run(_environment(), tuple(servers), missing)


def _figures_of(contestant: Contestant, site: Site, client: ClientProcess, effort: Effort) -> Figures:
    # No limit: virtual time runs ahead while a program is read from the host's disk.
    server = Server(contestant, site, start_seconds=math.inf)
    try:
        return Bench(client, server, effort).figures()
    finally:
        server.stop()


def _environment() -> dict[str, str]:
    """What figures depend on, beside the servers themselves."""
    return {
        "Linux": platform.release(),
        "Python": platform.python_version(),
        "OpenSSL": ssl.OPENSSL_VERSION.split()[1],
    }


def make_site(folder: Path, large_bytes: int) -> Site:
    """The files, and a P-256 certificate."""
    static, scratch = folder / "site" / "static", folder / "scratch"
    static.mkdir(parents=True)
    scratch.mkdir()
    (static / LARGE).write_bytes(bytes(large_bytes))
    (static / SMALL).write_bytes(bytes(SMALL_BYTES))
    (static / MANY).mkdir()
    for number in range(MANY_FILES):
        (static / MANY / f"{number:05}.png").write_bytes(bytes(SMALL_BYTES))
    pair = certificate_in(folder / "certificate")
    return Site(folder / "site", scratch, pair.cert, pair.key)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions.guest")
    parser.add_argument("result", type=Path)
    parser.add_argument("--peers-python", type=Path)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--repetitions", type=int, default=Effort().repetitions)
    options = parser.parse_args(arguments)
    # Python hashes by address: with everything in the same place in every run, dictionaries look the same, too.
    Path("/proc/sys/kernel/randomize_va_space").write_text("0", encoding="ascii")
    effort = Effort(repetitions=options.repetitions)
    wanted = options.only or NAMES
    with tempfile.TemporaryDirectory() as folder:
        site = make_site(Path(folder), effort.large_bytes)
        # A file that changed a moment ago is a special case for ktls_server (files/remembered.py) and others.
        time.sleep(FILE_AGE_SECONDS)
        found = {one.name: one for one in contestants(site, probe(), options.peers_python)}
        chosen = [found.get(name, Missing(name, "not among the contestants")) for name in wanted]
        run = measure(site, chosen, effort)
    options.result.write_text(to_json(run), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
