"""From bytes to a `Request`, parsed by h11.

A head that was judged once is not judged again: `RememberedHeads` knows what h11 made of it.

One `RequestParser` a connection. h11 decides what a request is; this module gives it one request at a time, keeps what was
sent after it (pipelining), and says for each violation which status answers it (RFC 9112). h11's half that writes
responses is not used: a static response head needs no state machine, so each request gets a parser of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple, TypeVar

import h11

from ..errors import BadRequest
from ..semantics.messages import Headers, Request

MAX_BODY_BYTES: Final = 65536
"""A body is read and dropped up to this size, so that the connection can go on (a static site has no use for any);
past it the answer is 413. nginx, which has uses for one, stops at 1 MiB."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

MAX_FIELDS: Final = 200
"""Fields of one head, each of which costs as much as many bytes. Apache stops at 100; proxies that add fields stay below."""

MAX_BODY_WIRE_BYTES: Final = 2 * MAX_BODY_BYTES
"""A body with its framing: chunks of some bytes and their extensions cost more than what they carry."""

_FRAMING_FIELDS: Final = frozenset((b"connection", b"content-length", b"transfer-encoding"))


_MAX_LENGTH_DIGITS: Final = 20
"""Of a Content-Length: with so many it is past any limit, and Python would refuse to convert thousands."""

_BODY_TOO_LARGE: Final = f"a request's body may have {MAX_BODY_BYTES} bytes here"

_END_OF_HEAD: Final = b"\r\n\r\n"
_END_OF_LINE: Final = b"\r\n"

_SECRET_FIELDS: Final = frozenset((b"authorization", b"proxy-authorization", b"cookie"))
"""Blocks with one of these are judged each time, so that no secret stays in memory."""


class _Block(NamedTuple):
    """What h11 found in a block of fields, for a version of HTTP."""

    headers: Headers
    keep_alive: bool
    joined: dict[bytes, bytes]


class RememberedHeads:
    """What was found out about the heads of requests that came before, by their exact bytes.

    Whole heads, and apart from each other request lines and blocks of fields: a browser sends the same block with many
    targets. Kept is only what says nothing about a body, holds no secret, and has no line that ends in a bare LF, so
    that a head is cut where h11 would cut it. Least recently used goes first.
    """

    MAX_HEADS: Final = 512
    MAX_LINES: Final = 1024
    MAX_BLOCKS: Final = 256
    MAX_HEAD_BYTES: Final = 2048
    MAX_FIELDS: Final = 40
    """Together some 8 MiB at most, where clients do their worst. Browsers send 300 to 900 bytes, in up to 20 fields."""

    def __init__(self) -> None:
        self._heads: OrderedDict[bytes, Request] = OrderedDict()
        self._lines: OrderedDict[bytes, tuple[bytes, bytes, bytes]] = OrderedDict()
        self._blocks: OrderedDict[tuple[bytes, bytes], _Block] = OrderedDict()

    def whole(self, data_untrusted: bytes) -> Request | None:
        """The request, where `data_untrusted` is one whole head that came before, and nothing else."""
        request = self._heads.get(data_untrusted)
        if request is not None:
            self._heads.move_to_end(data_untrusted)
        return request

    def split(self, data_untrusted: bytes, max_head_bytes: int) -> tuple[Request, int] | None:
        """The request at the start of `data_untrusted` and the size of its head, where line and block came before."""
        end = data_untrusted.find(_END_OF_HEAD)
        if end < 0 or end + len(_END_OF_HEAD) > min(max_head_bytes, self.MAX_HEAD_BYTES):
            return None
        line_end = data_untrusted.find(_END_OF_LINE)
        line, fields = data_untrusted[:line_end], data_untrusted[line_end:end]
        found = self._lines.get(line)
        if found is None:
            if (b"1.1", fields) not in self._blocks:
                return None
            found = _judge_line(line)
            if found is None:
                return None
            _keep(self._lines, line, found, self.MAX_LINES)
        method, target, version = found
        block = self._blocks.get((version, fields))
        if block is None:
            return None
        self._lines.move_to_end(line)
        self._blocks.move_to_end((version, fields))
        request = Request(method, target, version, block.headers, block.keep_alive, block.joined)
        size = end + len(_END_OF_HEAD)
        _keep(self._heads, data_untrusted[:size], request, self.MAX_HEADS)
        return request, size

    def remember(self, head_untrusted: bytes, request: Request) -> None:
        """Keep what h11 made of a whole head, which has no body."""
        if len(head_untrusted) > self.MAX_HEAD_BYTES or not head_untrusted.endswith(_END_OF_HEAD):
            return
        lines = head_untrusted.count(_END_OF_LINE)
        if head_untrusted.count(b"\n") != lines or head_untrusted.count(b"\r") != lines:
            return
        fields = request.fields_untrusted
        if len(request.headers_untrusted) > self.MAX_FIELDS:
            return
        if not _SECRET_FIELDS.isdisjoint(fields):
            return
        line_end = head_untrusted.find(_END_OF_LINE)
        block = head_untrusted[line_end : -len(_END_OF_HEAD)]
        _keep(
            self._lines,
            head_untrusted[:line_end],
            (request.method, request.target, request.version),
            self.MAX_LINES,
        )
        found = _Block(request.headers_untrusted, request.keep_alive, fields)
        _keep(self._blocks, (request.version, block), found, self.MAX_BLOCKS)


