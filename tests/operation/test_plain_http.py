"""The small servers of plain HTTP, the redirect and the metrics: bounded in places and in time, whatever clients do."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ktls_server.accesslog import LoggedConnection
from ktls_server.counters import Counters
from ktls_server.errors import BadRequest
from ktls_server.net import listening
from ktls_server.operation.connections import Connections
from ktls_server.operation.plain import plain_connections, text
from ktls_server.semantics.messages import Request, Response
from ktls_server.settings import Settings
from tests.waiting import eventually_async

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def greet(request: Request, _client: LoggedConnection) -> Response:
    if request.target == b"/bad":
        raise BadRequest(400, "No.")
    return text(200, b"hello")


class Serving:
    """A server on a free port, and what it counted."""

    def __init__(self, connections: int, seconds: float) -> None:
        listeners = listening.bind("127.0.0.1", 0)
        self.port = listening.port_of(listeners[0])
        self.counters = Counters()
        self.all: Connections = plain_connections(
            Settings(),
            greet,
            listeners,
            asyncio.get_running_loop(),
            counters=self.counters,
            responses=Counter(),
            connections=connections,
            seconds=seconds,
        )
        self.all.start()

    async def stop(self) -> None:
        """As a worker does; where an end takes too long, `tasks` is not 0 afterwards."""
        self.all.stop()
        self.all.hasten(0)
        await self.all.wait_until_empty(30)


@asynccontextmanager
async def serving(*, connections: int = 4, seconds: float = 30.0) -> AsyncIterator[Serving]:
    """A server whose time limits are looked at, as a worker does; it ends with the block."""
    server = Serving(connections, seconds)

    async def look() -> None:
        while True:
            await asyncio.sleep(0.05)
            server.all.check_deadlines()

    looking = asyncio.create_task(look())
    try:
        yield server
    finally:
        await server.stop()
        looking.cancel()
        assert server.all.tasks == 0


async def exchange(server: Serving, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    received = await reader.read()
    writer.close()
    await writer.wait_closed()
    return received


async def test_one_request_is_answered_and_the_connection_closed() -> None:
    async with serving() as server:
        received = await exchange(server, GET)
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nConnection: close" in head
        assert body == b"hello"
        received = await exchange(server, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert received.endswith(b"\r\n\r\n")
        assert b"Content-Length: 5" in received


async def test_what_is_no_request_is_answered_with_400() -> None:
    async with serving() as server:
        for sent in (b"GET /bad HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00\x05hello\r\n\r\n"):
            assert (await exchange(server, sent)).startswith(b"HTTP/1.1 400 ")


async def test_a_head_that_never_ends_is_refused() -> None:
    async with serving() as server:
        assert (await exchange(server, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000)).startswith(b"HTTP/1.1 431 ")


async def test_the_oldest_connection_makes_room_when_all_places_are_taken() -> None:
    async with serving(connections=4) as server:
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(4)]
        await eventually_async(lambda: server.counters.accepted == 4, "all places are taken")
        silent.append(await asyncio.open_connection("127.0.0.1", server.port))
        assert await silent[0][0].read() == b"", "the oldest one went"
        assert server.counters.refused == {"idle_evicted": 1}
        assert (await exchange(server, GET)).endswith(b"hello")
        silent[4][1].write(GET)
        assert (await silent[4][0].read()).endswith(b"hello")
        for _reader, writer in silent:
            writer.transport.abort()


async def test_a_client_that_dribbles_is_cut_when_its_time_is_over() -> None:
    async with serving(seconds=0.3) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)

        async def dribble() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.05)

        dribbling = asyncio.create_task(dribble())
        received = b""
        try:
            while data := await reader.read(1000):
                received += data
        except ConnectionResetError:
            pass  # bytes were under way when it was closed
        finally:
            dribbling.cancel()
            writer.transport.abort()
        await eventually_async(lambda: server.all.tasks == 0, "the connection is gone")
        assert server.counters.timeouts["request"] == 1
        assert received == b"" or received.startswith(b"HTTP/1.1 408 ")


async def test_stopping_ends_connections_and_refuses_others() -> None:
    async with serving() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await reader.read() == b""
    writer.close()
    with socket.socket() as late:
        assert late.connect_ex(("127.0.0.1", server.port)) != 0
