"""OpenSSL encrypts: the way for every connection that the kernel cannot take.

A file is read into one staging buffer that all connections share (each use of it ends before anybody else runs), encrypted
record by record, and the records leave in one system call. Nothing of it stays behind in an idle connection.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from typing import Final

from ..errors import ConnectionLost, FileChanged
from ..handshake.records import MAX_PLAINTEXT_BYTES
from ..handshake.session import Session
from .channel import YIELD, Channel

RECEIVE_BYTES: Final = MAX_PLAINTEXT_BYTES
"""Small, because OpenSSL's BIO keeps the largest buffer that it ever needed."""

STAGING_BYTES: Final = 4 * MAX_PLAINTEXT_BYTES
"""How much of a file is encrypted before the loop goes on to others. 64 KiB and their records stay in the processor's
second-level cache: with 256 KiB the same work was seen to take half as long again."""

_staging = memoryview(bytearray(STAGING_BYTES))


class UserspaceTransport:
    """`Transport` over an `SSLObject`."""

    __slots__ = ("_channel", "_held", "_record_limit", "_records_left", "_session")

    transmit_path = "userspace"

    def __init__(self, channel: Channel, session: Session, record_limit: int) -> None:
        self._channel = channel
        self._session = session
        self._held = b""
        self._records_left = self._record_limit = record_limit

    @property
    def must_close(self) -> bool:
        """OpenSSL counts no records and CPython has no call for a KeyUpdate: before the AEAD's limit the connection ends."""
        return self._records_left <= 0

    async def receive(self) -> bytes:
        session = self._session
        while True:
            try:
                data = session.decrypt()
            except ConnectionLost:
                await self._flush()  # the alert
                raise
            if session.outgoing.pending:
                await self._flush()  # the answer to a ClientHello in TLS 1.2: no_renegotiation
            if data is not None:
                return data
            received = await self._channel.receive(RECEIVE_BYTES)
            if not received:
                return b""
            session.feed(received)

    async def send(self, data: bytes, *, more: bool = False) -> None:
        if self._held:
            data, self._held = self._held + data, b""
        if more and len(data) < MAX_PLAINTEXT_BYTES:
            self._held = data
        else:
            await self._channel.send_buffers(self._encrypt(memoryview(data)))

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        while count:
            held = len(self._held)
            if held:
                _staging[:held] = self._held
                self._held = b""
            read = os.preadv(fd, (_staging[held : min(held + count, STAGING_BYTES)],), offset)
            if read == 0:
                raise FileChanged("a file became shorter while it was being sent")
            offset += read
            count -= read
            await self._channel.send_buffers(self._encrypt(_staging[: held + read]))
            if count:
                await YIELD

    def _encrypt(self, data: memoryview) -> list[bytes]:
        write, read = self._session.tls.write, self._session.outgoing.read
        records = []
        try:
            for position in range(0, len(data), MAX_PLAINTEXT_BYTES):
                write(data[position : position + MAX_PLAINTEXT_BYTES])
                records.append(read())
        except ssl.SSLError as error:
            raise ConnectionLost(f"TLS: {error.reason or 'protocol error'}") from None
        self._records_left -= len(records)
        if self._session.unsent:
            records.insert(0, self._session.unsent)
            self._session.unsent = b""
        if self._records_left < -0.41 * self._record_limit:
            raise ConnectionLost("the key has sealed all the records that it may")
        return records

    async def close_notify(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # SSLWantReadError: ours is written; the peer's is not waited for
            self._session.tls.unwrap()
        await self._flush()

    async def _flush(self) -> None:
        data = self._session.unsent + self._session.outgoing.read()
        self._session.unsent = b""
        if data:
            await self._channel.send(data)
