"""The load of the compose profile "bench": the same downloads from both servers, and what each cost its server.

It shares a process namespace with the servers, so it can read their CPU time from /proc and tell them apart by
`--ktls` on their command lines. CPU time is the figure to compare: how fast it goes depends on this client, too, which
has to decrypt. Who encrypted is what the server's metrics say, not what it was asked for. Certificates are not checked:
the servers made them for themselves a moment ago.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_CLIENTS = 4
_METRICS_PORT = 9100
_METRICS_AGE_SECONDS = 1.0
"""A server publishes its numbers every half second, and keeps an answer for as long."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server under load, and its processes, which stay the same while it is measured."""

    mode: str
    url: str
    pids: tuple[int, ...]

    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far (proc_pid_stat(5))."""
        ticks = 0
        for pid in self.pids:
            # The second field is the program's name in parentheses, and may hold spaces.
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICKS_PER_SECOND

    def path(self) -> str:
        """Who encrypted what it has sent so far: "kernel", "userspace", or both."""
        time.sleep(_METRICS_AGE_SECONDS)
        metrics = httpx.get(str(httpx.URL(self.url).copy_with(scheme="http", port=_METRICS_PORT, path="/metrics"))).text
        found = re.findall(r'^ktls_response_body_bytes_total{path="(\w+)"}', metrics, re.MULTILINE)
        return ", ".join(sorted(found)) or "unknown"


def find_server(mode: str, url: str) -> Server:
    """The server that was started with `--ktls MODE`."""
    wanted = f"\0--ktls\0{mode}\0"
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command_line = (folder / "cmdline").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # It has ended meanwhile.
        if wanted in command_line:
            pids.append(int(folder.name))
    if not pids:
        raise SystemExit(f"no process here was started with --ktls {mode}")
    return Server(mode, url, tuple(sorted(pids)))


def download(client: httpx.Client, url: str) -> int:
    """How many bytes came."""
    with client.stream("GET", url) as response:
        response.raise_for_status()
        return sum(len(chunk) for chunk in response.iter_raw())


def measure(server: Server, path: str, times: int) -> tuple[int, float, float]:
    """Fetch `path` so often with several clients: (bytes, seconds, the server's CPU seconds)."""
    with ThreadPoolExecutor(_CLIENTS) as pool:

        def in_one_thread(count: int) -> int:
            with httpx.Client(verify=False) as client:
                return sum(download(client, server.url + path) for _ in range(count))

        cpu, started = server.cpu_seconds(), time.monotonic()
        received = sum(pool.map(in_one_thread, [times // _CLIENTS] * _CLIENTS))
        return received, time.monotonic() - started, server.cpu_seconds() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--large", type=int, default=16, metavar="TIMES", help="downloads of /large (default 16)")
    parser.add_argument("--small", type=int, default=8000, metavar="TIMES", help="downloads of /small (default 8000)")
    parser.add_argument("servers", nargs="+", metavar="MODE=URL", help="such as off=https://server-userspace:8443/")
    arguments = parser.parse_args()
    servers = [find_server(*each.split("=", 1)) for each in arguments.servers]
    rows: tuple[tuple[str, int, Callable[[int, float, float], str]], ...] = (
        (
            "large",
            arguments.large,
            lambda size, s, cpu: f"{size / s / 1e6:8.0f} MB/s     {cpu / size * 1e9:6.2f} CPU s/GB",
        ),
        (
            "small",
            arguments.small,
            lambda _, s, cpu: (
                f"{arguments.small / s:8.0f} requests/s {cpu / arguments.small * 1e6:5.0f} CPU us/request"
            ),
        ),
    )
    for path, times, as_text in rows:
        for server in servers:
            figures = as_text(*measure(server, path, times))
            print(f"{path}  --ktls {server.mode:5} {server.path():10} {figures}", flush=True)


if __name__ == "__main__":
    main()
