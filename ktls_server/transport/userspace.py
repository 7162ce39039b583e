"""This process encrypts: the way for every connection that the kernel cannot take.

A file is read into one buffer, sealed record by record into a second one, and the records leave in one system call. All
connections share the two buffers (each use of them ends before anybody else runs), and nothing of it stays behind in an
idle connection.

Records are sealed here and not by `SSLObject.write`: its way through a memory BIO copies every byte twice more, which
costs about as much again as reading, encrypting and sending together (docs/performance.md).
"""

from __future__ import annotations

import os
from typing import Final

from ..errors import FileChanged
from ..handshake.records import APPLICATION_DATA, MAX_PLAINTEXT_BYTES
from ..handshake.session import Session
from ..keys.record_cipher import MAX_SEALED_BYTES, RecordSealer
from ..net.channel import YIELD, Channel

RECORDS_AT_ONCE: Final = 4
"""How much of a file is encrypted before the loop goes on to others. 64 KiB and their records stay in the processor's
second-level cache: with 256 KiB the same work was seen to take half as long again."""
STAGING_BYTES: Final = RECORDS_AT_ONCE * MAX_PLAINTEXT_BYTES

_SLOT_BYTES: Final = MAX_PLAINTEXT_BYTES + 1
"""One record's content, and room for the inner content type of TLS 1.3."""
_staging = memoryview(bytearray(RECORDS_AT_ONCE * _SLOT_BYTES))
_slots = [_staging[start : start + _SLOT_BYTES] for start in range(0, len(_staging), _SLOT_BYTES)]
_sealed = memoryview(bytearray(RECORDS_AT_ONCE * MAX_SEALED_BYTES))


class UserspaceTransmitter:
    """`Transmitter` that seals with the keys that the kernel would have got."""

    __slots__ = ("_channel", "_held", "_sealer", "_secret", "_suite", "can_update")

    path = "userspace"

    def __init__(self, channel: Channel, session: Session) -> None:
        assert session.suite is not None
        self._channel = channel
        self._suite = session.suite
        self._secret = session.server_secret()
        self._sealer = RecordSealer(
            session.suite, session.server_key(), session.transmit_sequence, session.transmit_explicit_nonce
        )
        self._held = b""
        self.can_update = self._secret is not None

    async def send(self, data: bytes, *, more: bool) -> None:
        """All of `data`; with `more` it waits for what follows."""
        if self._held:
            data, self._held = self._held + data, b""
        if more and len(data) < MAX_PLAINTEXT_BYTES:
            self._held = data
            return
        for start in range(0, len(data), STAGING_BYTES):
            part = data[start : start + STAGING_BYTES]
            position = 0
            for view in _views(0, len(part)):
                view[:] = part[position : position + len(view)]
                position += len(view)
            await self._send_staged(len(part))

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        """`count` bytes of an open file from `offset`. Raises FileChanged where it is shorter."""
        while count:
            held = len(self._held)
            _staging[:held] = self._held
            self._held = b""
            read = os.preadv(fd, _views(held, min(held + count, STAGING_BYTES)), offset)
            if read == 0:
                raise FileChanged("a file became shorter while it was being sent")
            offset += read
            count -= read
            await self._send_staged(held + read)
            if count:
                await YIELD

    async def _send_staged(self, size: int) -> None:
        """Seal and send the first `size` bytes of the staging buffer."""
        sealer = self._sealer
        length = 0
        for slot in _slots:
            length += sealer.seal_into(APPLICATION_DATA, slot, min(size, MAX_PLAINTEXT_BYTES), _sealed[length:])
            size -= MAX_PLAINTEXT_BYTES
            if size <= 0:
                break
        await self._channel.send_shared(_sealed[:length])

    async def send_control(self, content_type: int, content: bytes) -> None:
        """One record of another type than application data, after what is held."""
        if self._held:
            await self.send(b"", more=False)
        await self._channel.send(self._sealer.seal(content_type, content))

    def update(self) -> None:
        """Go on to the next generation of the key, right after a KeyUpdate was sent (RFC 8446 section 7.2)."""
        assert self._secret is not None
        self._sealer = RecordSealer(self._suite, self._secret.advance(), 0)


def _views(start: int, end: int) -> list[memoryview]:
    """Where in the staging buffer the bytes from `start` to `end` lie: the contents of one record in each slot."""
    views = []
    while start < end:
        index, position = divmod(start, MAX_PLAINTEXT_BYTES)
        stop = min(MAX_PLAINTEXT_BYTES, position + end - start)
        views.append(_slots[index][position:stop])
        start += stop - position
    return views
