"""What a client sends, in which state, and what comes of it: every MUST of RFC 9113, sections 3 to 8, that concerns a server.

A row: the section, the rule, the state before, the bytes that come, the events and the frames that follow. A state is a
name in `STATES`: what was sent and answered before, all of it on stream 1. test_cases.py runs each row whole, byte by
byte, and cut in two at every place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ktls_server.http2.endpoint import Endpoint
from ktls_server.http2.faults import ErrorCode
from tests.http2.wire import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    OPENING,
    PADDED,
    PING,
    POST,
    PREFACE,
    PRIORITY,
    PRIORITY_UPDATE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    SETTINGS_ACK,
    WINDOW_UPDATE,
    block,
    continuation,
    data,
    endpoint,
    frame,
    goaway,
    headers,
    number,
    ping,
    priority,
    priority_update,
    rst_stream,
    settings,
    window_update,
)

MOST = 2**31 - 1


def _new() -> Endpoint:
    """The TLS handshake is over; the client has sent nothing. Our SETTINGS wait to be sent."""
    return endpoint()


def _idle() -> Endpoint:
    """SETTINGS are exchanged and acknowledged; no stream was used."""
    opened = endpoint()
    opened.receive(OPENING, 0.0)
    opened.take_output()
    return opened


def _unacknowledged() -> Endpoint:
    """The client has not yet acknowledged our SETTINGS."""
    opened = endpoint()
    opened.receive(PREFACE + settings(), 0.0)
    opened.take_output()
    return opened


def _open() -> Endpoint:
    """The head of a POST came."""
    opened = _idle()
    opened.receive(headers(1, POST, end=False), 0.0)
    return opened


def _sized() -> Endpoint:
    """The head of a POST came, with content-length: 100."""
    opened = _idle()
    opened.receive(headers(1, (*POST, (b"content-length", b"100")), end=False), 0.0)
    return opened


def _half_closed_remote() -> Endpoint:
    """A whole GET came."""
    opened = _idle()
    opened.receive(headers(1), 0.0)
    return opened


def _half_closed_local() -> Endpoint:
    """The head of a POST came, and we have answered in full."""
    opened = _open()
    opened.send_headers(1, b"\x88", end_stream=True)
    return opened


def _ended() -> Endpoint:
    """A GET was answered."""
    opened = _half_closed_remote()
    opened.send_headers(1, b"\x88", end_stream=True)
    return opened


def _reset_by_peer() -> Endpoint:
    opened = _open()
    opened.receive(rst_stream(1), 0.0)
    return opened


def _reset_by_us() -> Endpoint:
    opened = _open()
    opened.reset(1, ErrorCode.CANCEL)
    opened.take_output()
    return opened


def _skipped() -> Endpoint:
    """The first request came on stream 3: stream 1 is closed, and was never used."""
    opened = _idle()
    opened.receive(headers(3), 0.0)
    return opened


def _going() -> Endpoint:
    """We have sent the second GOAWAY, after a request on stream 1."""
    opened = _half_closed_remote()
    opened.announce_shutdown()
    opened.shut_down()
    opened.take_output()
    return opened


def _full() -> Endpoint:
    """100 streams are open, which is what we allow: 1 to 199."""
    opened = _idle()
    for stream in range(1, 200, 2):
        opened.receive(headers(stream), 0.0)
    return opened


def _within_block() -> Endpoint:
    """HEADERS without END_HEADERS came."""
    opened = _idle()
    opened.receive(headers(1, end_headers=False), 0.0)
    return opened


STATES: dict[str, Callable[[], Endpoint]] = {
    "new": _new,
    "unacknowledged": _unacknowledged,
    "idle": _idle,
    "open": _open,
    "sized": _sized,
    "half-closed (remote)": _half_closed_remote,
    "half-closed (local)": _half_closed_local,
    "closed (ended)": _ended,
    "closed (by peer)": _reset_by_peer,
    "closed (by us)": _reset_by_us,
    "skipped": _skipped,
    "going": _going,
    "full": _full,
    "within a block": _within_block,
}


class Case(NamedTuple):
    """`sends` leaves out our SETTINGS in the state "new"."""

    section: str
    rule: str
    state: str
    comes: bytes
    events: tuple[str, ...] = ()
    sends: tuple[str, ...] = ()


def fatal(section: str, rule: str, state: str, comes: bytes, code: str, last: int | None = None) -> Case:
    """A connection error. `last` is the highest stream that we have processed: 1 where the state has one."""
    if last is None:
        last = {"new": 0, "idle": 0, "unacknowledged": 0, "within a block": 0, "skipped": 3, "full": 199}.get(state, 1)
    return Case(section, rule, state, comes, (f"failed {code}",), (f"GOAWAY {last} {code}",))


def resets(section: str, rule: str, state: str, comes: bytes, code: str, stream: int = 1) -> Case:
    """A stream error on a stream that we know."""
    return Case(section, rule, state, comes, (f"we reset {stream} {code}",), (f"RST_STREAM {stream} {code}",))


def rejects(section: str, rule: str, state: str, comes: bytes, code: str, stream: int = 1) -> Case:
    """A stream error on a stream that was not taken, or is closed."""
    return Case(section, rule, state, comes, (f"rejected {stream} {code}",), (f"RST_STREAM {stream} {code}",))


def malformed(section: str, rule: str, *fields: tuple[bytes, bytes]) -> Case:
    return rejects(section, rule, "idle", headers(1, fields), "PROTOCOL_ERROR")


def fine(section: str, rule: str, *fields: tuple[bytes, bytes]) -> Case:
    method = dict(fields)[b":method"].decode()
    return Case(section, rule, "idle", headers(1, fields), (f"request 1 {method} end",))


METHOD, SCHEME, AUTHORITY, PATH = GET

CASES = [
    # 3: starting
    Case("3.4", "the preface is followed by SETTINGS", "new", PREFACE + settings(), ("settings",), ("SETTINGS ACK",)),
    fatal("3.4", "anything but the preface is an error", "new", b"GET / HTTP/1.1\r\n\r\n", "PROTOCOL_ERROR"),
    fatal("3.4", "the last byte of the preface counts", "new", PREFACE[:-1] + b"\r", "PROTOCOL_ERROR"),
    fatal("3.4", "the first frame is SETTINGS", "new", PREFACE + ping(), "PROTOCOL_ERROR"),
    fatal("3.4", "the first frame is not an acknowledgement", "new", PREFACE + SETTINGS_ACK, "PROTOCOL_ERROR"),
    fatal("3.4", "also an unknown frame must not come first", "new", PREFACE + frame(99, 0, 0), "PROTOCOL_ERROR"),
    Case(
        "3.4",
        "a client need not wait for our SETTINGS",
        "new",
        OPENING + headers(1),
        ("settings", "request 1 GET end"),
        ("SETTINGS ACK",),
    ),
    # 4: frames
    Case("4.1", "frames of unknown types are ignored", "idle", frame(99, 0xFF, 5, b"x") + frame(11, 0, 0)),
    Case(
        "4.1",
        "flags without meaning are ignored",
        "idle",
        frame(PING, 0xFE, 0, b"12345678"),
        (),
        ("PING ACK 12345678",),
    ),
    Case(
        "4.1",
        "the reserved bit is ignored",
        "idle",
        frame(HEADERS, END_STREAM | END_HEADERS, 1 | 1 << 31, block(GET)),
        ("request 1 GET end",),
    ),
    Case("4.2", "a payload of 16,384 bytes is taken", "open", data(1, bytes(16384)), ("data 1 16384",)),
    fatal("4.2", "a longer one is not", "open", frame(DATA, 0, 1, length=16385), "FRAME_SIZE_ERROR"),
    fatal("4.2", "a longer one is not, whatever its type", "idle", frame(99, 0, 0, length=16385), "FRAME_SIZE_ERROR"),
    fatal("4.2", "a longer field block is not", "idle", frame(HEADERS, 4, 1, length=16385), "FRAME_SIZE_ERROR"),
    fatal(
        "4.3",
        "a block that does not decompress",
        "idle",
        frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
        "COMPRESSION_ERROR",
        1,
    ),
    fatal("4.3", "a block that is cut", "idle", frame(HEADERS, 5, 1, block(GET)[:-1]), "COMPRESSION_ERROR", 1),
    fatal("4.3", "an index past the tables", "idle", frame(HEADERS, 5, 1, b"\xbe"), "COMPRESSION_ERROR", 1),
    fatal("4.3", "index 0", "idle", frame(HEADERS, 5, 1, b"\x80"), "COMPRESSION_ERROR", 1),
    fatal(
        "4.3.1",
        "a table of more than 4,096 bytes",
        "idle",
        frame(HEADERS, 5, 1, b"\x3f\xe2\x1f"),
        "COMPRESSION_ERROR",
        1,
    ),
    fatal(
        "4.3.1",
        "a change of the table's size within a block",
        "idle",
        frame(HEADERS, 5, 1, block(GET) + b"\x20"),
        "COMPRESSION_ERROR",
        1,
    ),
    fatal(
        "4.3",
        "a Huffman string with padding of more than seven bits",
        "idle",
        frame(HEADERS, 5, 1, block(GET) + b"\x00\x01a\x85\xf2\xb2\x4a\x84\xff\xff"),
        "COMPRESSION_ERROR",
        1,
    ),
    fatal(
        "4.3",
        "a block on a closed stream is decompressed all the same",
        "closed (by us)",
        frame(HEADERS, 5, 1, b"\xbe"),
        "COMPRESSION_ERROR",
    ),
    # 5.1: states
    *[
        fatal("5.1", f"idle: {name} is an error", "idle", comes, "PROTOCOL_ERROR")
        for name, comes in (
            ("DATA", data(1)),
            ("RST_STREAM", rst_stream(1)),
            ("WINDOW_UPDATE", window_update(1, 1)),
            ("CONTINUATION", continuation(1)),
        )
    ],
    Case("5.1", "idle: PRIORITY is allowed", "idle", priority(1)),
    *[
        fatal("5.1", f"a stream that only a server may open is idle: {name}", "open", comes, "PROTOCOL_ERROR")
        for name, comes in (("DATA", data(2)), ("RST_STREAM", rst_stream(2)), ("WINDOW_UPDATE", window_update(2, 1)))
    ],
    Case("5.1", "open: DATA, and its end", "open", data(1) + data(1, b"", end=True), ("data 1 64", "data 1 0 end")),
    Case("5.1", "open: RST_STREAM closes", "open", rst_stream(1), ("reset 1 CANCEL",)),
    Case("5.1", "open: WINDOW_UPDATE", "open", window_update(1, 1)),
    Case("5.1", "open: PRIORITY", "open", priority(1)),
    resets("5.1", "half-closed (remote): DATA", "half-closed (remote)", data(1), "STREAM_CLOSED"),
    resets("5.1", "half-closed (remote): DATA that ends", "half-closed (remote)", data(1, end=True), "STREAM_CLOSED"),
    resets("5.1", "half-closed (remote): HEADERS", "half-closed (remote)", headers(1), "STREAM_CLOSED"),
    Case("5.1", "half-closed (remote): WINDOW_UPDATE", "half-closed (remote)", window_update(1, 1)),
    Case("5.1", "half-closed (remote): PRIORITY", "half-closed (remote)", priority(1)),
    Case("5.1", "half-closed (remote): RST_STREAM closes", "half-closed (remote)", rst_stream(1), ("reset 1 CANCEL",)),
    fatal("5.1", "half-closed (remote): CONTINUATION", "half-closed (remote)", continuation(1), "PROTOCOL_ERROR"),
    Case(
        "5.1",
        "half-closed (local): the request goes on",
        "half-closed (local)",
        data(1) + window_update(1, 1) + priority(1) + data(1, b"", end=True),
        ("data 1 64", "data 1 0 end"),
    ),
    Case("5.1", "half-closed (local): RST_STREAM closes", "half-closed (local)", rst_stream(1), ("reset 1 CANCEL",)),
    Case("5.1", "half-closed (local): trailers close", "half-closed (local)", headers(1, ()), ("trailers 1",)),
    rejects("5.1", "closed (ended): DATA", "closed (ended)", data(1), "STREAM_CLOSED"),
    fatal("5.1", "closed (ended): HEADERS", "closed (ended)", headers(1), "STREAM_CLOSED"),
    Case(
        "5.1",
        "closed (ended): WINDOW_UPDATE, RST_STREAM and PRIORITY may be under way",
        "closed (ended)",
        window_update(1, 1) + rst_stream(1) + priority(1),
    ),
    fatal("5.1", "closed (ended): CONTINUATION", "closed (ended)", continuation(1), "PROTOCOL_ERROR"),
    rejects("5.1", "closed (by peer): DATA", "closed (by peer)", data(1), "STREAM_CLOSED"),
    rejects("5.1", "closed (by peer): HEADERS", "closed (by peer)", headers(1), "STREAM_CLOSED"),
    Case("5.1", "closed (by peer): PRIORITY", "closed (by peer)", priority(1)),
    Case(
        "5.1",
        "closed (by us): whatever was under way is ignored",
        "closed (by us)",
        data(1) + window_update(1, 1) + priority(1) + rst_stream(1) + headers(1),
    ),
    Case(
        "5.1",
        "closed (by us): DATA counts for the connection's window",
        "closed (by us)",
        data(1, bytes(16384)) * 2,
        (),
        ("WINDOW_UPDATE 0 32768",),
    ),
    fatal("5.1.1", "identifiers of new streams ascend", "skipped", headers(1), "PROTOCOL_ERROR"),
    fatal("5.1.1", "a client's streams are odd", "idle", headers(2), "PROTOCOL_ERROR"),
    rejects("5.1.1", "a stream that was skipped is closed", "skipped", data(1), "STREAM_CLOSED"),
    rejects("5.1.2", "more streams than allowed", "full", headers(201), "REFUSED_STREAM", 201),
    Case(
        "5.1.2",
        "one that ends makes room",
        "full",
        rst_stream(1) + headers(201),
        ("reset 1 CANCEL", "request 201 GET end"),
    ),
    Case(
        "5.1.2",
        "a refused stream leaves the compression state as the client thinks it is",
        "full",
        frame(HEADERS, 5, 201, b"\x40\x01a\x01b" + block(GET))
        + rst_stream(1)
        + frame(HEADERS, 5, 203, block(GET) + b"\xbe"),
        ("rejected 201 REFUSED_STREAM", "reset 1 CANCEL", "request 203 GET end"),
        ("RST_STREAM 201 REFUSED_STREAM",),
    ),
    # 5.3: priorities of RFC 7540 are read past
    Case("5.3.2", "HEADERS with priority", "idle", headers(1, depends_on=3), ("request 1 GET end",)),
    rejects("5.3.2", "HEADERS of a stream that depends on itself", "idle", headers(1, depends_on=1), "PROTOCOL_ERROR"),
    resets("5.3.2", "PRIORITY of a stream that depends on itself", "open", priority(1, 1), "PROTOCOL_ERROR"),
    fatal(
        "5.3.2", "the same on an idle stream, where RST_STREAM is not allowed", "idle", priority(3, 3), "PROTOCOL_ERROR"
    ),
    # 5.5: extensions
    fatal("5.5", "an unknown frame within a field block", "within a block", frame(99, 0, 0), "PROTOCOL_ERROR"),
    # 6.1: DATA
    fatal("6.1", "DATA on stream 0", "open", data(0), "PROTOCOL_ERROR"),
    fatal("6.1", "padding as long as the payload", "open", frame(DATA, PADDED, 1, b"\x03abc"[:3]), "PROTOCOL_ERROR"),
    fatal("6.1", "padding without its length", "open", frame(DATA, PADDED, 1), "FRAME_SIZE_ERROR"),
    Case("6.1", "padding up to the whole of the rest", "open", data(1, b"", end=True, pad=10), ("data 1 0 end",)),
    Case("6.1", "padding is left out", "open", data(1, b"a" * 70, pad=255), ("data 1 70",)),
    # 6.2: HEADERS
    fatal("6.2", "HEADERS on stream 0", "idle", headers(0), "PROTOCOL_ERROR"),
    Case("6.2", "padding is left out", "idle", headers(1, pad=9), ("request 1 GET end",)),
    fatal(
        "6.2", "padding longer than the payload", "idle", frame(HEADERS, PADDED | 5, 1, b"\x09abc"), "PROTOCOL_ERROR"
    ),
    fatal("6.2", "padding without its length", "idle", frame(HEADERS, PADDED | 5, 1), "FRAME_SIZE_ERROR"),
    fatal("6.2", "priority that is cut", "idle", frame(HEADERS, HAS_PRIORITY | 5, 1, b"1234"), "FRAME_SIZE_ERROR"),
    Case(
        "6.2",
        "priority and padding together",
        "idle",
        headers(1, depends_on=0, pad=3),
        ("request 1 GET end",),
    ),
    *[
        fatal("6.2", f"within a field block: {name}", "within a block", comes, "PROTOCOL_ERROR")
        for name, comes in (
            ("HEADERS of another stream", headers(3)),
            ("HEADERS of the same stream", headers(1)),
            ("DATA", data(1)),
            ("PING", ping()),
            ("SETTINGS", settings()),
            ("WINDOW_UPDATE", window_update(0, 1)),
            ("RST_STREAM", rst_stream(1)),
            ("CONTINUATION of another stream", continuation(3)),
            ("CONTINUATION of stream 0", continuation(0)),
        )
    ],
    # 6.3: PRIORITY
    fatal("6.3", "PRIORITY on stream 0", "idle", priority(0, 1), "PROTOCOL_ERROR"),
    resets("6.3", "PRIORITY of another size", "open", frame(PRIORITY, 0, 1, b"1234"), "FRAME_SIZE_ERROR"),
    fatal("6.3", "the same on an idle stream", "idle", frame(PRIORITY, 0, 1, b"123456"), "FRAME_SIZE_ERROR"),
    # 6.4: RST_STREAM
    fatal("6.4", "RST_STREAM on stream 0", "idle", rst_stream(0), "PROTOCOL_ERROR"),
    fatal("6.4", "RST_STREAM of another size", "open", frame(RST_STREAM, 0, 1, b"123"), "FRAME_SIZE_ERROR"),
    Case("7", "an unknown error code has no special meaning", "open", rst_stream(1, 0x99), ("reset 1 0x99",)),
    # 6.5: SETTINGS
    Case("6.5", "SETTINGS is acknowledged", "idle", settings((3, 5)), ("settings",), ("SETTINGS ACK",)),
    Case("6.5", "our SETTINGS is acknowledged", "unacknowledged", SETTINGS_ACK),
    fatal("6.5", "an acknowledgement of nothing", "idle", SETTINGS_ACK, "PROTOCOL_ERROR"),
    fatal(
        "6.5",
        "an acknowledgement with content",
        "unacknowledged",
        frame(SETTINGS, ACK, 0, b"123456"),
        "FRAME_SIZE_ERROR",
    ),
    fatal("6.5", "SETTINGS on a stream", "open", frame(SETTINGS, 0, 1), "PROTOCOL_ERROR"),
    fatal("6.5", "a size that is not a multiple of six", "idle", frame(SETTINGS, 0, 0, b"12345"), "FRAME_SIZE_ERROR"),
    *[
        Case("6.5.2", f"setting {key} is {value}", "idle", settings((key, value)), ("settings",), ("SETTINGS ACK",))
        for key, value in (
            *((1, 0), (1, 2**32 - 1), (2, 0), (2, 1), (3, 0), (3, 2**32 - 1), (4, 0), (4, MOST)),
            *((5, 16384), (5, 2**24 - 1), (6, 0), (6, 2**32 - 1), (9, 0), (9, 1), (8, 1), (0, 7), (0xFFFF, 7)),
        )
    ],
    *[
        fatal("6.5.2", f"setting {key} is {value}", "idle", settings((3, 1), (key, value)), code)
        for key, value, code in (
            (2, 2, "PROTOCOL_ERROR"),
            (4, MOST + 1, "FLOW_CONTROL_ERROR"),
            (5, 16383, "PROTOCOL_ERROR"),
            (5, 2**24, "PROTOCOL_ERROR"),
            (9, 2, "PROTOCOL_ERROR"),
        )
    ],
    # 6.6: PUSH_PROMISE
    fatal(
        "8.4",
        "a client cannot push",
        "open",
        frame(PUSH_PROMISE, END_HEADERS, 1, number(2) + block(GET)),
        "PROTOCOL_ERROR",
    ),
    # 6.7: PING
    Case("6.7", "PING is answered with the same content", "idle", ping(b"abcdefgh"), (), ("PING ACK abcdefgh",)),
    Case("6.7", "an answer is not answered", "idle", ping(ack=True), ("pong 12345678",)),
    fatal("6.7", "PING on a stream", "open", frame(PING, 0, 1, b"12345678"), "PROTOCOL_ERROR"),
    fatal("6.7", "PING of another size", "idle", frame(PING, 0, 0, b"1234567"), "FRAME_SIZE_ERROR"),
    # 6.8: GOAWAY
    Case(
        "6.8",
        "streams that are open go on",
        "open",
        goaway(7, 2, b"debug") + data(1),
        ("goaway 7 INTERNAL_ERROR", "data 1 64"),
    ),
    fatal("6.8", "GOAWAY on a stream", "open", frame(GOAWAY, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
    fatal("6.8", "GOAWAY that is cut", "idle", frame(GOAWAY, 0, 0, bytes(7)), "FRAME_SIZE_ERROR"),
    Case(
        "6.8",
        "after our GOAWAY new streams are ignored",
        "going",
        headers(3, POST, end=False) + data(3) + rst_stream(3),
    ),
    Case(
        "6.8",
        "after our GOAWAY field blocks still change the compression state",
        "going",
        frame(HEADERS, 5, 3, b"\x40\x01a\x01b" + block(GET)) + frame(HEADERS, 5, 5, block(GET) + b"\xbe"),
    ),
    fatal(
        "6.8",
        "after our GOAWAY field blocks are still judged",
        "going",
        frame(HEADERS, 5, 3, b"\xbe"),
        "COMPRESSION_ERROR",
    ),
    # 6.9: WINDOW_UPDATE and flow control
    fatal("6.9", "an increment of 0 on the connection", "idle", window_update(0, 0), "PROTOCOL_ERROR"),
    resets("6.9", "an increment of 0 on a stream", "open", window_update(1, 0), "PROTOCOL_ERROR"),
    fatal("6.9", "WINDOW_UPDATE of another size", "open", frame(WINDOW_UPDATE, 0, 1, b"123"), "FRAME_SIZE_ERROR"),
    Case("6.9.1", "the connection's window may be full", "idle", window_update(0, MOST - 65535)),
    fatal(
        "6.9.1",
        "the connection's window may not overflow",
        "idle",
        window_update(0, MOST - 65534),
        "FLOW_CONTROL_ERROR",
    ),
    Case("6.9.1", "a stream's window may be full", "open", window_update(1, MOST - 65535)),
    resets("6.9.1", "a stream's window may not overflow", "open", window_update(1, MOST - 65534), "FLOW_CONTROL_ERROR"),
    fatal(
        "6.9.2",
        "no stream's window may overflow by SETTINGS",
        "open",
        window_update(1, 1) + settings((4, MOST)),
        "FLOW_CONTROL_ERROR",
    ),
    Case(
        "6.9",
        "more than a stream's window",
        "closed (by us)",  # so that the connection's window was given back
        headers(3, POST, end=False) + data(1, bytes(16384)) * 2 + data(3, bytes(16384)) * 2,
        ("request 3 POST", "data 3 16384", "data 3 16384"),
        ("WINDOW_UPDATE 0 32768",),
    ),
    fatal(
        "6.9",
        "more than the connection's window",
        "open",
        data(1, bytes(16384)) * 3 + data(1, bytes(16383)) + data(1, b"", end=True) + data(1, b"x"),
        "FLOW_CONTROL_ERROR",
    )._replace(
        events=(*("data 1 16384",) * 3, "data 1 16383", "data 1 0 end", "failed FLOW_CONTROL_ERROR"),
    ),
    # 6.10: CONTINUATION
    fatal("6.10", "CONTINUATION without HEADERS", "idle", continuation(1), "PROTOCOL_ERROR"),
    fatal("6.10", "CONTINUATION after END_HEADERS", "open", continuation(1), "PROTOCOL_ERROR"),
    Case("6.10", "CONTINUATION may be empty", "within a block", continuation(1), ("request 1 GET end",)),
    Case(
        "6.10",
        "a block in three pieces, cut within a field",
        "idle",
        frame(HEADERS, END_STREAM, 1, block(GET)[:5])
        + frame(CONTINUATION, 0, 1, block(GET)[5:20])
        + frame(CONTINUATION, END_HEADERS, 1, block(GET)[20:]),
        ("request 1 GET end",),
    ),
    # 8.1: messages
    Case("8.1", "trailers end a request", "open", data(1) + headers(1, ((b"a", b"b"),)), ("data 1 64", "trailers 1")),
    resets(
        "5.3.2", "trailers of a stream that depends on itself", "open", headers(1, (), depends_on=1), "PROTOCOL_ERROR"
    ),
    resets("8.1", "trailers without END_STREAM", "open", headers(1, ((b"a", b"b"),), end=False), "PROTOCOL_ERROR"),
    resets("8.1", "trailers with a pseudo-header field", "open", headers(1, ((b":path", b"/"),)), "PROTOCOL_ERROR"),
    resets("8.1", "trailers with upper case", "open", headers(1, ((b"A", b"b"),)), "PROTOCOL_ERROR"),
    resets("8.1", "trailers of a field for connections", "open", headers(1, ((b"upgrade", b"b"),)), "PROTOCOL_ERROR"),
    Case("8.1.1", "content-length is what DATA has", "sized", data(1, bytes(100), end=True), ("data 1 100 end",)),
    Case("8.1.1", "padding is no content", "sized", data(1, bytes(100), end=True, pad=20), ("data 1 100 end",)),
    resets("8.1.1", "more than content-length", "sized", data(1, bytes(101)), "PROTOCOL_ERROR"),
    resets("8.1.1", "less than content-length", "sized", data(1, bytes(99), end=True), "PROTOCOL_ERROR"),
    resets("8.1.1", "less than content-length before trailers", "sized", headers(1, ()), "PROTOCOL_ERROR"),
    malformed("8.1.1", "content-length without content", *POST, (b"content-length", b"1")),
    fine("8.1.1", "content-length: 0 without content", *POST, (b"content-length", b"0")),
    *[
        malformed("8.1.1", f"content-length: {value!r}", *POST, (b"content-length", value))
        for value in (b"", b"-1", b"+0", b"0x0", b"0, 0", b"0 0", b"9" * 19)
    ],
    malformed("8.1.1", "content-length twice", *POST, (b"content-length", b"0"), (b"content-length", b"0")),
    # 8.2: fields
    *[
        malformed("8.2.1", f"a name with {name!r}", *GET, (name, b"x"))
        for name in (b"A", b"accepT", b"a b", b"a\0", b"a\r\nb", b"\x80", b"\xff", b"\x7f", b"", b"a:b", b":", b"a\t")
    ],
    *[
        malformed("8.2.1", f"a value with {value!r}", *GET, (b"a", value))
        for value in (
            b"a\0b",
            b"a\rb",
            b"a\nb",
            b"a\r\nb",
            b" a",
            b"a ",
            b"\ta",
            b"a\t",
            b" ",
            b"x\0y\0z",
            b"\x7f",
            b"a\x0bb",
            b"a\x0cb",
        )
    ],
    malformed("8.2.1", "a path with a line feed", METHOD, SCHEME, AUTHORITY, (b":path", b"/\nx")),
    *[
        fine("8.2.1", f"the value {value!r}", *GET, (b"a", value))
        for value in (b"", b"a b", b"a\tb", b"\xe4", b"!", b'a, b;c="d"')
    ],
    *[
        malformed("8.2.2", f"{name!r} belongs to a connection", *GET, (name, b"x"))
        for name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
    ],
    fine("8.2.2", "te: trailers", *GET, (b"te", b"trailers")),
    malformed("8.2.2", "te with anything else", *GET, (b"te", b"trailers, deflate")),
    fine("8.2.3", "a cookie in crumbs", *GET, (b"cookie", b"a=1"), (b"cookie", b"b=2")),
    # 8.3: control data
    malformed("8.3", "no pseudo-header fields", (b"a", b"b")),
    malformed("8.3", "an unknown pseudo-header field", *GET, (b":protocol", b"websocket")),
    malformed("8.3", "one of a response", *GET, (b":status", b"200")),
    malformed("8.3", "a pseudo-header field after others", METHOD, SCHEME, AUTHORITY, (b"a", b"b"), PATH),
    malformed("8.3", "a pseudo-header field after host", METHOD, SCHEME, (b"host", b"a.example"), PATH),
    malformed("8.3", "a pseudo-header field after a cookie", METHOD, SCHEME, (b"cookie", b"a"), PATH),
    *[malformed("8.3", f"{field[0].decode()} twice", *GET, field) for field in GET],
    *[
        malformed("8.3.1", f"no {left_out[0].decode()}", *[field for field in GET if field is not left_out])
        for left_out in (METHOD, SCHEME, PATH)
    ],
    fine("8.3.1", "neither :authority nor host (the site answers 400)", METHOD, SCHEME, PATH),
    fine("8.3.1", "host in place of :authority", METHOD, SCHEME, PATH, (b"host", b"a.example")),
    fine("8.3.1", "host that is the same", *GET, (b"host", b"a.example")),
    fine("8.3.1", "host that is the same but for case and default port", *GET, (b"host", b"A.example:443")),
    malformed("8.3.1", "host that differs", *GET, (b"host", b"b.example")),
    malformed("8.3.1", "host with another port", *GET, (b"host", b"a.example:444")),
    malformed("8.3.1", "host twice", METHOD, SCHEME, PATH, (b"host", b"a.example"), (b"host", b"a.example")),
    malformed("8.3.1", ":authority with user information", METHOD, SCHEME, (b":authority", b"u@a.example"), PATH),
    *[
        malformed("8.3.1", f":path {path!r}", METHOD, SCHEME, AUTHORITY, (b":path", path))
        for path in (b"", b"a", b"*", b"https://a.example/", b"?a", b" /")
    ],
    fine("8.3.1", "OPTIONS of the whole server", (b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*")),
    *[
        malformed("8.3.1", f":method {method!r}", (b":method", method), SCHEME, AUTHORITY, PATH)
        for method in (b"", b"G T", b"GET ", b"G\xc4T", b"G:T")
    ],
    malformed("8.3.1", "an empty :scheme", METHOD, (b":scheme", b""), AUTHORITY, PATH),
    fine("8.3.1", "another scheme", METHOD, (b":scheme", b"http"), AUTHORITY, PATH),
    # 8.5: CONNECT
    fine("8.5", "CONNECT", (b":method", b"CONNECT"), AUTHORITY),
    malformed("8.5", "CONNECT with :scheme", (b":method", b"CONNECT"), SCHEME, AUTHORITY),
    malformed("8.5", "CONNECT with :path", (b":method", b"CONNECT"), AUTHORITY, PATH),
    malformed("8.5", "CONNECT without :authority", (b":method", b"CONNECT")),
    # 8.6, 8.7
    Case(
        "8.7",
        "after a malformed request the others go on",
        "idle",
        headers(1, (METHOD,)) + headers(3),
        ("rejected 1 PROTOCOL_ERROR", "request 3 GET end"),
        ("RST_STREAM 1 PROTOCOL_ERROR",),
    ),
    # 10.5.1: the size of a head
    Case(
        "10.5.1",
        "a header list over the limit is to be answered",
        "idle",
        headers(1, (*GET, (b"a", b"x" * 4000))),
        ("too large 1 end",),
    ),
    # RFC 9218
    Case(
        "RFC 9218 7.1",
        "PRIORITY_UPDATE of an open stream",
        "open",
        priority_update(1, b"u=1, i"),
        ("priority 1 u=1 i",),
    ),
    Case("RFC 9218 7.1", "PRIORITY_UPDATE of an idle stream is kept", "idle", priority_update(1, b"u=1")),
    Case("RFC 9218 7.1", "PRIORITY_UPDATE of a closed stream", "closed (ended)", priority_update(1, b"u=1")),
    fatal(
        "RFC 9218 7.1", "PRIORITY_UPDATE on a stream", "open", frame(PRIORITY_UPDATE, 0, 1, number(1)), "PROTOCOL_ERROR"
    ),
    fatal("RFC 9218 7.1", "PRIORITY_UPDATE of stream 0", "open", priority_update(0, b"u=1"), "PROTOCOL_ERROR"),
    fatal("RFC 9218 7.1", "PRIORITY_UPDATE of a push", "open", priority_update(2, b"u=1"), "PROTOCOL_ERROR"),
    fatal(
        "RFC 9218 7.1", "PRIORITY_UPDATE that is cut", "open", frame(PRIORITY_UPDATE, 0, 0, b"123"), "FRAME_SIZE_ERROR"
    ),
    fatal(
        "RFC 9218 7.1",
        "PRIORITY_UPDATE of more idle streams than may be open",
        "idle",
        b"".join(priority_update(stream, b"i") for stream in range(1, 203, 2)),
        "PROTOCOL_ERROR",
    ),
]
