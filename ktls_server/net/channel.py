"""A connected, non-blocking TCP socket whose readiness can be awaited, the same on every event loop.

The server owns its sockets: no asyncio transport stands between. That is what lets OpenSSL, `setsockopt(SOL_TLS)` and
`sendfile` share one socket, and uvloop serve files at all (it has no `sendfile`, and refuses `add_writer` on the
descriptor of a transport). It also means that an idle connection holds no buffer.

The reader is registered once and stays: a keep-alive request costs no `epoll_ctl`. It is taken out only when bytes come
that nobody waits for, so that a client that pipelines while it downloads does not spin the loop.

Bytes that userspace has sealed cannot be sealed again: what the socket does not take of them at once is kept here, whoever
is cancelled, and goes out before anything else (`push`, `flush`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import Awaitable, Callable, Generator
from typing import Final

from ..errors import ConnectionLost, FileChanged, FileUnreadable, Interrupted

SENDFILE_BYTES: Final = 1024 * 1024
"""The most that one sendfile call may take. On a keyed socket the call encrypts, on the event loop's thread: 1 MiB is
about 0.6 ms with AES-NI. Larger calls gain nothing: they fill the send buffer, and waiting costs more than yielding."""
LINGER_BYTES: Final = 1 << 20
"""What a peer may still have been sending when we stopped listening: about what the socket buffers of both ends hold."""

_LINGER_READ_BYTES: Final = 16384
_ACKNOWLEDGEMENT_POLL_SECONDS: Final = 0.05
_RECORD_TYPE_SPACE: Final = socket.CMSG_SPACE(1)

_TCP_INFO_SIZE: Final = 128
_TCP_CLOSE: Final = 7
"""`tcpi_state`, the first byte of `struct tcp_info` (net/tcp_states.h)."""

_ABORT: Final = struct.pack("ii", 1, 0)
"""struct linger: l_onoff, l_linger of 0 seconds (socket(7))."""

_CONNECTION_ERRNOS: Final = frozenset(
    (
        *(errno.EPIPE, errno.ECONNRESET, errno.ECONNABORTED, errno.ENOTCONN, errno.ESHUTDOWN, errno.EBADF),
        *(errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.EHOSTDOWN),
        *(errno.EBADMSG, errno.EMSGSIZE, errno.EKEYEXPIRED, errno.ENOBUFS, errno.ENOMEM),
    )
)
"""What sendfile says of its socket; every other errno is about the file."""


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
        *("_loop", "_loop_has_sendfile", "_on_room", "_reader_registered", "_reading", "_sent_before", "_unsent"),
        "_writing",
        *("closed", "fd", "interrupted", "sent", "sock"),
    )

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.closed = False
        self.interrupted = False
        self.sent = 0
        self._loop = loop
        self._loop_has_sendfile = isinstance(loop, asyncio.SelectorEventLoop)
        self._reading: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._on_room: Callable[[], object] | None = None
        self._reader_registered = False
        self._sent_before = -1
        self._unsent: bytes | memoryview = b""

    # Reading

    def readable(self) -> Awaitable[None]:
        """Await it: it returns once there is something to read: bytes, the end of the stream, or an error.

        Raises Interrupted, here or in the middle of the wait, where the server wants the connection to end, and
        ConnectionLost for an error that is there already.
        """
        if self.interrupted:
            raise Interrupted
        if not self._reader_registered:
            self._loop.add_reader(self.fd, self._on_readable)
            self._reader_registered = True
        elif self._sent_before == self.sent:
            # libuv reports an error once and never again (uv__poll_io). When a RST comes together with bytes, recv gives
            # the bytes, and nothing would ever wake us for the error. Where something was sent since, there was none.
            error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise ConnectionLost(f"the connection broke: {os.strerror(error)}")
        self._sent_before = self.sent
        self._reading = future = self._loop.create_future()
        return future

    def _on_readable(self) -> None:
        waiting = self._reading
        if waiting is None or waiting.done():
            self._loop.remove_reader(self.fd)
            self._reader_registered = False
        else:
            self._reading = None
            waiting.set_result(None)

    def interrupt(self) -> None:
        """Have whoever waits for the peer's bytes, now or next, get Interrupted instead."""
        self.interrupted = True
        waiting, self._reading = self._reading, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(Interrupted())

    def receive_into(self, buffer: memoryview) -> int | None:
        """Read what is there: bytes read, 0 at the end of the stream, None where nothing has come."""
        try:
            return self.sock.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise ConnectionLost("the connection broke while reading") from error

    async def receive(self, size: int) -> bytes:
        """Wait for at most `size` bytes; b"" at the end of the stream. Raises as `readable`."""
        while True:
            # Nothing is there yet in nearly every case: asking epoll first saves a failing recv.
            await self.readable()
            try:
                return self.sock.recv(size)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                raise ConnectionLost("the connection broke while reading") from error

    # Writing

    async def writable(self) -> None:
        """Return once the kernel takes bytes again, or the connection is broken."""
        self._writing = self._loop.create_future()
        self._loop.add_writer(self.fd, self._on_writable)
        try:
            await self._writing
        finally:
            self._writing = None
            if not self.closed:
                self._loop.remove_writer(self.fd)

    def call_when_writable(self, callback: Callable[[], object]) -> None:
        """Call `callback` once when the kernel takes bytes again. Only while nobody waits in `writable` or sends a file."""
        self._on_room = callback
        self._loop.add_writer(self.fd, self._on_writable)

    def _on_writable(self) -> None:
        self._loop.remove_writer(self.fd)
        callback, self._on_room = self._on_room, None
        if self._writing is not None:
            if not self._writing.done():
                self._writing.set_result(None)
        elif callback is not None:
            callback()

    def try_send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """How many bytes of `data` the kernel takes now, with the send(2) flags given; 0 where it is full."""
        try:
            sent = self.sock.send(data, flags)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise ConnectionLost("the connection broke while writing") from error
        self.sent += sent
        return sent

    def push(self, data: bytes | memoryview) -> bool:
        """Take all of `data`, after what was pushed before; True where the kernel has it all, False where some is kept.

        `data` is copied before it is kept: it may be a buffer that others use.
        """
        if self._unsent:
            self._unsent = bytes(self._unsent) + data
            return self.flush()
        sent = self.try_send(data)
        if sent == len(data):
            return True
        self._unsent = bytes(data[sent:])
        return False

    def flush(self) -> bool:
        """Hand what is kept to the kernel; True where nothing is left."""
        if not self._unsent:
            return True
        sent = self.try_send(self._unsent)
        self._unsent = memoryview(self._unsent)[sent:] if sent < len(self._unsent) else b""
        return not self._unsent

    async def send(self, data: bytes) -> None:
        """All of `data`, however long the peer takes to read it."""
        if not self.push(data):
            while not self.flush():
                await self.writable()

    async def send_file_part(self, fd: int, offset: int, count: int) -> int:
        """Some of `count` bytes of a file from `offset`, at least one, by sendfile: the bytes never enter this process.

        Returns how many. Raises FileChanged where the file ends before that, FileUnreadable, ConnectionLost.
        """
        count = min(count, SENDFILE_BYTES)
        while True:
            try:
                if self._loop_has_sendfile:
                    sent = await self._sendfile_by_loop(fd, offset, count)
                else:
                    sent = os.sendfile(self.fd, fd, offset, count)
            except (BlockingIOError, InterruptedError):
                await self.writable()
                continue
            except OSError as error:
                if error.errno is None or error.errno in _CONNECTION_ERRNOS:
                    raise ConnectionLost("the connection broke while sending a file") from error
                raise FileUnreadable(error.errno) from error
            if sent == 0:
                raise FileChanged("a file became shorter while it was being sent")
            self.sent += sent
            return sent

    async def _sendfile_by_loop(self, fd: int, offset: int, count: int) -> int:
        try:
            return await self._loop.sock_sendfile(self.sock, _OpenFile(fd), offset, count, fallback=False)  # type: ignore[arg-type]
        except asyncio.SendfileNotAvailableError:
            # The loop hides the errno of the first call. Once more, without the loop, to learn the errno.
            return os.sendfile(self.fd, fd, offset, count)

    # The state of TCP

    def is_broken(self) -> bool:
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

    # The end

    async def linger(self) -> None:
        """Send the end of the stream, then read and drop what the peer still sends, until its end or LINGER_BYTES.

        Closing on unread bytes would reset what the peer has not read yet. Where reading fails (a socket with TLS_RX whose
        key has changed) it waits until the peer has acknowledged all instead. Put a time limit around it.
        """
        with contextlib.suppress(OSError, ConnectionLost, Interrupted):
            self.interrupted = False
            self.sock.shutdown(socket.SHUT_WR)
            left = LINGER_BYTES
            while left > 0:
                try:
                    # With room for the record's type: where the kernel decrypts, recv(2) takes application data only.
                    data, control, _, _ = self.sock.recvmsg(_LINGER_READ_BYTES, _RECORD_TYPE_SPACE)
                except (BlockingIOError, InterruptedError):
                    await self.readable()
                    continue
                except OSError as error:
                    if error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.ENOTCONN):
                        return
                    await self._wait_acknowledged()
                    return
                if not data and not control:
                    return
                left -= len(data)

    async def _wait_acknowledged(self) -> None:
        # The kernel tells nobody of an acknowledgement: there is nothing to wait on.
        while not self.all_acknowledged() and not self.is_broken():  # noqa: ASYNC110
            await asyncio.sleep(_ACKNOWLEDGEMENT_POLL_SECONDS)

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
        self._on_room = None
        self._unsent = b""
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
