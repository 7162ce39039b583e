"""Kernel TLS for an asyncio server of your own: an `SSLContext` and a connected socket in, a keyed connection out.

This is the part of the server that has nothing to do with HTTP or files, for use without the rest:

    acceptor = TlsAcceptor(context)
    connection = await acceptor.accept(sock)
    await connection.send(b"hello")
    await connection.send_file(fd, 0, size)

Where the kernel encrypts, `connection.sock` is a socket that takes plain bytes: `loop.sock_sendall`, `loop.sock_sendfile`,
`os.sendfile` and `splice` work on it, encrypted on their way out. `connection.send` and `send_file` do the right thing on
both paths.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass, field
from types import TracebackType

from .handshake.driver import complete_handshake
from .handshake.tickets import TicketGenerations
from .kernel.probe import KernelTls, probe
from .keys.keylog import KeyLog
from .net.channel import Channel
from .settings.options import AEAD_RECORD_LIMIT
from .transport.choice import TransportPolicy, establish
from .transport.interface import Transport


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """What was agreed on.

    `transmit_path` is "kernel" or "userspace". `server_name` is the name that the client asked for, in lower case.
    `client_certificate` is DER, if there was one.
    """

    version: str
    cipher: str
    transmit_path: str
    server_name: str | None
    alpn_protocol: str | None
    resumed: bool
    client_certificate: bytes | None = field(repr=False)


class TlsConnection:
    """One established connection. Every method raises ConnectionLost once the peer is gone or broke the protocol."""

    __slots__ = ("_channel", "_transport", "session")

    def __init__(self, channel: Channel, transport: Transport, session: SessionDescription) -> None:
        self._channel = channel
        self._transport = transport
        self.session = session

    @property
    def sock(self) -> socket.socket:
        """The socket. Write to it yourself only where `session.transmit_path` is "kernel"; read from it never."""
        return self._channel.sock

    async def receive(self) -> bytes:
        """The next application data, at most one record (16 KiB); b"" at the end of the stream."""
        reader = self._transport.reader
        while True:
            if not reader.pending:
                await self._channel.readable()
            data = reader.read()
            if data is not None:
                return data

    async def send(self, data: bytes) -> None:
        """All of `data`."""
        await self._transport.writer.send(data)

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        """`count` bytes of an open file from `offset`, in the kernel where it can be. Raises FileChanged if it is shorter."""
        await self._transport.writer.send_file(fd, offset, count)

    async def close(self) -> None:
        """Send close_notify, wait until the peer has read all, close the socket. Put a time limit around it."""
        try:
            await self._transport.writer.close_notify()
            await self._channel.linger()
        finally:
            self.abort()

    def abort(self) -> None:
        """Close the socket at once."""
        self._channel.close()
        self._transport.writer.close()


class TlsAcceptor:
    """Does the server's side of handshakes with `context`, and keys the sockets. One per event loop; a context manager.

    The context's key log is taken for it: set no `keylog_filename` of your own. A context that an SNI callback may switch
    to has to be attached, too.
    """

    def __init__(self, context: ssl.SSLContext, *, kernel: KernelTls | None = None) -> None:
        """`kernel` is what the kernel may be asked for: by default all that it can; `KernelTls()` keeps it out."""
        kernel = probe() if kernel is None else kernel
        self._tickets = TicketGenerations(lambda: context, 0.0, 0)
        self._key_log = KeyLog()
        self._policy = TransportPolicy(kernel, kernel.available, kernel.available, AEAD_RECORD_LIMIT)
        self.attach(context)

    def attach(self, context: ssl.SSLContext) -> None:
        """Take the secrets of this context's handshakes, too. Raises ValueError where its key log is taken already.

        Two acceptors on one context would take each other's secrets.
        """
        if getattr(context, "keylog_filename", None) is not None:
            raise ValueError("this SSLContext has a key log already: each TlsAcceptor needs a context of its own")
        self._key_log.attach(context)

    async def accept(self, sock: socket.socket) -> TlsConnection:
        """Complete the handshake on a connected socket, which belongs to the connection from now on.

        Raises HandshakeFailed, after the peer was sent the alert, or ConnectionLost; the socket is closed then. Put a time
        limit around it: the peer may never say a word.
        """
        sock.setblocking(False)
        channel = Channel(sock, asyncio.get_running_loop())
        try:
            session = await complete_handshake(channel, self._tickets, self._key_log)
            hello = session.client_hello()
            transport = establish(channel, session, self._policy)
        except BaseException:
            channel.close()
            raise
        description = SessionDescription(
            version=session.version,
            cipher=session.cipher,
            transmit_path=transport.writer.path,
            server_name=None if hello is None else hello.server_name,
            alpn_protocol=session.alpn_protocol,
            resumed=session.resumed,
            client_certificate=session.client_certificate,
        )
        return TlsConnection(channel, transport, description)

    def close(self) -> None:
        """Give the key log's memory back. Connections that stand are not touched."""
        self._key_log.close()

    def __enter__(self) -> TlsAcceptor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
