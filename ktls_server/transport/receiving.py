"""The receiving half of a connection whose keys we hold.

OpenSSL decrypts unless the kernel can follow the peer (`TLS_RX`); then the `SSLObject` goes, and with it most of an idle
connection's memory.

OpenSSL does not transmit any more, but it may still have something to say: the answer to a KeyUpdate, an alert. What it
writes must never reach the socket: its nonces would repeat those of the half that transmits. Its records are opened under
the key that OpenSSL believes in (which is why that key is followed here, generation by generation), and what they say is
said again by the other half.
"""

from __future__ import annotations

import errno
import ssl
from dataclasses import dataclass, field
from typing import Final, Protocol

from ..errors import ConnectionLost, RecordsOutOfStep
from ..handshake.records import (
    ALERT,
    APPLICATION_DATA,
    CLIENT_HELLO,
    CLOSE_NOTIFY,
    HANDSHAKE,
    KEY_UPDATE,
    KEY_UPDATE_NOT_REQUESTED,
    KEY_UPDATE_REQUESTED,
    MAX_PLAINTEXT_BYTES,
    MAX_RECORD_BYTES,
    record_bytes,
    split_records,
)
from ..handshake.session import MAX_SILENT_BYTES, Session
from ..kernel import sockets
from ..kernel.crypto_info import pack
from ..keys.record_cipher import RecordOpener
from ..keys.schedule import RecordKey
from ..net.channel import Channel
from .kernel import change_key

_UNEXPECTED_MESSAGE: Final = b"\x02\x0a"
_BAD_RECORD_MAC: Final = b"\x02\x14"
_RECORD_OVERFLOW: Final = b"\x02\x16"
_PROTOCOL_VERSION: Final = b"\x02\x46"
_USER_CANCELED: Final = b"\x01\x5a"
_NO_RENEGOTIATION: Final = b"\x01\x64"
"""Alerts: level (1 warning, 2 fatal) and description (RFC 8446 section 6, RFC 5246 section 7.2)."""
_WARNING: Final = 1
_ALERT_BYTES: Final = 2

_RECORD_OVERHEAD_BYTES: Final = 22
"""Header, inner content type and tag of a TLS 1.3 record: what a message costs on the wire beside its content."""


class Receiver(Protocol):
    """The receiving half. It never writes: what it has to say to the peer is handed over by `messages`."""

    async def fill(self) -> bool:
        """Wait for bytes; False at the end of the TCP stream."""

    def take(self) -> bytes | None:
        """Application data, b"" after close_notify, None where more bytes are needed.

        Raises ConnectionLost where the peer broke the protocol; `messages` then has the alert.
        """

    def messages(self) -> list[tuple[int, bytes]]:
        """What the peer must be told, each as content type and content; a KeyUpdate means that keys change after it."""


class OpenSslReceiver:
    """OpenSSL decrypts. Its own words are opened and handed on."""

    __slots__ = ("_channel", "_opener", "_secret", "_session")

    def __init__(self, channel: Channel, session: Session) -> None:
        self._channel = channel
        self._session = session
        self._secret = session.server_secret()
        self._opener: RecordOpener | None = None

    async def fill(self) -> bool:
        received = await self._channel.receive(MAX_PLAINTEXT_BYTES)
        if received:
            self._session.feed(received)
        return bool(received)

    def take(self) -> bytes | None:
        data = self._session.decrypt()
        if self._secret is not None:
            # OpenSSL answers a KeyUpdate with its next write, which never comes here: an empty one provokes it.
            try:
                self._session.tls.write(b"")
            except ssl.SSLError as error:
                raise ConnectionLost(f"TLS: {error.reason or 'protocol error'}") from None
        return data

    def messages(self) -> list[tuple[int, bytes]]:
        session, suite = self._session, self._session.suite
        if not session.outgoing.pending:
            return []
        assert suite is not None
        if self._opener is None:
            self._opener = RecordOpener(suite, session.server_key(), session.transmit_sequence)
        messages = []
        for record in split_records(session.outgoing.read()):
            content_type, content = self._opener.open(record)
            messages.append((content_type, content))
            if self._secret is not None and content_type == HANDSHAKE and content[0] == KEY_UPDATE:
                self._opener = RecordOpener(suite, self._secret.advance(), 0)
        return messages


@dataclass(slots=True)
class _Leftover:
    """Bytes that were read for OpenSSL and that the kernel will never see, with what opens them."""

    key: RecordKey = field(repr=False)
    opener: RecordOpener
    data_untrusted: bytes = field(repr=False)


