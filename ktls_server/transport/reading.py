"""The receiving half of a connection whose keys we hold: what the records that came mean.

An `Opener` decrypts: the kernel, or this process. What is not application data is judged here, the same for both: alerts,
KeyUpdates, attempts to renegotiate. The reader never sends and never waits; what the peer has to be told is posted to the
writer.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Final, Protocol

from ..errors import ConnectionLost
from ..handshake.records import (
    ALERT,
    APPLICATION_DATA,
    CLIENT_HELLO,
    CLOSE_NOTIFY,
    HANDSHAKE,
    KEY_UPDATE_NOT_REQUESTED,
    KEY_UPDATE_REQUESTED,
    MAX_RECORD_BYTES,
)
from ..keys.schedule import RecordKey, TrafficSecret
from .writer import Writer

UNEXPECTED_MESSAGE: Final = b"\x02\x0a"
BAD_RECORD_MAC: Final = b"\x02\x14"
RECORD_OVERFLOW: Final = b"\x02\x16"
PROTOCOL_VERSION: Final = b"\x02\x46"
_USER_CANCELED: Final = b"\x01\x5a"
_NO_RENEGOTIATION: Final = b"\x01\x64"
"""Alerts: level (1 warning, 2 fatal) and description (RFC 8446 section 6, RFC 5246 section 7.2)."""
_WARNING: Final = 1
_ALERT_BYTES: Final = 2
_HANDSHAKE_HEADER_BYTES: Final = 4
_KEY_UPDATE_BYTES: Final = 5

_RECORD_OVERHEAD_BYTES: Final = 22
"""Header, inner content type and tag of a TLS 1.3 record: what a message costs on the wire beside its content."""

MAX_SILENT_BYTES: Final = 32 * 1024 + 2 * MAX_RECORD_BYTES
"""How many bytes may come in with no application data among them. Two fully padded records fit (RFC 8446 section 5.4),
and beside them some hundreds of KeyUpdates (27 bytes each): more of those is an attack on the CPU."""

CONTROL_BURST: Final = 512
CONTROL_PER_SECOND: Final = 8.0
"""How many records other than application data a peer may send: some hundreds at once, then a few each second. A client
that changes its key for every MiB of a fast upload stays below; storms of KeyUpdates, as of some Java clients, do not."""

END_OF_STREAM: Final = (-1, b"")
"""What an opener gives where TCP's stream has ended."""


class RecordRefused(Exception):
    """An opener met a record that ends the connection; `alert` is what the peer is told."""

    def __init__(self, alert: bytes) -> None:
        super().__init__(alert)
        self.alert = alert


class Opener(Protocol):
    """Opens the records of one direction, in order, and never waits."""

    @property
    def pending(self) -> bool:
        """True where `next` may give a record although the socket is not readable."""

    def next(self) -> tuple[int, bytes] | None:
        """The content type and content of the next record that is here; END_OF_STREAM; None where more has to come.

        Raises RecordRefused, ConnectionLost.
        """

    def update(self, key: RecordKey) -> None:
        """The records from now on are under `key`, and counted from 0."""


