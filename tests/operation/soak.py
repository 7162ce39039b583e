"""Holds idle connections and keeps others busy, and watches whether the server grows: `make soak`, or

    python -m tests.operation.soak --seconds 300 --idle 1000 --busy 100 -- further options of the server

Connections come and go all the time: a busy client makes a new one after every few requests. Exit status 1, with the
samples, where memory, descriptors or tasks at the end exceed those of the first third.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.operation.running import Connection, Place, Running, connect, metric, running, scrape

REQUESTS_PER_CONNECTION = 20
MEMORY_TOLERANCE = 1.05
"""The allocator's pools fill at random times; a leak of 100 bytes a request shows within a minute all the same."""
MEMORY_SLACK_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Sample:
    """The server at one moment, all its workers together."""

    seconds: float
    memory: float
    descriptors: float
    tasks: float
    connections: float
    responses: float


def sample(server: Running, started: float) -> Sample:
    _status, text = scrape(server.metrics_port)
    return Sample(
        time.monotonic() - started,
        metric(text, "ktls_worker_resident_memory_bytes"),
        metric(text, "ktls_worker_open_fds"),
        metric(text, "ktls_worker_connection_tasks"),
        metric(text, "ktls_open_connections"),
        metric(text, "ktls_responses_total"),
    )


async def keep_asking(server: Running, pause: float, enough: asyncio.Event) -> None:
    while not enough.is_set():
        connection = await connect(server)
        try:
            for _ in range(REQUESTS_PER_CONNECTION):
                for path in ("/hello.txt", "/middle.bin"):
                    status, _body, _closes = await connection.get(path)
                    assert status == 200
                await asyncio.sleep(pause)
        finally:
            connection.abort()


async def hold(server: Running, count: int) -> list[Connection]:
    connections = []
    for _ in range(count):
        connections.append(await connect(server))
        await connections[-1].get("/hello.txt")
    return connections


async def soak(server: Running, *, seconds: float, idle: int, busy: int, interval: float) -> list[Sample]:
    """Load the server for so long; samples from the time when all connections stand."""
    held = await hold(server, idle)
    samples: list[Sample] = []
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        enough = asyncio.Event()
        for _ in range(busy):
            group.create_task(keep_asking(server, interval / 50, enough))
        while not samples or samples[-1].seconds < seconds:
            await asyncio.sleep(interval)
            samples.append(await asyncio.to_thread(sample, server, started))
        enough.set()
    for connection in held:
        connection.abort()
    return samples


def growth(samples: list[Sample], connections: int) -> list[str]:
    """What has grown, in words; nothing where all is well. `connections` is how many there may be."""
    early = samples[: max(len(samples) // 3, 1)]
    late = samples[-max(len(samples) // 3, 1) :]
    complaints = []
    # The lowest of late against the highest of early: what comes and goes is not growth.
    allowed = max(s.memory for s in early) * MEMORY_TOLERANCE + MEMORY_SLACK_BYTES
    if min(s.memory for s in late) > allowed:
        complaints.append(
            f"memory: {allowed / 1e6:.1f} MB allowed, {min(s.memory for s in late) / 1e6:.1f} MB at least"
        )
    # A descriptor for a file in each busy connection, some for connections that are just ending, and the server's own.
    for name, limit in (("tasks", connections * 1.5 + 10), ("descriptors", connections * 2 + 150)):
        least = min(getattr(s, name) for s in late)
        if least > limit:
            complaints.append(f"{name}: {limit:.0f} allowed, {least:.0f} at least")
    return complaints


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.operation.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--busy", type=int, default=100)
    parser.add_argument("options", nargs="*", help="options of ktls-server serve, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Place.make(Path(folder))
        fixed = ("--metrics-port", "0", "--max-connections-per-address", "100000", "--keepalive-timeout", "86400")
        with running(place, *fixed, *arguments.options) as server:
            samples = asyncio.run(
                soak(server, seconds=arguments.seconds, idle=arguments.idle, busy=arguments.busy, interval=1.0)
            )
            server.stop()
    print(f"{'s':>6} {'MB':>8} {'fds':>6} {'tasks':>6} {'conns':>6} {'responses':>10}")
    for row in samples[:: max(len(samples) // 20, 1)]:
        print(
            f"{row.seconds:6.0f} {row.memory / 1e6:8.1f} {row.descriptors:6.0f} {row.tasks:6.0f}"
            f" {row.connections:6.0f} {row.responses:10.0f}"
        )
    complaints = growth(samples, arguments.idle + arguments.busy)
    print("\n".join(complaints) or "nothing grew")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