class KernelReceiver:
    """The kernel decrypts (`TLS_RX`); only messages that are not application data are looked at here.

    Needs a kernel that can change keys, because a client may send a KeyUpdate at any time.
    """

    __slots__ = (
        "_channel",
        "_data",
        "_drained",
        "_ended",
        "_failed",
        "_leftover",
        "_messages",
        "_secret",
        "_silent_bytes",
        "_suite",
    )

    def __init__(self, channel: Channel, session: Session) -> None:
        """Take over from OpenSSL, which has decrypted no application data yet.

        Where bytes came together with the client's Finished, the kernel will never see them: the records that they
        belong to are opened here, one by one, and the kernel takes over at the first boundary where none are left.
        Raises KernelTlsUnavailable, and OpenSSL can still do it.
        """
        suite = session.suite
        assert suite is not None
        self._channel = channel
        self._suite = suite
        self._secret = session.client_secret()
        self._data = b""
        self._drained = True
        self._ended = self._failed = False
        self._silent_bytes = 0
        self._messages: list[tuple[int, bytes]] = []
        self._leftover: _Leftover | None = None
        key = session.client_key()
        if session.incoming.pending:
            opener = RecordOpener(suite, key, session.receive_sequence)
            self._leftover = _Leftover(key, opener, session.incoming.read())
        else:
            sockets.install_receive(channel.sock, pack(suite, key, session.receive_sequence))

    async def _open_next(self, leftover: _Leftover) -> bool:
        """Complete and open one record that the kernel does not see from its start. False at the end of the TCP stream."""
        size = record_bytes(leftover.data_untrusted)
        if len(leftover.data_untrusted) < size <= MAX_RECORD_BYTES:
            received = await self._channel.receive(size - len(leftover.data_untrusted))
            leftover.data_untrusted += received
            return bool(received)
        record_untrusted = leftover.data_untrusted[:size]
        leftover.data_untrusted = leftover.data_untrusted[size:]
        self._open(leftover, record_untrusted)
        if not leftover.data_untrusted and not self._failed:
            self._leftover = None
            info = pack(self._suite, leftover.key, leftover.opener.sequence)
            change_key(sockets.install_receive, self._channel.sock, info)
        return True

    def _open(self, leftover: _Leftover, record_untrusted: bytes) -> None:
        """As strictly as the kernel opens the others."""
        if record_bytes(record_untrusted) > MAX_RECORD_BYTES:
            self._fail(_RECORD_OVERFLOW)
            return
        try:
            content_type, content = leftover.opener.open(record_untrusted)
        except RecordsOutOfStep:
            self._fail(_BAD_RECORD_MAC)
            return
        if len(content) > MAX_PLAINTEXT_BYTES:
            self._fail(_RECORD_OVERFLOW)
        else:
            self._accept(content_type, content)

    async def fill(self) -> bool:
        if self._leftover is not None:
            return await self._open_next(self._leftover)
        try:
            # The kernel may hold a KeyUpdate that poll says nothing of: wait only after a read that found nothing.
            if self._drained:
                await self._channel.wait_readable()
            content_type, content = sockets.receive(self._channel.sock, MAX_PLAINTEXT_BYTES)
        except (BlockingIOError, InterruptedError):
            self._drained = True
            return True
        except OSError as error:
            alert = _ALERT_FOR_ERRNO.get(error.errno or 0)
            if alert is None:
                raise ConnectionLost("the connection broke while reading") from error
            self._fail(alert)
            return True
        self._drained = False
        if not content and content_type == APPLICATION_DATA:
            return False
        self._accept(content_type, content)
        return True

    def _accept(self, content_type: int, content_untrusted: bytes) -> None:
        if content_type == APPLICATION_DATA and content_untrusted:
            self._data += content_untrusted
            self._silent_bytes = 0
            return
        self._silent_bytes += len(content_untrusted) + _RECORD_OVERHEAD_BYTES
        if self._silent_bytes > MAX_SILENT_BYTES:
            self._fail(_UNEXPECTED_MESSAGE)
        elif content_type == ALERT:
            self._accept_alert(content_untrusted)
        elif content_type == HANDSHAKE and self._secret is not None:
            if content_untrusted in (KEY_UPDATE_NOT_REQUESTED, KEY_UPDATE_REQUESTED):
                self._follow_key_update(answer=content_untrusted == KEY_UPDATE_REQUESTED)
            else:
                self._fail(_UNEXPECTED_MESSAGE)
        elif content_type == HANDSHAKE and content_untrusted[:1] == bytes((CLIENT_HELLO,)):
            self._messages.append((ALERT, _NO_RENEGOTIATION))
        elif content_type != APPLICATION_DATA:
            self._fail(_UNEXPECTED_MESSAGE)

    def _accept_alert(self, content_untrusted: bytes) -> None:
        if content_untrusted == CLOSE_NOTIFY:
            self._ended = True
        elif len(content_untrusted) != _ALERT_BYTES:
            self._fail(_UNEXPECTED_MESSAGE)
        elif content_untrusted != _USER_CANCELED and (self._secret is not None or content_untrusted[0] != _WARNING):
            # In TLS 1.3 every other alert ends the connection, whatever its level says (RFC 8446 section 6). It has no answer.
            self._failed = True

    def _follow_key_update(self, *, answer: bool) -> None:
        assert self._secret is not None
        key = self._secret.advance()
        if self._leftover is not None:
            self._leftover.key, self._leftover.opener = key, RecordOpener(self._suite, key, 0)
        else:
            change_key(sockets.install_receive, self._channel.sock, pack(self._suite, key, 0))
        if answer:
            self._messages.append((HANDSHAKE, KEY_UPDATE_NOT_REQUESTED))

    def _fail(self, alert: bytes) -> None:
        if not self._failed:
            self._failed = True
            self._messages.append((ALERT, alert))

    def take(self) -> bytes | None:
        if self._data:
            data, self._data = self._data, b""
            return data
        if self._failed:
            raise ConnectionLost("the client broke the TLS protocol, or said that we did")
        return b"" if self._ended else None

    def messages(self) -> list[tuple[int, bytes]]:
        messages, self._messages = self._messages, []
        return messages


_ALERT_FOR_ERRNO: Final = {
    errno.EBADMSG: _BAD_RECORD_MAC,
    errno.EMSGSIZE: _RECORD_OVERFLOW,
    errno.EINVAL: _PROTOCOL_VERSION,
}
"""What a read from a socket with TLS_RX may fail with: see kernel/sockets.py."""
