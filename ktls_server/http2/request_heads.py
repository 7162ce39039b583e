"""From decoded fields to a `Request` (RFC 9113 sections 8.1 to 8.3 and 8.5), and what makes a request malformed.

A malformed request is a stream error PROTOCOL_ERROR (section 8.1.1): a `StreamFault`. What comes out is the `Request` that
HTTP/1.1 makes as well: its target is `:path`, its Host field is `:authority`, its cookies are one field.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..semantics.messages import Request
from .faults import ErrorCode, StreamFault
from .header_blocks import CONNECTION_SPECIFIC_FIELDS, Field
from .priorities import DEFAULT, Priority, parse_priority

VERSION: Final = b"2.0"
"""`Request.version`: with HTTP/ before it, what access logs write (nginx, Apache)."""

# Names and values in turn, with a NUL between them. Names are tokens (RFC 9110 section 5.1) without upper case; values have
# no white space at their ends, and no CR, LF and NUL (RFC 9113 section 8.2.1); h11 excludes these other three bytes too.
_FIELDS = re.compile(rb"(?>:?[!#$%&'*+\-.^_`|~0-9a-z]++\0(?![\t ])[^\0\n\v\f\r\x7f]*+(?<![\t ])(?:\0|\Z))*+")
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*")
_DIGITS = re.compile(rb"[0-9]{1,18}")

_PSEUDO_FIELDS: Final = frozenset((b":method", b":scheme", b":authority", b":path"))
_FIELDS_WITH_RULES: Final = CONNECTION_SPECIFIC_FIELDS | {b"cookie", b"host", b"te", b"content-length", b"priority"}
_COLON: Final = ord(":")
_DEFAULT_PORTS: Final = {b"https": b":443", b"http": b":80"}


@dataclass(slots=True)
class RequestHead:
    """What HEADERS said. Nobody changes one: it may stand for many requests whose fields were the same.

    `content_length` is in bytes, None where the client gave none. `scheme` is empty for CONNECT.
    """

    request: Request
    scheme: bytes
    content_length: int | None
    priority: Priority


def _malformed(label: str) -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, label)


def _check_fields(fields_untrusted: Sequence[Field]) -> None:
    """Whether names and values have only bytes that they may have: all of them at once, which is cheap."""
    parts = [part for field in fields_untrusted for part in field]
    joined = b"\0".join(parts)
    if joined.count(b"\0") != max(0, len(parts) - 1) or _FIELDS.fullmatch(joined) is None:
        raise _malformed("field")


def parse_request(fields_untrusted: Sequence[Field]) -> RequestHead:
    """Check and convert the fields of a request. Raises StreamFault for a malformed one."""
    _check_fields(fields_untrusted)
    pseudo: dict[bytes, bytes] = {}
    headers: list[Field] = []
    cookies: list[bytes] = []
    host: bytes | None = None
    content_length: int | None = None
    priorities: list[bytes] = []
    is_behind_pseudo_fields = False
    for field in fields_untrusted:
        name, value = field
        if name[0] == _COLON:
            if is_behind_pseudo_fields or name in pseudo or name not in _PSEUDO_FIELDS:
                raise _malformed("pseudo-header field")
            pseudo[name] = value
            continue
        is_behind_pseudo_fields = True
        if name in _FIELDS_WITH_RULES:
            if name == b"cookie":
                cookies.append(value)
                continue
            if name == b"host":
                if host is not None:
                    raise _malformed("host")
                host = value
                continue
            if name == b"content-length":
                if content_length is not None or _DIGITS.fullmatch(value) is None:
                    raise _malformed("content-length")
                content_length = int(value)
            elif name == b"priority":
                priorities.append(value)
            elif name != b"te":
                raise _malformed("connection-specific field")
            elif value.lower() != b"trailers":
                raise _malformed("te")
        headers.append(field)
    method, scheme, target, authority = _check_pseudo_fields(pseudo, host)
    if cookies:
        headers.append((b"cookie", b"; ".join(cookies)))  # section 8.2.3
    if authority is not None:
        headers.insert(0, (b"host", authority))
    return RequestHead(
        Request(method, target, VERSION, headers),
        scheme,
        content_length,
        parse_priority(b", ".join(priorities)) if priorities else DEFAULT,
    )


def _check_pseudo_fields(
    pseudo_untrusted: dict[bytes, bytes], host_untrusted: bytes | None
) -> tuple[bytes, bytes, bytes, bytes | None]:
    """Method, scheme, target and authority (section 8.3.1; for CONNECT, section 8.5)."""
    method = pseudo_untrusted.get(b":method", b"")
    if _METHOD.fullmatch(method) is None:
        raise _malformed("method")
    scheme, target = pseudo_untrusted.get(b":scheme"), pseudo_untrusted.get(b":path")
    authority = pseudo_untrusted.get(b":authority")
    if authority is not None and b"@" in authority:
        raise _malformed("authority")
    if method == b"CONNECT":
        if scheme is not None or target is not None or not authority:
            raise _malformed("connect")
        scheme, target = b"", authority
    else:
        if scheme is None or _SCHEME.fullmatch(scheme) is None:
            raise _malformed("scheme")
        if not target or (target[:1] != b"/" and (method != b"OPTIONS" or target != b"*")):
            raise _malformed("path")
    if authority is None:
        authority = host_untrusted
    elif host_untrusted is not None and _names(authority, scheme) != _names(host_untrusted, scheme):
        raise _malformed("host")
    return method, scheme, target, authority


def _names(authority: bytes, scheme: bytes) -> bytes:
    """An authority as it is compared: without case and without the default port."""
    return authority.lower().removesuffix(_DEFAULT_PORTS.get(scheme, b":"))


def check_trailers(fields_untrusted: Sequence[Field]) -> None:
    """Trailers have no pseudo-header fields (section 8.1). Raises StreamFault for malformed ones."""
    _check_fields(fields_untrusted)
    for name, _ in fields_untrusted:
        if name[0] == _COLON:
            raise _malformed("pseudo-header field")
        if name in CONNECTION_SPECIFIC_FIELDS:
            raise _malformed("connection-specific field")


class RememberedRequests:
    """What `parse_request` made of fields that came before, on any connection. Least recently used goes first.

    So one `Request` object stands for all requests with the same fields, and what others keep with it serves them all.
    """

    MAX_REQUESTS: Final = 512
    MAX_LIST_BYTES: Final = 2048
    """Together some 2 MiB at most."""

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        self._heads: OrderedDict[tuple[Field, ...], RequestHead] = OrderedDict()

    def parse(self, fields_untrusted: Sequence[Field]) -> RequestHead:
        """As `parse_request`. Only for fields without a secret, of MAX_LIST_BYTES at most."""
        key = tuple(fields_untrusted)
        head = self._heads.get(key)
        if head is None:
            head = self._heads[key] = parse_request(key)
            if len(self._heads) > self.MAX_REQUESTS:
                self._heads.popitem(last=False)
        else:
            self._heads.move_to_end(key)
        return head
