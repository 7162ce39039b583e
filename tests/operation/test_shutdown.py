"""The end: what has begun is finished, what was asked for is answered, and nobody waits longer than allowed."""

import asyncio
import contextlib
import random
import signal
import ssl

import httpx
import pytest

from tests.operation.running import Connection, Place, Running, connect, running
from tests.waiting import eventually_async

CLIENTS = 24
ENOUGH_RESPONSES = 1000


class Tally:
    """What all clients got."""

    def __init__(self) -> None:
        self.answered = 0
        self.told_to_close = 0
        self.stopped = asyncio.Event()

    def count(self, body: bytes, expected: bytes) -> None:
        assert body == expected
        self.answered += 1


async def keep_asking(server: Running, tally: Tally, think_seconds: float) -> None:
    """Ask on one connection until the server says that it closes; an answer that is cut fails the test."""
    chance = random.Random(think_seconds)
    expected = (server.place.site / "middle.bin").read_bytes()
    connection = await connect(server)
    while True:
        status, body, closes = await connection.get("/middle.bin")
        assert status == 200
        tally.count(body, expected)
        if closes:
            tally.told_to_close += 1
            connection.abort()
            return
        await asyncio.sleep(chance.uniform(0, think_seconds))


async def keep_asking_by_httpx(server: Running, tally: Tally) -> None:
    """The same by a client that opens connections as it likes: only those may be refused, once the end has begun."""
    expected = (server.place.site / "middle.bin").read_bytes()
    async with httpx.AsyncClient(verify=server.context, base_url=f"https://localhost:{server.port}") as client:
        while True:
            try:
                response = await client.get("/middle.bin")
            except httpx.ConnectError:
                assert tally.stopped.is_set(), "refused although nobody asked the server to stop"
                return
            tally.count(response.content, expected)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_no_response_is_cut_when_the_server_is_stopped_under_load(place: Place, loop: str, workers: str) -> None:
    with running(place, "--loop", loop, "--workers", workers) as server:
        tally = Tally()
        # From clients that never pause to those that pause for half of the time that an idle connection is left.
        clients = [keep_asking(server, tally, 0.5 * number / CLIENTS) for number in range(CLIENTS)]
        clients += [keep_asking_by_httpx(server, tally) for _ in range(4)]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client)
            await eventually_async(lambda: tally.answered >= ENOUGH_RESPONSES, f"{ENOUGH_RESPONSES} responses")
            tally.stopped.set()
            server.signal(signal.SIGTERM)
        assert tally.told_to_close == CLIENTS
        assert await asyncio.to_thread(server.wait) == 0, server.errors()
        assert server.errors() == ""


async def begin_large_download(server: Running) -> Connection:
    connection = await connect(server)
    connection.ask("/large.bin")
    assert await connection.reader.readexactly(12) == b"HTTP/1.1 200"
    return connection


@pytest.mark.parametrize(("loop", "workers"), [("asyncio", "1"), ("uvloop", "2")])
async def test_a_download_goes_on_to_its_end_while_newcomers_are_refused(place: Place, loop: str, workers: str) -> None:
    with running(place, "--loop", loop, "--workers", workers, "--grace", "60") as server:
        download = await begin_large_download(server)
        server.signal(signal.SIGTERM)

        async def refused() -> None:
            while True:
                with contextlib.suppress(ssl.SSLError, ConnectionResetError):
                    (await connect(server)).abort()
                await asyncio.sleep(0.02)

        with pytest.raises(ConnectionRefusedError):
            await asyncio.wait_for(refused(), 30)
        received = len(await download.reader.read())
        assert received > (place.site / "large.bin").stat().st_size
        download.abort()
        assert await asyncio.to_thread(server.wait) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_download_is_cut_when_the_grace_period_is_over(place: Place, workers: str) -> None:
    with running(place, "--workers", workers, "--grace", "0.5") as server:
        download = await begin_large_download(server)
        server.signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.wait) == 0
        assert server.errors() == ""
        download.abort()


@pytest.mark.parametrize(("workers", "number"), [("1", signal.SIGINT), ("2", signal.SIGTERM)])
async def test_a_second_signal_ends_the_server_at_once(place: Place, workers: str, number: signal.Signals) -> None:
    # Without it the download would hold the server for an hour.
    with running(place, "--workers", workers, "--grace", "3600") as server:
        download = await begin_large_download(server)
        idle = await connect(server)
        server.signal(number)
        assert await idle.closed()
        assert server.process.poll() is None
        server.signal(number)
        assert await asyncio.to_thread(server.wait) == 0
        assert server.errors() == ""
        download.abort()


async def test_an_idle_connection_may_still_ask_once_after_the_signal(place: Place, loop: str) -> None:
    with running(place, "--loop", loop) as server:
        connection = await connect(server)
        assert (await connection.get("/hello.txt"))[1:] == (b"hello", False)
        server.signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        assert (await connection.get("/hello.txt"))[1:] == (b"hello", True)
        assert await connection.closed()
        connection.abort()
        assert await asyncio.to_thread(server.wait) == 0
