"""A connected, non-blocking TCP socket whose readiness can be awaited, the same on every event loop.

The server owns its sockets: no asyncio transport stands between. That is what lets OpenSSL, `setsockopt(SOL_TLS)` and
`sendfile` share one socket, and uvloop serve files at all (it has no `sendfile`, and refuses `add_writer` on the
descriptor of a transport). It also means that an idle connection holds no buffer.

The reader is registered once and stays: a keep-alive request costs no `epoll_ctl`. It is taken out only when bytes come
that nobody waits for, so that a client that pipelines while it downloads does not spin the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import Generator
from typing import Final

from ..errors import ConnectionLost, FileChanged

SENDFILE_BYTES: Final = 1024 * 1024
"""The most that one sendfile call may take. On a keyed socket the call encrypts, on the event loop's thread: 1 MiB is
about 0.6 ms with AES-NI. Larger calls gain nothing: they fill the send buffer, and waiting costs more than yielding."""
LINGER_BYTES: Final = 1 << 20
"""What a peer may still have been sending when we stopped listening: about what the socket buffers of both ends hold."""

_TCP_INFO_SIZE: Final = 128
_TCP_CLOSE: Final = 7
"""`tcpi_state`, the first byte of `struct tcp_info` (net/tcp_states.h)."""

_ABORT: Final = struct.pack("ii", 1, 0)
"""struct linger: l_onoff, l_linger of 0 seconds (socket(7))."""


class _Yield:
    """Awaiting it lets every other ready connection run once."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        yield


YIELD: Final = _Yield()


