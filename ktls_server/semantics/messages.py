"""The two values that pass between the connection and the site: `Request` in, `Response` out.

Neither knows of TLS, sockets or asyncio. A body is a sequence of parts, each either bytes or a slice of an open file, so
that a multipart answer or a range goes out by sendfile without anybody above the transport touching the file's bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TypeAlias

Headers: TypeAlias = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Request:
    """One request head, parsed and checked for framing. Header names are lower case (RFC 9110 section 5.1)."""

    method: bytes
    target: bytes
    version: bytes
    headers_untrusted: Headers
    keep_alive: bool = True

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
    """

    status: int
    headers: Headers = field(default_factory=list)
    body: tuple[BodyPart, ...] = ()
    content_length: int | None = 0
    fd: int = -1
    close_connection: bool = False

    def close(self) -> None:
        """Close the file, once."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