def _judge_line(line_untrusted: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Method, target and version of a request line, by h11; None for a line that is worth a look at the whole head.

    h11 judges a line by itself: what stands in the fields does not change it.
    """
    if b"\n" in line_untrusted or b"\r" in line_untrusted:
        return None
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(line_untrusted + b"\r\nHost: a\r\n\r\n")
    try:
        event = parser.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Request) or event.http_version not in (b"1.1", b"1.0"):
        return None
    return event.method, event.target, event.http_version


def _keep(remembered: OrderedDict[_Key, _Value], key: _Key, value: _Value, at_most: int) -> None:
    remembered[key] = value
    if len(remembered) > at_most:
        remembered.popitem(last=False)


_remembered = RememberedHeads()
"""Of this process: what one client sent is the same when another sends it."""


class RequestParser:
    """Cuts one connection's byte stream into requests. `max_head_bytes` bounds the request line and the fields together."""

    __slots__ = (
        "_body_bytes",
        "_body_wire_bytes",
        "_content_length",
        "_head_untrusted",
        "_max_head_bytes",
        "_parser",
        "_received",
        "_rest",
    )

    def __init__(self, max_head_bytes: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._parser: h11.Connection | None = None
        self._rest = b""
        self._head_untrusted = b""
        self._received = 0
        self._body_bytes = self._body_wire_bytes = self._content_length = 0

    @property
    def idle(self) -> bool:
        """True where no byte of a next request is here yet."""
        return self._parser is None and not self._rest

    def next_request(self, data_untrusted: bytes) -> Request | None:
        """Take what came, return the next request head, or None where more bytes are needed.

        `skip_body` has to follow, until it says that the end was seen.

        Raises BadRequest (400, 431, 501 or 505; RFC 9112 sections 3, 5 and 6).
        """
        parser = self._parser
        if parser is None:
            if self._rest:
                data_untrusted, self._rest = self._rest + data_untrusted, b""
            request = _remembered.whole(data_untrusted)
            if request is not None and len(data_untrusted) <= self._max_head_bytes:
                return request
            found = _remembered.split(data_untrusted, self._max_head_bytes)
            if found is not None:
                request, size = found
                self._rest = data_untrusted[size:]
                return request
            if data_untrusted[:1] in (b"\r", b"\n"):
                # RFC 9112 2.2: an empty line before a request line is ignored. One request's worth of them is enough.
                data_untrusted = data_untrusted.lstrip(b"\r\n")
            if not data_untrusted:
                return None
            self._head_untrusted = data_untrusted
            parser = self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=self._max_head_bytes)
            self._received = self._body_bytes = self._body_wire_bytes = self._content_length = 0
        elif data_untrusted:
            # It came in pieces, as few heads do.
            self._head_untrusted = b""
        if data_untrusted:
            self._received += len(data_untrusted)
            parser.receive_data(data_untrusted)
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError as error:
            raise _bad_request(error) from None
        if event is h11.NEED_DATA:
            return None
        assert isinstance(event, h11.Request)
        return self._checked(parser, event)

    def _checked(self, parser: h11.Connection, event: h11.Request) -> Request:
        version = event.http_version
        if version not in (b"1.1", b"1.0"):
            if not version.startswith(b"1."):
                raise BadRequest(505, "this server speaks HTTP/1.1 and HTTP/1.0")
            version = b"1.1"  # RFC 9110 section 2.5: a higher minor version is read as the highest one known
        if (
            self._received > self._max_head_bytes
            and self._received - len(parser.trailing_data[0]) > self._max_head_bytes
        ):
            raise BadRequest(431, "the request line and header fields are too large")
        headers = [(name.lower(), value) for name, value in event.headers.raw_items()]
        if len(headers) > MAX_FIELDS:
            raise BadRequest(431, f"a request may have {MAX_FIELDS} header fields here")
        content_length = transfer_encoding = False
        connection_options: set[bytes] = set()
        for name, value in headers:
            if name not in _FRAMING_FIELDS:
                continue
            if name == b"content-length":
                content_length = True
                self._content_length = int(value[:_MAX_LENGTH_DIGITS])
            elif name == b"transfer-encoding":
                transfer_encoding = True
            else:
                connection_options.update(option.strip() for option in value.lower().split(b","))
        if transfer_encoding and (content_length or version == b"1.0"):
            # RFC 9112 6.1 and 6.3: two ways to find the end of one message are how requests are smuggled.
            raise BadRequest(400, "Transfer-Encoding together with Content-Length or HTTP/1.0")
        # RFC 9112 section 9.3: `close` wins over `keep-alive`, in whichever field it stands.
        wants_to_stay = version == b"1.1" or b"keep-alive" in connection_options
        keep_alive = wants_to_stay and b"close" not in connection_options
        request = Request(event.method, event.target, version, headers, keep_alive)
        if not content_length and not transfer_encoding:
            # RFC 9112 6.3: no body. What is left belongs to the next request, and h11 need not be asked.
            self._end_request(parser)
            head_untrusted = self._head_untrusted
            if head_untrusted and version == event.http_version:
                _remembered.remember(head_untrusted[: len(head_untrusted) - len(self._rest)], request)
        self._head_untrusted = b""
        return request

    def _end_request(self, parser: h11.Connection) -> None:
        self._rest = bytes(parser.trailing_data[0])
        self._parser = None

    def skip_body(self, data_untrusted: bytes) -> bool:
        """Drop the body of the request in hand; True once its end was seen, False where more bytes are needed.

        Raises BadRequest (400 for broken framing, 413 past `MAX_BODY_BYTES`).
        """
        parser = self._parser
        if parser is None:
            return True
        if self._content_length > MAX_BODY_BYTES:
            raise BadRequest(413, _BODY_TOO_LARGE)
        if data_untrusted:
            self._body_wire_bytes += len(data_untrusted)
            if self._body_wire_bytes > MAX_BODY_WIRE_BYTES:
                raise BadRequest(413, _BODY_TOO_LARGE)
            parser.receive_data(data_untrusted)
        while True:
            try:
                event = parser.next_event()
            except h11.RemoteProtocolError as error:
                raise _bad_request(error) from None
            if event is h11.NEED_DATA:
                return False
            if isinstance(event, h11.EndOfMessage):
                self._end_request(parser)
                return True
            if isinstance(event, h11.Data):
                self._body_bytes += len(event.data)
                if self._body_bytes > MAX_BODY_BYTES:
                    raise BadRequest(413, _BODY_TOO_LARGE)


def _bad_request(error: h11.RemoteProtocolError) -> BadRequest:
    """h11 hints at the status; its message may quote the peer's bytes, so it goes nowhere."""
    status = error.error_status_hint
    if status == 431:
        return BadRequest(431, "the request line and header fields are too large")
    if status == 501:
        return BadRequest(501, "this transfer coding is not understood")
    return BadRequest(400, "the request is not valid HTTP/1.1")
