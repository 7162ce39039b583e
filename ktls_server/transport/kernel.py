"""The kernel encrypts: `TLS_TX` is installed on the socket, files go by sendfile.

From then on whatever is written to the socket is plaintext for the kernel to seal.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from ..errors import ConnectionLost, KernelTlsUnavailable
from ..handshake.session import Session
from ..kernel import sockets
from ..kernel.crypto_info import pack
from ..net.channel import Channel

_log = logging.getLogger(__name__)


class KernelTransmitter:
    """`Transmitter` over a socket that the kernel encrypts on."""

    __slots__ = ("_channel", "_secret", "_suite", "can_update")

    path = "kernel"

    def __init__(self, channel: Channel, session: Session, *, can_rekey: bool) -> None:
        """Install the key. Raises KernelTlsUnavailable, and the socket then goes on sending what it is given.

        All that userspace has encrypted is out already: from now on whatever is written gets encrypted.
        """
        assert session.suite is not None
        self._channel = channel
        self._suite = session.suite
        self._secret = session.server_secret()
        self.can_update = can_rekey and self._secret is not None
        info = pack(self._suite, session.server_key(), session.transmit_sequence, session.transmit_explicit_nonce)
        sockets.attach(channel.sock)
        sockets.install_transmit(channel.sock, info)

    async def send(self, data: bytes, *, more: bool) -> None:
        """All of `data`; with `more` the record is left open for what follows."""
        await self._channel.send(data, socket.MSG_MORE if more else 0)

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        """`count` bytes of an open file from `offset`."""
        await self._channel.send_file(fd, offset, count)

    async def send_control(self, content_type: int, content: bytes) -> None:
        """A record of another type than application data."""
        while content:
            try:
                sent = sockets.send_control(self._channel.sock, content_type, content)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                raise ConnectionLost("the connection broke while writing") from error
            content = content[sent:]
            if content:
                await self._channel.wait_writable()

    def update(self) -> None:
        """Go on to the next generation of the key, right after a KeyUpdate was sent (RFC 8446 section 7.2)."""
        assert self._secret is not None
        info = pack(self._suite, self._secret.advance(), 0)
        change_key(sockets.install_transmit, self._channel.sock, info)


def change_key(install: Callable[[socket.socket, bytes], None], sock: socket.socket, info: bytes) -> None:
    """Replace the key of one direction. A refusal (short of memory; a network card that encrypts) ends the connection."""
    try:
        install(sock, info)
    except KernelTlsUnavailable as refusal:
        _log.warning("a connection is cut: its key cannot be changed: %s", refusal)
        raise ConnectionLost("the kernel would not change the key") from refusal
