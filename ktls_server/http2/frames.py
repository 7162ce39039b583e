"""Frames (RFC 9113 sections 4 and 6): a strict reader of a byte stream, and builders of frames as bytes.

A frame that has been read is a plain tuple: type, flags, stream identifier, payload. The functions `..._payload` take the
payload of one type apart; they raise the fault that the RFC asks for, and do not know in which state the stream is.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, TypeAlias

from .faults import ConnectionFault, ErrorCode, StreamFault

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (section 3.4)."""

HEADER_BYTES: Final = 9
"""Size of a frame header (section 4.1)."""

SMALLEST_MAX_FRAME_SIZE: Final = 16_384
LARGEST_MAX_FRAME_SIZE: Final = 2**24 - 1
"""Bounds of SETTINGS_MAX_FRAME_SIZE in bytes; the smaller is the initial value (section 6.5.2)."""

MAX_WINDOW_SIZE: Final = 2**31 - 1
"""Largest flow-control window in bytes (section 6.9.1)."""

MAX_STREAM_ID: Final = 2**31 - 1


class FrameType(enum.IntEnum):
    """RFC 9113 section 6, and RFC 9218 section 7.1."""

    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9
    PRIORITY_UPDATE = 0x10


END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20
"""Flags (section 6). ACK and END_STREAM are the same bit in frames of different types."""