class KeyedReader:
    """`Reader` over an opener."""

    __slots__ = (
        *("_control_left", "_control_time", "_ended", "_handshake_left", "_key_updates", "_opener", "_part_untrusted"),
        *("_secret", "_silent_bytes", "_writer"),
    )

    def __init__(
        self, opener: Opener, writer: Writer, secret: TrafficSecret | None, key_updates: Counter[str] | None = None
    ) -> None:
        """`secret` is what the client's later keys come from; None in TLS 1.2. `key_updates` counts floods."""
        self._opener = opener
        self._writer = writer
        self._secret = secret
        self._key_updates: Counter[str] = Counter() if key_updates is None else key_updates
        self._ended = False
        self._silent_bytes = 0
        self._control_left = float(CONTROL_BURST)
        self._control_time = 0.0
        self._part_untrusted = b""
        self._handshake_left = 0

    @property
    def pending(self) -> bool:
        return self._opener.pending

    def read(self) -> bytes | None:
        while not self._ended:
            try:
                record = self._opener.next()
                if record is None:
                    return None
                content_type, content = record
                if content_type == APPLICATION_DATA and content and not self._part_untrusted:
                    self._silent_bytes = 0
                    if self._writer.refused:
                        # A request after a KeyUpdate that cannot be answered may not be answered under the old key
                        # (RFC 8446 section 4.6.3).
                        return b""
                    return content
                if record is END_OF_STREAM:
                    self._ended = True
                else:
                    self._judge(content_type, content)
            except RecordRefused as refusal:
                self._writer.post_alert(refusal.alert)
                raise ConnectionLost("the client broke the TLS protocol") from refusal
        return b""

    def _judge(self, content_type: int, content_untrusted: bytes) -> None:
        """A record that is not application data, or an empty one."""
        self._silent_bytes += len(content_untrusted) + _RECORD_OVERHEAD_BYTES
        if self._silent_bytes > MAX_SILENT_BYTES or not self._may_send_control():
            self._key_updates["flood"] += 1
            raise RecordRefused(UNEXPECTED_MESSAGE)
        if self._part_untrusted and content_type != HANDSHAKE:
            # RFC 8446 section 5.1: nothing comes between the parts of a handshake message.
            raise RecordRefused(UNEXPECTED_MESSAGE)
        if content_type == ALERT:
            self._judge_alert(content_untrusted)
        elif content_type == HANDSHAKE and content_untrusted:
            if self._secret is not None:
                self._judge_handshake_tls13(self._part_untrusted + content_untrusted)
            else:
                self._judge_handshake_tls12(content_untrusted)
        elif content_type != APPLICATION_DATA:
            raise RecordRefused(UNEXPECTED_MESSAGE)

    def _may_send_control(self) -> bool:
        """A token bucket: CONTROL_BURST at once, CONTROL_PER_SECOND in the long run."""
        now = time.monotonic()
        if self._control_time:
            refilled = self._control_left + (now - self._control_time) * CONTROL_PER_SECOND
            self._control_left = min(float(CONTROL_BURST), refilled)
        self._control_time = now
        self._control_left -= 1
        return self._control_left >= 0

    def _judge_alert(self, content_untrusted: bytes) -> None:
        if content_untrusted == CLOSE_NOTIFY:
            self._ended = True
        elif len(content_untrusted) != _ALERT_BYTES:
            raise RecordRefused(UNEXPECTED_MESSAGE)
        elif content_untrusted != _USER_CANCELED and (self._secret is not None or content_untrusted[0] != _WARNING):
            # In TLS 1.3 every other alert ends the connection, whatever its level says (RFC 8446 section 6). It has no answer.
            raise ConnectionLost("the client sent a fatal alert")

    def _judge_handshake_tls13(self, message_untrusted: bytes) -> None:
        """A KeyUpdate, perhaps in parts (RFC 8446 section 5.1), with nothing behind it in its record."""
        if message_untrusted in (KEY_UPDATE_NOT_REQUESTED, KEY_UPDATE_REQUESTED):
            self._part_untrusted = b""
            assert self._secret is not None
            self._opener.update(self._secret.advance())
            if message_untrusted == KEY_UPDATE_REQUESTED:
                self._writer.post_key_update()
        elif len(message_untrusted) < _KEY_UPDATE_BYTES and KEY_UPDATE_REQUESTED.startswith(message_untrusted):
            self._part_untrusted = message_untrusted
        else:
            raise RecordRefused(UNEXPECTED_MESSAGE)

    def _judge_handshake_tls12(self, content_untrusted: bytes) -> None:
        """A ClientHello, perhaps in parts, is an attempt to renegotiate: refused with a warning (RFC 5246 section 7.2.2)."""
        while content_untrusted:
            if not self._handshake_left:
                head_untrusted = self._part_untrusted + content_untrusted
                if head_untrusted[0] != CLIENT_HELLO:
                    raise RecordRefused(UNEXPECTED_MESSAGE)
                if len(head_untrusted) < _HANDSHAKE_HEADER_BYTES:
                    self._part_untrusted = head_untrusted
                    return
                self._handshake_left = int.from_bytes(head_untrusted[1:_HANDSHAKE_HEADER_BYTES], "big")
                content_untrusted = head_untrusted[_HANDSHAKE_HEADER_BYTES:]
            taken = min(self._handshake_left, len(content_untrusted))
            self._handshake_left -= taken
            content_untrusted = content_untrusted[taken:]
            # What marks a message as unfinished needs no more than one byte of it.
            self._part_untrusted = bytes((CLIENT_HELLO,)) if self._handshake_left else b""
            if not self._handshake_left:
                self._writer.post_warning(_NO_RENEGOTIATION)
