"""OpenSSL seals and opens, through `SSLObject`: used where the session keys are not available.

That is a connection whose cipher suite is not in our table (CBC or CCM, which an operator has to ask for), or any where
there is no /proc to open the key log by. It takes the simplest form: a record's worth of file at a time.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Sequence
from typing import Final

from ..errors import ConnectionLost, FileChanged, FileUnreadable
from ..handshake.records import CLOSE_NOTIFY, MAX_PLAINTEXT_BYTES
from ..handshake.session import Session
from ..net.channel import Channel
from .interface import Frame
from .reading import MAX_SILENT_BYTES
from .userspace import Buffers
from .writer import Writer, send_frame_in_parts

_MAX_UNSENT_BYTES: Final = 4096
"""What OpenSSL may have to say to a peer that does not read: some dozens of alerts."""


class OpenSslSealer:
    """`Sealer` that lets the `SSLObject` write. OpenSSL says alerts by itself; it splits records as was agreed."""

    __slots__ = ("_channel", "_held", "_session")

    path = "userspace"
    can_update = False

    def __init__(self, channel: Channel, session: Session) -> None:
        self._channel = channel
        self._session = session
        self._held = b""

    def write(self, data: bytes, *, more: bool) -> int:
        if not self.flush():
            return 0
        held = len(self._held)
        if held:
            data, self._held = self._held + data, b""
        if more and len(data) < MAX_PLAINTEXT_BYTES:
            self._held = data
            return len(data) - held
        taken = 0
        while taken < len(data) and self.flush():
            part = data[taken : taken + MAX_PLAINTEXT_BYTES]
            self._write_record(part)
            taken += len(part)
        return taken - held

    def _write_record(self, content: bytes) -> None:
        try:
            self._session.tls.write(content)
        except ssl.SSLError as error:
            raise ConnectionLost(f"TLS: {error.reason or 'protocol error'}") from None
        self._channel.push(self._session.outgoing.read())

    def flush(self) -> bool:
        outgoing = self._session.outgoing
        return self._channel.push(outgoing.read()) if outgoing.pending else self._channel.flush()

    async def send_file(self, fd: int, offset: int, count: int) -> int:
        while not self.flush():
            await self._channel.writable()
        held, self._held = self._held, b""
        try:
            data = os.pread(fd, min(count, MAX_PLAINTEXT_BYTES - len(held)), offset)
        except OSError as error:
            raise FileUnreadable(error.errno or 0) from error
        if not data:
            raise FileChanged("a file became shorter while it was being sent")
        self._write_record(held + data)
        return len(data)

    async def send_frames(self, frames: Sequence[Frame], fd: int, offset: int) -> int:
        return await send_frame_in_parts(self, self._channel, frames[0], fd, offset)

    def control(self, content_type: int, content: bytes) -> int:
        """OpenSSL has written its own alerts already; close_notify is asked for here."""
        if content == CLOSE_NOTIFY:
            if self._held:
                held, self._held = self._held, b""
                self._write_record(held)
            with contextlib.suppress(ssl.SSLError):  # SSLWantReadError: ours is written; the peer's is not waited for
                self._session.tls.unwrap()
            self.flush()
        return len(content)

    def update(self) -> None:
        raise AssertionError("OpenSSL changes its own keys")

    def close(self) -> None:
        """Nothing is held."""


class OpenSslReader:
    """`Reader` out of the `SSLObject`."""

    __slots__ = ("_buffers", "_channel", "_session", "_silent_bytes", "_writer", "pending")

    def __init__(self, channel: Channel, session: Session, writer: Writer, buffers: Buffers) -> None:
        self._channel = channel
        self._session = session
        self._writer = writer
        self._buffers = buffers
        self._silent_bytes = 0
        self.pending = True

    def read(self) -> bytes | None:
        session = self._session
        while True:
            data = None
            if session.incoming.pending or session.tls.pending():
                data = self._decrypt()
            if data is not None:
                self._silent_bytes = 0
                self.pending = bool(session.incoming.pending or session.tls.pending())
                return data
            self.pending = False
            # No more than a record: the BIO keeps the largest buffer that it ever needed.
            received = self._channel.receive_into(self._buffers.incoming[:MAX_PLAINTEXT_BYTES])
            if received is None:
                return None
            if not received:
                return b""
            self._silent_bytes += received
            if self._silent_bytes > MAX_SILENT_BYTES:
                raise ConnectionLost("too many bytes without application data")
            session.incoming.write(self._buffers.incoming[:received])

    def _decrypt(self) -> bytes | None:
        """Application data; b"" after close_notify, None where a record is not whole."""
        session = self._session
        try:
            return session.tls.read(MAX_PLAINTEXT_BYTES)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""
        except ssl.SSLError as error:
            raise ConnectionLost(f"TLS: {error.reason or 'protocol error'}") from None
        finally:
            if session.outgoing.pending:
                # An alert, or the refusal of a renegotiation.
                if session.outgoing.pending > _MAX_UNSENT_BYTES:
                    raise ConnectionLost("the client makes OpenSSL talk and does not read")
                self._writer.post_flush()
