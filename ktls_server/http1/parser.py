"""From bytes to a `Request`, parsed by h11.

One `RequestParser` a connection. h11 decides what a request is; this module gives it one request at a time, keeps what was
sent after it (pipelining), and says for each violation which status answers it (RFC 9112). h11's half that writes
responses is not used: a static response head needs no state machine, so each request gets a parser of its own.
"""

from __future__ import annotations

from typing import Final

import h11

from ..errors import BadRequest
from ..semantics.messages import Request

MAX_BODY_BYTES: Final = 65536
"""A body is read and dropped up to this size, so that the connection can go on (a static site has no use for any);
past it the answer is 413. nginx, which has uses for one, stops at 1 MiB."""

_FRAMING_FIELDS: Final = frozenset((b"connection", b"content-length", b"transfer-encoding"))


class RequestParser:
    """Cuts one connection's byte stream into requests. `max_head_bytes` bounds the request line and the fields together."""

    __slots__ = ("_body_bytes", "_max_head_bytes", "_parser", "_received", "_rest")

    def __init__(self, max_head_bytes: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._parser: h11.Connection | None = None
        self._rest = b""
        self._received = 0
        self._body_bytes = 0

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
            data_untrusted = self._rest + data_untrusted if self._rest else data_untrusted
            if data_untrusted[:1] in (b"\r", b"\n"):
                # RFC 9112 2.2: an empty line before a request line is ignored. One request's worth of them is enough.
                data_untrusted = data_untrusted.lstrip(b"\r\n")
            self._rest = b""
            if not data_untrusted:
                return None
            parser = self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=self._max_head_bytes)
            self._received = self._body_bytes = 0
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
        content_length = transfer_encoding = False
        keep_alive = version == b"1.1"
        for name, value in headers:
            if name not in _FRAMING_FIELDS:
                continue
            if name == b"content-length":
                content_length = True
            elif name == b"transfer-encoding":
                transfer_encoding = True
            else:
                keep_alive = _keeps_alive(value, keep_alive)
        if transfer_encoding and (content_length or version == b"1.0"):
            # RFC 9112 6.1 and 6.3: two ways to find the end of one message are how requests are smuggled.
            raise BadRequest(400, "Transfer-Encoding together with Content-Length or HTTP/1.0")
        if not content_length and not transfer_encoding:
            # RFC 9112 6.3: no body. What is left belongs to the next request, and h11 need not be asked.
            self._end_request(parser)
        return Request(event.method, event.target, version, headers, keep_alive)

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
        if data_untrusted:
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
                    raise BadRequest(413, f"a request's body may have {MAX_BODY_BYTES} bytes here")


def _keeps_alive(connection_untrusted: bytes, so_far: bool) -> bool:
    """What a Connection field says of the connection's life (RFC 9112 section 9.3): `close` wins over `keep-alive`."""
    options = [option.strip() for option in connection_untrusted.lower().split(b",")]
    if b"close" in options:
        return False
    return so_far or b"keep-alive" in options


def _bad_request(error: h11.RemoteProtocolError) -> BadRequest:
    """h11 hints at the status; its message may quote the peer's bytes, so it goes nowhere."""
    status = error.error_status_hint
    if status == 431:
        return BadRequest(431, "the request line and header fields are too large")
    if status == 501:
        return BadRequest(501, "this transfer coding is not understood")
    return BadRequest(400, "the request is not valid HTTP/1.1")
