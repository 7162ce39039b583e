"""The two values that pass between the connection and the site: `Request` in, `Response` out.

Neither knows of TLS, sockets or asyncio. A body is a sequence of parts, each either bytes or a slice of an open file, so
that a multipart answer or a range goes out by sendfile without anybody above the transport touching the file's bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TypeAlias

Headers: TypeAlias = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Request:
    """One request head, parsed and checked for framing. Header names are lower case (RFC 9110 section 5.1).

    Nobody changes one: the same object may stand for many requests whose bytes were the same.
    """

    method: bytes
    target: bytes
    version: bytes
    headers_untrusted: Headers
    keep_alive: bool = True
    _fields_untrusted: dict[bytes, bytes] | None = field(default=None, repr=False, compare=False)
    answer_key: object = field(default=None, repr=False, compare=False)
    """Whoever answers may keep here what it found out about this very head, for the next time that it comes."""

    @property
    def fields_untrusted(self) -> dict[bytes, bytes]:
        """The fields by name; those that came more than once are joined with a comma (RFC 9110 section 5.3).

        Two Host fields (RFC 9112 section 3.2) make one that is not valid.
        """
        fields = self._fields_untrusted
        if fields is None:
            fields = {}
            for name, value in self.headers_untrusted:
                fields[name] = fields[name] + b", " + value if name in fields else value
            self._fields_untrusted = fields
        return fields

    def header(self, name: bytes) -> bytes | None:
        """The first field of that (lower-case) name, or None."""
        for candidate, value in self.headers_untrusted:
            if candidate == name:
                return value
        return None

    def header_list(self, name: bytes) -> bytes | None:
        """All fields of that name joined with a comma (RFC 9110 section 5.3), or None where there is none."""
        values = [value for candidate, value in self.headers_untrusted if candidate == name]
        return b", ".join(values) if values else None


@dataclass(frozen=True, slots=True)
class FileSlice:
    """`count` bytes from `offset` of an open file; the descriptor belongs to the `Response`."""

    fd: int
    offset: int
    count: int


BodyPart: TypeAlias = bytes | FileSlice


@dataclass(slots=True)
class Response:
    """A status, headers and a body. Owns `fd`, the file that its slices read from, until `close()`.

    `content_length` None means that a Content-Length must not be sent (1xx, 204, 304). For HEAD and 304 the body is
    empty while `content_length` keeps what a GET would have had (304: None). The connection adds Date, Server and Connection.

    `prepared` holds the lines of `headers` and the Content-Length as HTTP/1.1 writes them, where somebody made them
    beforehand; such a response may be given out many times, so nobody changes it.
    """

    status: int
    headers: Headers = field(default_factory=list)
    body: tuple[BodyPart, ...] = ()
    content_length: int | None = 0
    fd: int = -1
    close_connection: bool = False
    prepared: bytes | None = None

    def close(self) -> None:
        """Close the file, once."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def field_lines(response: Response) -> bytes:
    """The lines of a response's own fields and of its Content-Length, each with its end."""
    lines = [b"%b: %b\r\n" % field for field in response.headers]
    if response.content_length is not None:
        lines.append(b"Content-Length: %d\r\n" % response.content_length)
    return b"".join(lines)