class Setting(enum.IntEnum):
    """RFC 9113 section 6.5.2, and RFC 9218 section 2.1."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6
    NO_RFC7540_PRIORITIES = 0x9


Frame: TypeAlias = tuple[int, int, int, bytes]
"""Type, flags, stream identifier without its reserved bit, payload."""

_HEADER: Final = struct.Struct(">HBBBL")
_LONG: Final = struct.Struct(">L")
_SETTING: Final = struct.Struct(">HL")
_GOAWAY: Final = struct.Struct(">LL")


class FrameReader:
    """Cuts one direction of a connection into frames. Keeps at most one incomplete frame."""

    __slots__ = ("_buffer", "_max_frame_size", "_position", "_preface_bytes")

    def __init__(self, max_frame_size: int = SMALLEST_MAX_FRAME_SIZE) -> None:
        self._max_frame_size = max_frame_size
        self._buffer = b""
        self._position = 0
        self._preface_bytes = len(PREFACE)

    def feed(self, data_untrusted: bytes) -> None:
        """Take what came. Raises ConnectionFault as soon as a byte differs from the connection preface."""
        position = self._position
        buffer = self._buffer
        self._buffer = buffer[position:] + data_untrusted if position < len(buffer) else data_untrusted
        self._position = 0
        if self._preface_bytes:
            self._read_preface()

    def _read_preface(self) -> None:
        wanted = PREFACE[-self._preface_bytes :]
        came = self._buffer[: len(wanted)]
        if not wanted.startswith(came):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "preface")
        self._position = len(came)
        self._preface_bytes -= len(came)

    def next_frame(self) -> Frame | None:
        """The next complete frame; None where more bytes are needed.

        Raises ConnectionFault (FRAME_SIZE_ERROR) once the header of a frame says that it is too long (section 4.2).
        """
        buffer, position = self._buffer, self._position
        start = position + HEADER_BYTES
        if len(buffer) < start:
            if position == len(buffer):
                self._buffer, self._position = b"", 0  # so that an idle connection holds nothing of what came
            return None
        length_high, length_low, frame_type, flags, stream_id = _HEADER.unpack_from(buffer, position)
        length = length_high << 8 | length_low
        if length > self._max_frame_size:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "frame size")
        end = start + length
        if len(buffer) < end:
            return None
        self._position = end
        return frame_type, flags, stream_id & MAX_STREAM_ID, buffer[start:end]


# Payloads


def data_payload(flags: int, payload_untrusted: bytes) -> bytes:
    """The data of a DATA frame without its padding (section 6.1). Raises ConnectionFault where the padding is too long."""
    if not flags & PADDED:
        return payload_untrusted
    return _without_padding(payload_untrusted)


def headers_payload(flags: int, stream_id: int, payload_untrusted: bytes) -> tuple[bytes, bool]:
    """The field block fragment of a HEADERS frame, and whether its stream depends on itself (section 6.2).

    The priority of RFC 7540 is not used; a stream that depends on itself was a stream error there (section 5.3.1).
    Raises ConnectionFault.
    """
    fragment = _without_padding(payload_untrusted) if flags & PADDED else payload_untrusted
    if not flags & PRIORITY:
        return fragment, False
    if len(fragment) < 5:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "headers size")
    return fragment[5:], _LONG.unpack_from(fragment)[0] & MAX_STREAM_ID == stream_id


def _without_padding(payload_untrusted: bytes) -> bytes:
    if not payload_untrusted:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "padding size")
    padding = payload_untrusted[0]
    if padding >= len(payload_untrusted):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding")
    return payload_untrusted[1 : len(payload_untrusted) - padding]


def priority_payload(stream_id: int, payload_untrusted: bytes) -> None:
    """Check a PRIORITY frame (section 6.3), whose content is not used (section 5.3.2). Raises StreamFault."""
    if len(payload_untrusted) != 5:
        raise StreamFault(ErrorCode.FRAME_SIZE_ERROR, "priority size")
    if _LONG.unpack_from(payload_untrusted)[0] & MAX_STREAM_ID == stream_id:
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, "depends on itself")


def rst_stream_payload(payload_untrusted: bytes) -> int:
    """The error code of a RST_STREAM frame, which may be an unknown one (section 6.4). Raises ConnectionFault."""
    if len(payload_untrusted) != 4:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "rst_stream size")
    code: int = _LONG.unpack(payload_untrusted)[0]
    return code


def settings_payload(payload_untrusted: bytes) -> list[tuple[int, int]]:
    """Identifiers and values of a SETTINGS frame in their order, unknown ones included (section 6.5).

    Raises ConnectionFault for a size that is not a multiple of 6 and for values that section 6.5.2 excludes.
    """
    if len(payload_untrusted) % _SETTING.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "settings size")
    settings = list(_SETTING.iter_unpack(payload_untrusted))
    for setting, value in settings:
        if setting == Setting.INITIAL_WINDOW_SIZE:
            if value > MAX_WINDOW_SIZE:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "initial window size")
        elif setting == Setting.MAX_FRAME_SIZE:
            if not SMALLEST_MAX_FRAME_SIZE <= value <= LARGEST_MAX_FRAME_SIZE:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "max frame size")
        elif setting in (Setting.ENABLE_PUSH, Setting.NO_RFC7540_PRIORITIES) and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "settings value")
    return settings


def ping_payload(payload_untrusted: bytes) -> bytes:
    """The eight opaque bytes of a PING frame (section 6.7). Raises ConnectionFault."""
    if len(payload_untrusted) != 8:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "ping size")
    return payload_untrusted


def goaway_payload(payload_untrusted: bytes) -> tuple[int, int]:
    """Last stream identifier and error code of a GOAWAY frame (section 6.8). Raises ConnectionFault."""
    if len(payload_untrusted) < _GOAWAY.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "goaway size")
    last_stream_id, code = _GOAWAY.unpack_from(payload_untrusted)
    return last_stream_id & MAX_STREAM_ID, code


def window_update_payload(payload_untrusted: bytes) -> int:
    """The increment of a WINDOW_UPDATE frame in bytes; 0 is for the caller to refuse (section 6.9). Raises ConnectionFault."""
    if len(payload_untrusted) != 4:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "window_update size")
    increment: int = _LONG.unpack(payload_untrusted)[0] & MAX_WINDOW_SIZE
    return increment


def priority_update_payload(payload_untrusted: bytes) -> tuple[int, bytes]:
    """Prioritized stream and priority field value of a PRIORITY_UPDATE frame (RFC 9218 section 7.1). Raises ConnectionFault."""
    if len(payload_untrusted) < 4:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "priority_update size")
    return _LONG.unpack_from(payload_untrusted)[0] & MAX_STREAM_ID, payload_untrusted[4:]


# Builders


def frame_header(length: int, frame_type: int, flags: int, stream_id: int) -> bytes:
    """The nine bytes before a payload of `length` bytes, which may be sent by somebody else."""
    return _HEADER.pack(length >> 8, length & 0xFF, frame_type, flags, stream_id)


def headers_frames(stream_id: int, block: bytes, max_frame_size: int, *, end_stream: bool) -> bytes:
    """HEADERS and, where `block` is longer than `max_frame_size`, CONTINUATION frames, which nothing may come between."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame_size:
        return _HEADER.pack(len(block) >> 8, len(block) & 0xFF, 0x1, flags | END_HEADERS, stream_id) + block
    frames = [frame_header(max_frame_size, FrameType.HEADERS, flags, stream_id), block[:max_frame_size]]
    for start in range(max_frame_size, len(block), max_frame_size):
        piece = block[start : start + max_frame_size]
        is_last = start + max_frame_size >= len(block)
        frames += frame_header(len(piece), FrameType.CONTINUATION, END_HEADERS if is_last else 0, stream_id), piece
    return b"".join(frames)


def rst_stream_frame(stream_id: int, code: int) -> bytes:
    return frame_header(4, FrameType.RST_STREAM, 0, stream_id) + _LONG.pack(code)


def settings_frame(settings: dict[Setting, int]) -> bytes:
    payload = b"".join([_SETTING.pack(setting, value) for setting, value in settings.items()])
    return frame_header(len(payload), FrameType.SETTINGS, 0, 0) + payload


SETTINGS_ACK: Final = frame_header(0, FrameType.SETTINGS, ACK, 0)


def ping_frame(opaque: bytes, *, ack: bool) -> bytes:
    return frame_header(8, FrameType.PING, ACK if ack else 0, 0) + opaque


def goaway_frame(last_stream_id: int, code: int) -> bytes:
    return frame_header(8, FrameType.GOAWAY, 0, 0) + _GOAWAY.pack(last_stream_id, code)


def window_update_frame(stream_id: int, increment: int) -> bytes:
    return frame_header(4, FrameType.WINDOW_UPDATE, 0, stream_id) + _LONG.pack(increment)
