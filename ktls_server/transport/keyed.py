"""`KeyedTransport`: a connection whose record keys we hold, because the handshake's secrets were taken out of OpenSSL.

Its transmitting half is a `Transmitter`: the kernel (`kernel.py`), or this process where the kernel cannot
(`userspace.py`). Its receiving half is a `Receiver` (`receiving.py`). What both kinds of transmitter have in common is
here: KeyUpdates, alerts and the number of records that one key may seal.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol

from ..errors import ConnectionLost
from ..handshake.records import ALERT, CLOSE_NOTIFY, HANDSHAKE, KEY_UPDATE_NOT_REQUESTED, MAX_PLAINTEXT_BYTES
from .receiving import Receiver

EXHAUSTED: Final = -0.41
"""How far below zero the count of records left may go, as a part of the limit that is kept: the AEAD's own limit lies
sqrt(2) times past that."""

FILE_PARTS_PER_KEY: Final = 256
"""How often the AEAD limit is looked at while a file goes out: every GiB, where a key is good for 2^24 full records."""


class Transmitter(Protocol):
    """Seals records and sends them, in order. Every method raises ConnectionLost once the peer is gone."""

    @property
    def path(self) -> str:
        """ "kernel" or "userspace": who encrypts."""

    @property
    def can_update(self) -> bool:
        """Whether the key can be replaced: in TLS 1.3, by whoever encrypts."""

    async def send(self, data: bytes, *, more: bool) -> None:
        """All of `data` as application data; with `more` it may wait for what follows at once, to share a record."""

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        """`count` bytes of an open file from `offset`. Raises FileChanged where the file has become shorter than that."""

    async def send_control(self, content_type: int, content: bytes) -> None:
        """One record of another type than application data."""

    def update(self) -> None:
        """Go on to the next generation of the key, right after a KeyUpdate was sent (RFC 8446 section 7.2)."""


class KeyedTransport:
    """`Transport` over a transmitter and a receiver."""

    __slots__ = (
        "_closed",
        "_key_updates",
        "_most_bytes_at_once",
        "_receiver",
        "_record_limit",
        "_records_left",
        "_transmitter",
    )

    def __init__(
        self, transmitter: Transmitter, receiver: Receiver, record_limit: int, key_updates: Counter[str] | None = None
    ) -> None:
        """`key_updates` counts the changes of the server's key, by their cause: "answer" (the client asked) or "limit" (the
        AEAD's). "refused" counts those that ended a connection instead."""
        self._transmitter = transmitter
        self._receiver = receiver
        self._record_limit = self._records_left = record_limit
        self._most_bytes_at_once = max(1, record_limit // FILE_PARTS_PER_KEY) * MAX_PLAINTEXT_BYTES
        self._key_updates: Counter[str] = Counter() if key_updates is None else key_updates
        self._closed = False

    @property
    def transmit_path(self) -> str:
        """Who encrypts."""
        return self._transmitter.path

    @property
    def must_close(self) -> bool:
        """True once the records that this key is good for are nearly used up, and it cannot be changed."""
        return self._closed or (self._records_left <= 0 and not self._transmitter.can_update)

    async def receive(self) -> bytes:
        receiver = self._receiver
        while True:
            try:
                data = receiver.take()
            finally:
                for content_type, content in receiver.messages():
                    await self._say(content_type, content)
            if self._closed:
                # A request that came after the KeyUpdate may not be answered under the old key (RFC 8446 section 4.6.3).
                return b""
            if data is not None:
                return data
            if not await receiver.fill():
                return b""

    async def _say(self, content_type: int, content: bytes) -> None:
        if content_type != HANDSHAKE:
            await self._transmitter.send_control(content_type, content)
        elif self._transmitter.can_update:
            await self._update_keys("answer")
        else:
            # The kernel cannot go on to the next key, which is what the client asks for: this is the end.
            self._key_updates["refused"] += 1
            await self.close_notify()

    async def _update_keys(self, cause: str) -> None:
        """Send a KeyUpdate that asks for nothing, and go on under the next key (RFC 8446 section 4.6.3)."""
        await self._transmitter.send_control(HANDSHAKE, KEY_UPDATE_NOT_REQUESTED)
        self._transmitter.update()
        self._records_left = self._record_limit
        self._key_updates[cause] += 1

    async def send(self, data: bytes, *, more: bool = False) -> None:
        if self._spend(len(data)):
            await self._renew_key()
        await self._transmitter.send(data, more=more)

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        while count:
            part = min(count, self._most_bytes_at_once)
            if self._spend(part):
                await self._renew_key()
            await self._transmitter.send_file(fd, offset, part)
            offset += part
            count -= part

    def _spend(self, count: int) -> bool:
        """Account for the records that `count` bytes become; True where the key is used up with them.

        RFC 9846 section 5.5. The kernel's records may be shorter than they could be: counted as if half as long.
        """
        if self._closed:
            raise ConnectionLost("close_notify has been sent")
        self._records_left -= 2 + 2 * count // MAX_PLAINTEXT_BYTES
        return self._records_left <= 0

    async def _renew_key(self) -> None:
        """Change the key, where it can be changed, before too many records were sealed with it."""
        if self._transmitter.can_update:
            await self._update_keys("limit")
        elif self._records_left < EXHAUSTED * self._record_limit:
            raise ConnectionLost("the key has sealed all the records that it may")

    async def close_notify(self) -> None:
        if not self._closed:
            self._closed = True
            await self._transmitter.send_control(ALERT, CLOSE_NOTIFY)