class Channel:
    """Reads from and writes to one socket, which it owns.

    Every operation raises ConnectionLost when the peer is gone. `sent` counts the bytes that the kernel has taken; what a
    call of sendfile took before it broke off may be missing.
    """

    __slots__ = (
        *("_loop", "_loop_has_sendfile", "_reader_registered", "_reading", "_writing"),
        *("closed", "fd", "sent", "sock"),
    )

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.closed = False
        self.sent = 0
        self._loop = loop
        self._loop_has_sendfile = isinstance(loop, asyncio.SelectorEventLoop)
        self._reading: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._reader_registered = False

    async def wait_readable(self) -> None:
        """Return once there is something to read: bytes, the end, or an error. Raises OSError for one that is there already."""
        if not self._reader_registered:
            self._loop.add_reader(self.fd, self._on_readable)
            self._reader_registered = True
        elif error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            # libuv reports an error once and never again (uv__poll_io). When a RST comes together with bytes, recv gives
            # the bytes, and nothing would ever wake us for the error.
            raise OSError(error, os.strerror(error))
        self._reading = self._loop.create_future()
        try:
            await self._reading
        finally:
            self._reading = None

    def _on_readable(self) -> None:
        waiting = self._reading
        if waiting is None:
            self._loop.remove_reader(self.fd)
            self._reader_registered = False
        elif not waiting.done():
            waiting.set_result(None)

    async def wait_writable(self) -> None:
        """Return once the kernel takes bytes again, or the connection is broken."""
        self._writing = self._loop.create_future()
        self._loop.add_writer(self.fd, self._on_writable)
        try:
            await self._writing
        finally:
            self._writing = None
            if not self.closed:
                self._loop.remove_writer(self.fd)

    def _on_writable(self) -> None:
        if self._writing is not None and not self._writing.done():
            self._writing.set_result(None)

    async def receive(self, size: int) -> bytes:
        """At most `size` bytes; b"" at the end of the stream."""
        while True:
            try:
                # Nothing is there yet in nearly every case: asking epoll first saves a failing recv.
                await self.wait_readable()
                return self.sock.recv(size)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                raise ConnectionLost("the connection broke while reading") from error

    async def send(self, data: bytes | memoryview, flags: int = 0) -> None:
        """All of `data`, with the send(2) flags given (MSG_MORE)."""
        while True:
            try:
                sent = self.sock.send(data, flags)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                raise ConnectionLost("the connection broke while writing") from error
            self.sent += sent
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            await self.wait_writable()

    async def send_shared(self, data: memoryview) -> None:
        """All of `data`, out of a buffer that others use while this connection waits."""
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            raise ConnectionLost("the connection broke while writing") from error
        self.sent += sent
        if sent < len(data):
            rest = bytes(data[sent:])
            await self.wait_writable()
            await self.send(rest)

    def try_send(self, data: bytes) -> bool:
        """Send all of a few last bytes if the kernel takes them now; never waits, never raises."""
        try:
            return self.sock.send(data) == len(data)
        except OSError:
            return False

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        """`count` bytes of a file from `offset`, by sendfile: the bytes never enter this process.

        Raises FileChanged where the file ends before that, ConnectionLost.
        """
        while count:
            chunk = min(count, SENDFILE_BYTES)
            try:
                if self._loop_has_sendfile:
                    sent = await self._loop.sock_sendfile(self.sock, _OpenFile(fd), offset, chunk, fallback=False)  # type: ignore[arg-type]
                else:
                    sent = os.sendfile(self.fd, fd, offset, chunk)
            except (BlockingIOError, InterruptedError):
                await self.wait_writable()
                continue
            except (OSError, asyncio.SendfileNotAvailableError) as error:
                raise ConnectionLost("the connection broke while sending a file") from error
            if sent == 0:
                raise FileChanged("a file became shorter while it was being sent")
            self.sent += sent
            offset += sent
            count -= sent
            if count:
                if self._is_broken():
                    raise ConnectionLost("the connection broke while sending a file")
                await YIELD

    def _is_broken(self) -> bool:
        """Whether TCP has given the connection up.

        On a keyed socket sendfile does not always say so: seen on Linux 6.1, where it went on to take a hundred MiB that
        nobody was there to receive.
        """
        try:
            return self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
        except OSError:
            return False  # no TCP socket

    def has_unread_bytes(self) -> bool:
        """Whether something has come that nobody has read yet; the end of the stream is nothing."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def bytes_acknowledged(self) -> int:
        """What the peer has acknowledged so far (`tcpi_bytes_acked` of `struct tcp_info`, linux/tcp.h); 0 where unknown."""
        try:
            info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        except OSError:
            return 0
        return int.from_bytes(info[120:128], sys.byteorder)

    def all_acknowledged(self) -> bool:
        """Whether the peer's kernel has all that was sent: a RST drops what it has not (SIOCOUTQ of tcp(7))."""
        try:
            return not any(fcntl.ioctl(self.fd, termios.TIOCOUTQ, bytes(4)))
        except OSError:
            return True

    async def linger(self) -> None:
        """Send the end of the stream, then read and drop what the peer still sends, until its end or LINGER_BYTES."""
        with contextlib.suppress(OSError, ConnectionLost):
            self.sock.shutdown(socket.SHUT_WR)
            left = LINGER_BYTES
            while left > 0:
                dropped = len(await self.receive(16384))
                if not dropped:
                    return
                left -= dropped

    def reset(self) -> None:
        """Close, and drop what is in the send buffer: the kernel would keep it for as long as the peer likes to read."""
        if not self.closed:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            self.close()

    def close(self) -> None:
        """Give the descriptor back, at once; bytes in the send buffer still go out."""
        if self.closed:
            return
        self.closed = True
        if self._reader_registered:
            self._loop.remove_reader(self.fd)
        # Not only ours: the one of asyncio's sock_sendfile would stay, under a number that soon is another connection's.
        self._loop.remove_writer(self.fd)
        self.sock.close()


class _OpenFile:
    """What `loop.sock_sendfile` wants of a file object, over a bare descriptor: every call here names its offset."""

    __slots__ = ("_fd",)
    mode = "rb"

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd
