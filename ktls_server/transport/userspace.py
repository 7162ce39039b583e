"""This process seals and opens records, with the keys that the kernel would have got.

A file is read into one buffer, sealed record by record into a second one, and the records leave in one system call. What
comes in is received into a third. All connections of an event loop share the three: each use of them ends before anybody
else runs, and nothing of it stays behind in an idle connection.

Records are sealed here and not by `SSLObject.write`, whose way through a memory BIO copies every byte twice more
(docs/performance.md has the figures).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from ..errors import BadRecordMac, FileChanged, FileUnreadable, FrameSpoilt
from ..handshake.records import APPLICATION_DATA, HEADER_BYTES, MAX_PLAINTEXT_BYTES
from ..handshake.session import Session
from ..keys.record_cipher import MAX_SEALED_BYTES, RecordOpener, RecordSealer
from ..keys.schedule import RecordKey
from ..keys.suites import TLS_1_3, CipherSuite
from ..net.channel import Channel
from .interface import Frame
from .reading import (
    BAD_RECORD_MAC,
    END_OF_STREAM,
    PROTOCOL_VERSION,
    RECORD_OVERFLOW,
    UNEXPECTED_MESSAGE,
    RecordRefused,
)
from .writer import send_frame_in_parts

RECORDS_AT_ONCE: Final = 4
"""How much of a file is encrypted before the loop goes on to others. 64 KiB and their records stay in the processor's
second-level cache: with 256 KiB the same work was seen to take half as long again."""
STAGING_BYTES: Final = RECORDS_AT_ONCE * MAX_PLAINTEXT_BYTES

_SLOT_BYTES: Final = MAX_PLAINTEXT_BYTES + 1
"""One record's content, and room for the inner content type of TLS 1.3."""

_RECEIVE_BYTES: Final = 32 * 1024
"""What one recv may take: a record of the largest size, and what came with it."""

_MAX_PAYLOAD_TLS13: Final = MAX_PLAINTEXT_BYTES + 256
_MAX_PAYLOAD_TLS12: Final = MAX_PLAINTEXT_BYTES + 2048
"""The longest payload of a record (RFC 8446 section 5.2, RFC 5246 section 6.2.3)."""
_RECORD_TYPES_TLS12: Final = range(20, 25)
_DATA_HEADER: Final = bytes((APPLICATION_DATA, 3, 3))
"""How most records begin: nothing about such a header has to be judged but a length beyond 2^14."""


class Buffers:
    """The memory that all connections of one event loop share. Two loops in two threads need one each."""

    __slots__ = ("incoming", "sealed", "slots", "staging")

    def __init__(self) -> None:
        self.staging = memoryview(bytearray(RECORDS_AT_ONCE * _SLOT_BYTES))
        self.slots = [self.staging[start : start + _SLOT_BYTES] for start in range(0, len(self.staging), _SLOT_BYTES)]
        self.sealed = memoryview(bytearray(RECORDS_AT_ONCE * MAX_SEALED_BYTES))
        self.incoming = memoryview(bytearray(_RECEIVE_BYTES))


class UserspaceSealer:
    """`Sealer` with the server's key."""

    __slots__ = (
        "_buffers",
        "_channel",
        "_held",
        "_record_bytes",
        "_sealer",
        "_secret",
        "_suite",
        "can_update",
        "flush",
    )

    path = "userspace"

    def __init__(self, channel: Channel, session: Session, buffers: Buffers) -> None:
        assert session.suite is not None
        self._channel = channel
        self._buffers = buffers
        self._suite = session.suite
        self._secret = session.server_secret()
        self._sealer = RecordSealer(
            session.suite, session.server_key(), session.transmit_sequence, session.transmit_explicit_nonce
        )
        self._record_bytes = session.max_plaintext_bytes
        self._held = b""
        self.can_update = self._secret is not None
        self.flush = channel.flush

    def write(self, data: bytes, *, more: bool) -> int:
        channel = self._channel
        if not channel.flush():
            return 0
        held = len(self._held)
        if held:
            data, self._held = self._held + data, b""
        if more and len(data) < self._record_bytes:
            self._held = data
            return len(data) - held
        size = len(data)
        if size < self._record_bytes:
            slot = self._buffers.slots[0]
            slot[:size] = data
            sealed = self._buffers.sealed
            channel.push(sealed[: self._sealer.seal_into(APPLICATION_DATA, slot, size, sealed)])
            return size - held
        taken, at_once = 0, RECORDS_AT_ONCE * self._record_bytes
        while taken < size and channel.flush():
            part = data[taken : taken + at_once]
            position = 0
            for view in self._views(0, len(part)):
                view[:] = part[position : position + len(view)]
                position += len(view)
            self._seal_staged(len(part))
            taken += len(part)
        return taken - held

    async def send_file(self, fd: int, offset: int, count: int) -> int:
        channel = self._channel
        while not channel.flush():
            await channel.writable()
        held = len(self._held)
        self._buffers.staging[:held] = self._held
        self._held = b""
        end = min(held + count, RECORDS_AT_ONCE * self._record_bytes)
        try:
            read = os.preadv(fd, self._views(held, end), offset)
        except OSError as error:
            raise FileUnreadable(error.errno or 0) from error
        if read == 0:
            raise FileChanged("a file became shorter while it was being sent")
        self._seal_staged(held + read)
        return read

    async def send_frames(self, frames: Sequence[Frame], fd: int, offset: int) -> int:
        channel = self._channel
        while not channel.flush():
            await channel.writable()
        # One frame begins where the last one ends, records or not: what fits into the staging buffer goes at once.
        staged = len(self._held)
        room = RECORDS_AT_ONCE * self._record_bytes
        sent = 0
        payloads: list[memoryview] = []
        self._stage(self._held, 0)
        self._held = b""
        wanted = 0
        for header, size in frames:
            end = staged + len(header) + size
            if end > room and sent:
                break
            if end > room:
                # Larger than the staging buffer. What was held goes before it.
                self._held = bytes(self._buffers.staging[:staged])
                return await send_frame_in_parts(self, channel, frames[0], fd, offset)
            self._stage(header, staged)
            payloads += self._views(staged + len(header), end)
            staged = end
            wanted += size
            sent += 1
        read, code = _read_into(fd, payloads, offset, wanted)
        if read < wanted:
            staged, sent = self._spoil(frames[:sent], payloads, staged - sum(map(_frame_bytes, frames[:sent])), read)
        self._seal_staged(staged)
        if read < wanted:
            raise FrameSpoilt(sent, code)
        return sent

    def _stage(self, data: bytes, start: int) -> None:
        for view in self._views(start, start + len(data)):
            view[:] = data[: len(view)]
            data = data[len(view) :]

    def _spoil(self, frames: Sequence[Frame], payloads: list[memoryview], held: int, read: int) -> tuple[int, int]:
        """Of frames whose file ended after `read` bytes of payload, keep those up to the first that is not complete.

        The rest of that one becomes zeros. Returns the staged bytes that are kept, and the number of frames.
        """
        staged, left = held, read
        for number, (header, size) in enumerate(frames, 1):
            staged += len(header) + size
            if left < size:
                position = 0
                for view in payloads:
                    if position + len(view) > read:
                        view[max(read - position, 0) :] = bytes(len(view) - max(read - position, 0))
                    position += len(view)
                return staged, number
            left -= size
        raise AssertionError("a frame was to be spoilt")

    def _seal_staged(self, size: int) -> None:
        """Seal and send the first `size` bytes of the staging buffer."""
        sealer, sealed, record_bytes = self._sealer, self._buffers.sealed, self._record_bytes
        length = 0
        for slot in self._buffers.slots:
            length += sealer.seal_into(APPLICATION_DATA, slot, min(size, record_bytes), sealed[length:])
            size -= record_bytes
            if size <= 0:
                break
        self._channel.push(sealed[:length])

    def _views(self, start: int, end: int) -> list[memoryview]:
        """Where in the staging buffer the bytes from `start` to `end` lie: the contents of one record in each slot."""
        views = []
        while start < end:
            index, position = divmod(start, self._record_bytes)
            stop = min(self._record_bytes, position + end - start)
            views.append(self._buffers.slots[index][position:stop])
            start += stop - position
        return views

    def control(self, content_type: int, content: bytes) -> int:
        if self._held:
            held, self._held = self._held, b""
            self._channel.push(self._sealer.seal(APPLICATION_DATA, held))
        self._channel.push(self._sealer.seal(content_type, content))
        return len(content)

    def update(self) -> None:
        assert self._secret is not None
        self._sealer = RecordSealer(self._suite, self._secret.advance(), 0)

    def close(self) -> None:
        """Nothing is held."""


class UserspaceOpener:
    """`Opener` with the client's key, as strict as the kernel's.

    `sequence` and `key` are those of the next record.
    """

    __slots__ = (
        *("_data_untrusted", "_incoming", "_opener", "_receive_into", "_suite"),
        *("key", "pending"),
    )

    def __init__(self, channel: Channel, session: Session, buffers: Buffers, early_untrusted: bytes) -> None:
        """`early_untrusted` is what was read from the socket after the client's Finished."""
        assert session.suite is not None
        self._receive_into = channel.receive_into
        self._incoming = buffers.incoming
        self._suite: CipherSuite = session.suite
        self._data_untrusted = early_untrusted
        self.key = session.client_key()
        self._opener = RecordOpener(session.suite, self.key, session.receive_sequence)
        self.pending = bool(early_untrusted)

    @property
    def buffered(self) -> bool:
        """Whether bytes are here that belong to a record that is not opened yet."""
        return bool(self._data_untrusted)

    @property
    def sequence(self) -> int:
        return self._opener.sequence

    def next(self, *, at_most_one: bool = False) -> tuple[int, bytes] | None:
        """The next record that is here. With `at_most_one` nothing beyond that record is read from the socket."""
        data = self._data_untrusted
        if data:
            size = _record_bytes(data)
            if len(data) >= size:
                self._data_untrusted = data[size:]
                self.pending = size < len(data)
                return self._open(data[:size])
            if len(data) >= HEADER_BYTES:
                self._check_header(data)
            self.pending = False
            buffer = self._incoming
            here = len(data)
            buffer[:here] = data
            received = self._receive_into(buffer[here : size if at_most_one else len(buffer)])
        else:
            here = 0
            received = self._receive_into(self._incoming[:HEADER_BYTES] if at_most_one else self._incoming)
        if received is None:
            return None
        if received == 0:
            return END_OF_STREAM
        here += received
        view = self._incoming[:here]
        size = _record_bytes(view)
        if here == size:
            self._data_untrusted = b""
            return self._open(view)
        if here > size:
            self._data_untrusted = bytes(view[size:])
            self.pending = True
            return self._open(view[:size])
        if here >= HEADER_BYTES:
            self._check_header(view)
        self._data_untrusted = bytes(view)
        return None

    def _open(self, record_untrusted: bytes | memoryview) -> tuple[int, bytes]:
        if record_untrusted[:3] != _DATA_HEADER or len(record_untrusted) > MAX_PLAINTEXT_BYTES:
            self._check_header(record_untrusted)
        try:
            opened = self._opener.open(record_untrusted)
        except BadRecordMac as error:
            raise RecordRefused(BAD_RECORD_MAC) from error
        if len(opened[1]) > MAX_PLAINTEXT_BYTES:
            raise RecordRefused(RECORD_OVERFLOW)
        return opened

    def _check_header(self, record_untrusted: bytes | memoryview) -> None:
        """RFC 8446 sections 5.1 and 5.2, RFC 5246 section 6.2: before anything is waited for or decrypted."""
        length = record_untrusted[3] << 8 | record_untrusted[4]
        if self._suite.version == TLS_1_3:
            if record_untrusted[0] != APPLICATION_DATA:
                raise RecordRefused(UNEXPECTED_MESSAGE)
            too_long = length > _MAX_PAYLOAD_TLS13
        else:
            if record_untrusted[0] not in _RECORD_TYPES_TLS12:
                raise RecordRefused(UNEXPECTED_MESSAGE)
            too_long = length > _MAX_PAYLOAD_TLS12
        if record_untrusted[1] != 3 or record_untrusted[2] != 3:
            raise RecordRefused(PROTOCOL_VERSION)
        if too_long:
            raise RecordRefused(RECORD_OVERFLOW)

    def update(self, key: RecordKey) -> None:
        self.key = key
        self._opener = RecordOpener(self._suite, key, 0)


def _frame_bytes(frame: Frame) -> int:
    return len(frame.header) + frame.payload_bytes


def _read_into(fd: int, views: list[memoryview], offset: int, wanted: int) -> tuple[int, int]:
    """Fill the views from a file: how many bytes there were, and the errno that ended it early (0: the file's end)."""
    read = 0
    try:
        while read < wanted:
            got = os.preadv(fd, _behind(views, read), offset + read)
            if not got:
                break
            read += got
    except OSError as error:
        return read, error.errno or 0
    return read, 0


def _behind(views: list[memoryview], done: int) -> list[memoryview]:
    """What is left of the views after their first `done` bytes."""
    if not done:
        return views
    rest = []
    for view in views:
        if done < len(view):
            rest.append(view[done:])
        done = max(0, done - len(view))
    return rest


def _record_bytes(data_untrusted: bytes | memoryview) -> int:
    """How many bytes the first record takes up, by its header; HEADER_BYTES where not even that is whole."""
    if len(data_untrusted) < HEADER_BYTES:
        return HEADER_BYTES
    return HEADER_BYTES + (data_untrusted[3] << 8 | data_untrusted[4])
