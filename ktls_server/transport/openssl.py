"""OpenSSL encrypts, through `SSLObject.write`: the way for a connection whose keys we do not have.

That is one whose cipher suite is not in our table (CBC or CCM, which an operator has to ask for), or any where there is no
/proc to open the key log by. It takes the simplest form: a record's worth of file at a time.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from typing import Final

from ..errors import ConnectionLost, FileChanged
from ..handshake.records import MAX_PLAINTEXT_BYTES
from ..handshake.session import Session
from ..net.channel import YIELD, Channel
from .keyed import EXHAUSTED

RECEIVE_BYTES: Final = MAX_PLAINTEXT_BYTES
"""Small, because OpenSSL's BIO keeps the largest buffer that it ever needed."""


class OpenSslTransport:
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
            return
        for start in range(0, len(data), MAX_PLAINTEXT_BYTES):
            await self._send_record(data[start : start + MAX_PLAINTEXT_BYTES])

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        while count:
            held, self._held = self._held, b""
            data = os.pread(fd, min(count, MAX_PLAINTEXT_BYTES - len(held)), offset)
            if not data:
                raise FileChanged("a file became shorter while it was being sent")
            offset += len(data)
            count -= len(data)
            await self._send_record(held + data)
            if count:
                await YIELD

    async def _send_record(self, content: bytes) -> None:
        self._records_left -= 1
        if self._records_left < EXHAUSTED * self._record_limit:
            raise ConnectionLost("the key has sealed all the records that it may")
        try:
            self._session.tls.write(content)
        except ssl.SSLError as error:
            raise ConnectionLost(f"TLS: {error.reason or 'protocol error'}") from None
        await self._flush()

    async def close_notify(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # SSLWantReadError: ours is written; the peer's is not waited for
            self._session.tls.unwrap()
        await self._flush()

    async def _flush(self) -> None:
        data = self._session.outgoing.read()
        if data:
            await self._channel.send(data)
