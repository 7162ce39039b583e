"""The small server in front of the redirect and the metrics: bounded in places and in time, whatever clients do."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ktls_server.errors import BadRequest
from ktls_server.net import listening
from ktls_server.operation.plain_http import PlainServer, text
from ktls_server.semantics.messages import Request, Response


def greet(request: Request) -> Response:
    if request.target == b"/bad":
        raise BadRequest(400, "No.")
    return text(200, b"hello")


@asynccontextmanager
async def serving(*, connections: int = 4, seconds: float = 30.0) -> AsyncIterator[int]:
    """A server on a free port, which ends with the block."""
    listeners = listening.bind("127.0.0.1", 0)
    server = PlainServer(listeners, greet, connections=connections, seconds=seconds)
    server.start()
    try:
        yield listening.port_of(listeners[0])
    finally:
        await server.stop()


async def exchange(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    received = await reader.read()
    writer.close()
    await writer.wait_closed()
    return received


async def test_one_request_is_answered_and_the_connection_closed() -> None:
    async with serving() as port:
        received = await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nConnection: close" in head
        assert body == b"hello"
        received = await exchange(port, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert received.endswith(b"\r\n\r\n")
        assert b"Content-Length: 5" in received


async def test_what_is_no_request_is_answered_with_400() -> None:
    async with serving() as port:
        for sent in (b"GET /bad HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00\x05hello\r\n\r\n"):
            assert (await exchange(port, sent)).startswith(b"HTTP/1.1 400 ")


async def test_a_head_that_never_ends_is_refused() -> None:
    async with serving() as port:
        assert (await exchange(port, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000)).startswith(b"HTTP/1.1 431 ")


async def test_the_oldest_connection_makes_room_when_all_places_are_taken() -> None:
    async with serving(connections=4) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
        assert (await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(b"hello")
        for reader, _writer in silent[:3]:
            assert await reader.read() == b""
        silent[5][1].write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await silent[5][0].read()).endswith(b"hello")
        for _reader, writer in silent:
            writer.transport.abort()


async def test_a_client_that_dribbles_is_cut_when_its_time_is_over() -> None:
    async with serving(seconds=0.3) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def dribble() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.05)

        dribbling = asyncio.create_task(dribble())
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            pass  # bytes were under way when it was closed
        finally:
            dribbling.cancel()
            writer.transport.abort()


async def test_stopping_ends_connections_and_refuses_others() -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    writer.close()
    with socket.socket() as late:
        assert late.connect_ex(("127.0.0.1", port)) != 0
