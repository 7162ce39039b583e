"""What hostile and slow clients can take: a bounded share, for a bounded time, while normal clients are served.

Normal clients come from 127.0.0.1, the others from 127.0.0.2: limits for each address are in force.
"""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from tests.operation.running import Connection, Cut, Place, Running, connect, fetch, metric, running, scrape
from tests.waiting import eventually_async

ATTACKER = "127.0.0.2"
NORMAL_REQUESTS = 10
MEGABYTE = 1024 * 1024


def seen(server: Running, name: str, **labels: str) -> float:
    return metric(scrape(server.metrics_port)[1], name, **labels)


async def comes_to(server: Running, value: float, name: str, **labels: str) -> None:
    """Wait until the metric says so: numbers are written every half second."""
    await eventually_async(lambda: seen(server, name, **labels) == value, f"{name} {labels} {value}")


async def serves_normal_clients(server: Running) -> None:
    """One after another, each with a handshake of its own."""
    for _ in range(NORMAL_REQUESTS):
        assert await fetch(server) == b"hello"


async def plain_connect(server: Running) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A TCP connection that says nothing."""
    return await asyncio.open_connection("127.0.0.1", server.port, local_addr=(ATTACKER, 0))


@asynccontextmanager
async def meanwhile(count: int, attack: Callable[[], Awaitable[None]]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """`count` attackers at work within the block; what the server does to them ends them, not an error here."""

    async def attacker() -> None:
        try:
            await attack()
        except (OSError, EOFError):
            return

    tasks = [asyncio.create_task(attacker()) for _ in range(count)]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_slowloris_holds_its_connections_for_the_head_timeout_only(place: Place, loop: str) -> None:
    with running(place, "--loop", loop, "--head-timeout", "3", "--metrics-port", "0") as server:
        answers = []
        # Handshakes take their time on a busy machine: the attack begins when all connections stand.
        standing = asyncio.Barrier(40)

        async def dribble() -> None:
            connection = await connect(server, source=ATTACKER)
            await standing.wait()

            async def write() -> None:
                connection.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
                for number in range(1000):
                    connection.writer.write(b"X-%d: y\r\n" % number)
                    await asyncio.sleep(0.1)

            writing = asyncio.create_task(write())
            try:
                answers.append((await connection.answer())[0])
            finally:
                writing.cancel()
                connection.abort()

        async with meanwhile(40, dribble) as tasks:
            await eventually_async(lambda: seen(server, "ktls_open_connections", stage="request") >= 20, "an attack")
            await serves_normal_clients(server)
            await asyncio.wait(tasks)
        assert answers == [408] * 40
        await comes_to(server, 40, "ktls_timeouts_total", stage="request")
        server.stop()


async def stay_silent(server: Running, begin: bytes) -> None:
    """Connect, send the beginning of a handshake, and wait for what happens."""
    reader, writer = await plain_connect(server)
    writer.write(begin)
    try:
        await reader.read()
    finally:
        writer.close()


async def test_silent_handshakes_cannot_crowd_out_normal_clients(place: Place, loop: str) -> None:
    options = ("--max-handshakes", "16", "--handshake-timeout", "600", "--metrics-port", "0", "--loop", loop)
    with running(place, *options) as server:
        silent, halfway = partial(stay_silent, server, b""), partial(stay_silent, server, b"\x16\x03\x01\x02\x00\x01")
        async with meanwhile(60, silent), meanwhile(60, halfway):
            await eventually_async(lambda: seen(server, "ktls_connections_accepted_total") == 120, "an attack")
            await serves_normal_clients(server)
            # Each past the sixteenth cost the oldest its place; so did the first normal client, the next ones took its own.
            await comes_to(server, 120 - 16 + 1, "ktls_connections_refused_total", limit="handshake_evicted")
            await comes_to(server, 16 - 1, "ktls_open_connections", stage="handshake")
        await comes_to(server, 0, "ktls_open_connections")
        server.stop()


async def test_a_silent_handshake_ends_when_its_time_is_over(place: Place, loop: str) -> None:
    with running(place, "--handshake-timeout", "0.2", "--metrics-port", "0", "--loop", loop) as server:
        async with meanwhile(5, partial(stay_silent, server, b"\x16")) as tasks:
            await asyncio.wait(tasks)
        await comes_to(server, 5, "ktls_timeouts_total", stage="handshake")
        server.stop()


async def test_a_flood_from_one_address_gets_no_more_than_its_share(place: Place) -> None:
    options = ("--max-connections-per-address", "10", "--handshake-timeout", "600", "--metrics-port", "0")
    with running(place, *options) as server:
        flood = [await plain_connect(server) for _ in range(50)]
        await serves_normal_clients(server)
        await comes_to(server, 40, "ktls_connections_refused_total", limit="per_address")
        await comes_to(server, 10, "ktls_open_connections", stage="handshake")
        for _reader, writer in flood:
            writer.close()
        await eventually_async(lambda: seen(server, "ktls_open_connections") == 0, "the end of the flood")
        assert await fetch(server, source=ATTACKER) == b"hello"
        server.stop()


async def test_when_places_run_out_the_longest_idle_connection_makes_room(place: Place) -> None:
    with running(place, "--max-connections", "8", "--metrics-port", "0") as server:
        idle: list[Connection] = []
        for _ in range(8):
            idle.append(await connect(server, source=ATTACKER))
            await idle[-1].get("/hello.txt")
        assert await fetch(server) == b"hello"
        assert await idle[0].closed()
        # The others were not touched.
        for connection in idle[1:]:
            assert (await connection.get("/hello.txt"))[0] == 200
        await comes_to(server, 1, "ktls_connections_refused_total", limit="idle_evicted")
        for connection in idle:
            connection.abort()
        server.stop()


async def test_when_all_places_are_busy_newcomers_wait_until_one_is_free(place: Place) -> None:
    with running(place, "--max-connections", "4", "--send-timeout", "600", "--metrics-port", "0") as server:
        stalled = []
        for _ in range(5):  # one more than there are places is let in, to see whether another makes room
            connection = await connect(server, source=ATTACKER)
            connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
            connection.ask("/large.bin")
            stalled.append(connection)
        await comes_to(server, 5, "ktls_open_connections", stage="response")
        newcomer = asyncio.create_task(fetch(server))
        await eventually_async(lambda: seen(server, "ktls_accept_pauses_total") >= 2, "pauses")
        assert not newcomer.done()
        for connection in stalled[:2]:
            connection.abort()
        assert await newcomer == b"hello"
        for connection in stalled[2:]:
            connection.abort()
        await comes_to(server, 0, "ktls_open_connections")
        server.stop()


async def read_slowly(server: Running) -> None:
    """Take a KB of a large file each tenth of a second, through a small window, until the server has had enough.

    The window is not smaller than a segment on the loopback (64 KiB), or TCP itself would stall (RFC 9293 3.8.6.2.1);
    acknowledgements then come in steps of some hundred KiB.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
    sock.bind((ATTACKER, 0))
    await loop.sock_connect(sock, ("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(
        sock=sock, ssl=server.context, server_hostname="localhost", limit=500
    )
    connection = Connection(reader, writer)
    connection.ask("/large.bin")
    try:
        while await reader.read(1000):  # noqa: ASYNC110 - what is waited for is time
            await asyncio.sleep(0.1)
    finally:
        connection.abort()


async def test_slow_readers_are_cut_and_hold_little_memory(place: Place, loop: str) -> None:
    options = ("--send-timeout", "1", "--min-rate", "10000000", "--handshake-timeout", "60", "--metrics-port", "0")
    with running(place, *options, "--loop", loop) as server:
        before = seen(server, "ktls_worker_resident_memory_bytes")
        async with meanwhile(20, partial(read_slowly, server)):
            await eventually_async(lambda: seen(server, "ktls_timeouts_total", stage="response") >= 1, "slow reading")
            growth = seen(server, "ktls_worker_resident_memory_bytes") - before
            await serves_normal_clients(server)
            await comes_to(server, 20, "ktls_timeouts_total", stage="response")
        assert growth < 20 * MEGABYTE
        server.stop()


async def test_a_connection_ends_after_so_many_requests(place: Place) -> None:
    with running(place, "--max-requests", "3", "--metrics-port", "0") as server:
        busy = await connect(server)
        assert [(await busy.get("/hello.txt"))[2] for _ in range(3)] == [False, False, True]
        assert await busy.closed()
        busy.abort()
        server.stop()


async def test_an_idle_connection_ends_when_its_time_is_over(place: Place) -> None:
    with running(place, "--keepalive-timeout", "0.5", "--metrics-port", "0") as server:
        idle = [await connect(server) for _ in range(3)]
        # A client of a busy machine may come too late with its request, and be idle from the start.
        for connection in idle:
            connection.ask("/hello.txt")
        for connection in idle:
            with contextlib.suppress(Cut):
                assert (await connection.answer())[2] is False
            assert await connection.closed()
            connection.abort()
        await comes_to(server, 3, "ktls_timeouts_total", stage="idle")
        server.stop()


async def test_without_descriptors_the_server_waits_and_serves_again(place: Place, loop: str) -> None:
    options = ("--handshake-timeout", "600", "--max-connections", "1000", "--metrics-port", "0", "--loop", loop)
    with running(place, *options, descriptors=64) as server:
        started = time.monotonic()

        def cpu_seconds() -> float:
            fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(") ")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        flood = [await plain_connect(server) for _ in range(100)]
        await eventually_async(lambda: "cannot accept connections" in server.errors(), "the shortage")
        used = cpu_seconds()
        await asyncio.sleep(1)
        # Spinning would use all of this second.
        assert cpu_seconds() - used < 0.5
        # Once in ten seconds, however often it is met.
        logged = server.errors().count("cannot accept connections")
        assert logged <= 1 + (time.monotonic() - started) // 10
        for _reader, writer in flood:
            writer.close()
        assert await fetch(server) == b"hello"
        await eventually_async(lambda: seen(server, "ktls_accept_pauses_total") >= 2, "pauses")
        await eventually_async(lambda: seen(server, "ktls_open_connections") == 0, "all closed")
        server.signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.wait) == 0
        assert "Traceback" not in server.errors()
