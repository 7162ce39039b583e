"""A client's side of the wire, plain and independent of the code under test: frames as bytes, and bytes as words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ktls_server.http2.endpoint import Endpoint
from ktls_server.http2.events import (
    ConnectionFailed,
    DataReceived,
    Event,
    GoAwayReceived,
    HeadTooLarge,
    PingAcknowledged,
    PriorityUpdated,
    RequestEnded,
    RequestReceived,
    RequestRejected,
    SettingsChanged,
    StreamReset,
)
from ktls_server.http2.request_heads import RememberedRequests

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 16
END_STREAM, END_HEADERS, PADDED, HAS_PRIORITY, ACK = 0x1, 0x4, 0x8, 0x20, 0x1

CODES = (
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED"),
    *("FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"),
    *("INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
)
TYPES = (
    *("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE"),
    "CONTINUATION",
)

GET = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example"), (b":path", b"/"))
POST = ((b":method", b"POST"), *GET[1:])


def number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "big")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """`length` overrides what the header says."""
    size = len(payload) if length is None else length
    return number(size, 3) + bytes((kind, flags)) + number(stream) + payload


def block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Literals without indexing and without Huffman coding: they leave the table alone."""
    encoded = b""
    for name, value in fields:
        encoded += b"\0" + _string(name) + _string(value)
    return encoded


def _string(value: bytes) -> bytes:
    size = len(value)
    if size < 127:
        return bytes((size,)) + value
    size -= 127
    length = b"\x7f"
    while size >= 128:
        length += bytes((size & 127 | 128,))
        size >>= 7
    return length + bytes((size,)) + value


def headers(
    stream: int,
    fields: Iterable[tuple[bytes, bytes]] = GET,
    *,
    end: bool = True,
    end_headers: bool = True,
    pad: int | None = None,
    depends_on: int | None = None,
) -> bytes:
    payload = block(fields)
    flags = (END_STREAM if end else 0) | (END_HEADERS if end_headers else 0)
    if depends_on is not None:
        payload, flags = number(depends_on) + b"\x10" + payload, flags | HAS_PRIORITY
    if pad is not None:
        payload, flags = bytes((pad,)) + payload + bytes(pad), flags | PADDED
    return frame(HEADERS, flags, stream, payload)


def continuation(stream: int, fragment: bytes = b"", *, end_headers: bool = True) -> bytes:
    return frame(CONTINUATION, END_HEADERS if end_headers else 0, stream, fragment)


def data(stream: int, payload: bytes = b"x" * 64, *, end: bool = False, pad: int | None = None) -> bytes:
    flags = END_STREAM if end else 0
    if pad is not None:
        payload, flags = bytes((pad,)) + payload + bytes(pad), flags | PADDED
    return frame(DATA, flags, stream, payload)


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(number(key, 2) + number(value) for key, value in pairs))


SETTINGS_ACK = frame(SETTINGS, ACK, 0)


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, number(increment))


def rst_stream(stream: int, code: int = 8) -> bytes:
    return frame(RST_STREAM, 0, stream, number(code))


def priority(stream: int, depends_on: int = 0) -> bytes:
    return frame(PRIORITY, 0, stream, number(depends_on) + b"\x10")


def priority_update(stream: int, value: bytes) -> bytes:
    return frame(PRIORITY_UPDATE, 0, 0, number(stream) + value)


def ping(opaque: bytes = b"12345678", *, ack: bool = False) -> bytes:
    return frame(PING, ACK if ack else 0, 0, opaque)


def goaway(last: int = 0, code: int = 0, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, 0, 0, number(last) + number(code) + debug)


OPENING = PREFACE + settings() + SETTINGS_ACK


def endpoint(max_header_list_bytes: int = 4096) -> Endpoint:
    return Endpoint(max_header_list_bytes, RememberedRequests())


def connected(max_header_list_bytes: int = 4096) -> Endpoint:
    """An endpoint after the exchange of SETTINGS, with an empty output."""
    opened = endpoint(max_header_list_bytes)
    opened.receive(OPENING, 0.0)
    opened.take_output()
    return opened


def cut_frames(wire: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The reference: type, flags, stream, payload of each frame. Nothing may be left."""
    while wire:
        size = int.from_bytes(wire[:3], "big")
        assert len(wire) >= 9 + size
        yield wire[3], wire[4], int.from_bytes(wire[5:9], "big"), wire[9 : 9 + size]
        wire = wire[9 + size :]


def frames_in_words(wire: bytes) -> list[str]:
    return [_frame_in_words(*one) for one in cut_frames(wire)]


def _frame_in_words(kind: int, flags: int, stream: int, payload: bytes) -> str:
    first = int.from_bytes(payload[:4], "big")
    match kind:
        case 3:
            return f"RST_STREAM {stream} {CODES[first]}"
        case 4:
            return "SETTINGS ACK" if flags & ACK else "SETTINGS"
        case 6:
            return f"PING ACK {payload.decode()}" if flags & ACK else f"PING {payload.decode()}"
        case 7:
            return f"GOAWAY {first} {CODES[int.from_bytes(payload[4:8], 'big')]}"
        case 8:
            return f"WINDOW_UPDATE {stream} {first}"
        case _:
            end = " END_STREAM" if flags & END_STREAM and kind in (DATA, HEADERS) else ""
            return f"{TYPES[kind]} {stream} {len(payload)}{end}"


def _code(code: int) -> str:
    return CODES[code] if code < len(CODES) else f"{code:#x}"


def event_in_words(event: Event) -> str:
    match event:
        case RequestReceived(stream, head, ends):
            return f"request {stream} {head.request.method.decode()}" + (" end" if ends else "")
        case HeadTooLarge(stream, ends):
            return f"too large {stream}" + (" end" if ends else "")
        case DataReceived(stream, came, ends):
            return f"data {stream} {len(came)}" + (" end" if ends else "")
        case RequestEnded(stream, _):
            return f"trailers {stream}"
        case StreamReset(stream, code, by_peer, _):
            return f"{'reset' if by_peer else 'we reset'} {stream} {_code(code)}"
        case RequestRejected(stream, code, _):
            return f"rejected {stream} {_code(code)}"
        case PriorityUpdated(stream, found):
            return f"priority {stream} u={found.urgency}" + (" i" if found.incremental else "")
        case SettingsChanged(_):
            return "settings"
        case PingAcknowledged(opaque):
            return f"pong {opaque.decode()}"
        case GoAwayReceived(last, code):
            return f"goaway {last} {_code(code)}"
        case ConnectionFailed(code, _):
            return f"failed {_code(code)}"
