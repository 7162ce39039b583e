"""What a channel keeps, drops and gives up, at its edges."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import cast

import pytest

from ktls_server.errors import ConnectionLost
from ktls_server.net.channel import LINGER_BYTES, Channel
from tests.core.scripted import NEVER_AGAIN, ScriptedLoop, ScriptedSocket


def channel_over(takes: list[int], *, fin: bool = True) -> tuple[Channel, ScriptedSocket]:
    loop = ScriptedLoop()
    sock = ScriptedSocket(loop, takes, fin=fin)
    return Channel(cast(socket.socket, sock), cast(asyncio.AbstractEventLoop, loop)), sock


async def test_what_is_kept_is_a_copy_because_the_buffer_is_used_by_others() -> None:
    channel, sock = channel_over([3, NEVER_AGAIN])
    buffer = bytearray(b"of this connection")
    assert not channel.push(memoryview(buffer))
    buffer[:] = b"OF ANOTHER CLIENT!"
    assert not channel.push(memoryview(buffer)[:2])
    buffer[:] = bytes(len(buffer))
    sock.takes.clear()
    assert channel.flush()
    assert sock.sent == b"of this connectionOF"
    assert channel.sent == len(sock.sent)
    channel.close()


async def test_a_reset_is_a_reset() -> None:
    near, far = await _pair()
    Channel(near, asyncio.get_running_loop()).reset()
    with pytest.raises(ConnectionResetError):
        await asyncio.get_running_loop().sock_recv(far, 1)
    far.close()


async def test_a_close_is_the_end_of_the_stream() -> None:
    near, far = await _pair()
    Channel(near, asyncio.get_running_loop()).close()
    assert await asyncio.get_running_loop().sock_recv(far, 1) == b""
    far.close()


async def _pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


async def test_an_error_that_the_loop_told_of_once_is_asked_for_before_the_next_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """libuv reports a RST together with the bytes before it, and never again."""
    channel, sock = channel_over([], fin=False)
    sock.incoming.append(b"bytes")
    await channel.readable()
    assert channel.receive_into(memoryview(bytearray(100))) == 5
    monkeypatch.setattr(sock, "getsockopt", lambda *_arguments: errno.ECONNRESET)
    with pytest.raises(ConnectionLost):
        await channel.readable()
    channel.close()


async def test_lingering_ends_after_so_many_bytes_of_a_client_that_goes_on_sending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    channel, sock = channel_over([], fin=False)
    received = 0

    def recvmsg(size: int, _space: int) -> tuple[bytes, list[object], int, None]:
        nonlocal received
        received += size
        assert received <= 2 * LINGER_BYTES, "it never ends"
        return bytes(size), [], 0, None

    monkeypatch.setattr(sock, "recvmsg", recvmsg)
    await channel.linger()
    assert received == LINGER_BYTES
    assert sock.write_ended
    channel.close()
