"""What is said of one file in a response: its validators and representation fields (RFC 9110 section 8).

The entity tag is strong. It holds the inode, the size, and the times of the last change of content and of inode: a file
that is replaced, rewritten in place, or given its old modification time back gets another one. The price is that two
machines that serve copies of one folder give different tags. A representation in another coding is another file, and so
has its own tag without more ado.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache
from typing import NamedTuple

from ..semantics.dates import format_http_date

_NANOSECONDS = 1_000_000_000


class Representation(NamedTuple):
    """`fields` are those that describe this file, whatever part of it is sent; `last_modified` is in epoch seconds."""

    etag: bytes
    last_modified: int
    content_type: bytes
    fields: tuple[tuple[bytes, bytes], ...]


def describe(status: os.stat_result, content_type: bytes, coding: bytes | None, varies: bool) -> Representation:
    """Takes the file's `fstat`, type and coding, and whether Accept-Encoding could have chosen another."""
    modified = status.st_mtime_ns // _NANOSECONDS
    now = int(time.time())
    if modified > now:  # RFC 9110 section 8.8.2.1: never later than the message's own date
        modified = now
    elif modified < 0:
        modified = 0
    return _describe(
        status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, modified, content_type, coding, varies
    )


# About 1 KiB each. Files that many clients ask for stay; the rest costs two microseconds more.
@lru_cache(maxsize=1024)
def _describe(
    inode: int,
    size: int,
    modified_ns: int,
    changed_ns: int,
    modified: int,
    content_type: bytes,
    coding: bytes | None,
    varies: bool,
) -> Representation:
    etag = b'"%x-%x-%x-%x"' % (inode, size, modified_ns & (2**64 - 1), changed_ns & (2**64 - 1))
    fields = [
        (b"Content-Type", content_type),
        (b"Last-Modified", format_http_date(modified)),
        (b"ETag", etag),
        (b"Accept-Ranges", b"bytes"),
    ]
    if coding is not None:
        fields.append((b"Content-Encoding", coding))
    if varies:
        fields.append((b"Vary", b"Accept-Encoding"))
    return Representation(etag, modified, content_type, tuple(fields))
