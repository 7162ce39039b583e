"""Range requests (RFC 9110 section 14): a field value and a length to the parts to send. Pure.

Against range floods (section 17.15): more than `MAX_RANGES` ranges are not heeded, and ranges that overlap or touch are
sent as one (section 15.3.7.2), so that no answer holds a byte of the file twice.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

# Each part costs a head of some 150 bytes and a sendfile call of its own. Apache stops at 200 (MaxRanges); PDF readers,
# the only clients known to ask for many, stay below 64.
MAX_RANGES = 64

_RANGE_SPEC = re.compile(rb"(?P<first>[0-9]*)-(?P<last>[0-9]*)")

# Longer numbers than a file offset can be (2^63 has 19 digits) mean "past the end", whatever they are exactly. Python
# would refuse to convert more than 4300 digits.
_MAX_DIGITS = 19
_PAST_ANY_END = 10**_MAX_DIGITS


class ByteRange(NamedTuple):
    """`size` bytes from `offset`, at least one."""

    offset: int
    size: int


class MultipartPart(NamedTuple):
    """One part of a `multipart/byteranges` body: the bytes before the range, then the range."""

    head: bytes
    range: ByteRange


class Multipart(NamedTuple):
    """A whole `multipart/byteranges` body (RFC 9110 section 14.6)."""

    content_type: bytes
    parts: list[MultipartPart]
    tail: bytes
    length: int


def parse_ranges(value_untrusted: bytes, length: int) -> list[ByteRange] | None:
    """The parts of a representation of `length` bytes that a Range field asks for, in the order asked.

    None: the field is malformed, of another unit, or asks too much, and is ignored, as 14.2 lets a server do. An empty
    list: nothing of it can be satisfied (416).
    """
    unit, equals, range_set = value_untrusted.partition(b"=")
    if not equals or unit.lower() != b"bytes":
        return None
    # RFC 9110 section 5.6.1.2: empty list elements are ignored.
    specs = [spec for spec in (element.strip(b" \t") for element in range_set.split(b",")) if spec]
    if not specs or len(specs) > MAX_RANGES:
        return None
    ranges = []
    for spec in specs:
        match = _RANGE_SPEC.fullmatch(spec)
        if match is None or spec == b"-":
            return None
        first, last = match["first"], match["last"]
        if first and last and _number(last) < _number(first):
            return None
        if length == 0 and not first and _number(last) > 0:
            # Satisfiable by 14.1.2, but Content-Range has no way to say "nothing of 0": send the empty whole.
            return None
        satisfiable = _satisfy(first, last, length)
        if satisfiable is not None:
            ranges.append(satisfiable)
    return _coalesce(ranges) if len(ranges) > 1 else ranges


def content_range(part: ByteRange, length: int) -> bytes:
    """The value of a Content-Range field (RFC 9110 section 14.4)."""
    return b"bytes %d-%d/%d" % (part.offset, part.offset + part.size - 1, length)


def multipart(ranges: list[ByteRange], length: int, content_type: bytes) -> Multipart:
    """The `multipart/byteranges` body of those ranges of a representation with that length and type.

    The boundary is 128 random bits, so nobody can prepare a file that holds it.
    """
    boundary = os.urandom(16).hex().encode("ascii")
    parts = []
    separator = b"--"
    for part in ranges:
        head = b"%s%s\r\nContent-Type: %s\r\nContent-Range: %s\r\n\r\n" % (
            separator,
            boundary,
            content_type,
            content_range(part, length),
        )
        parts.append(MultipartPart(head, part))
        separator = b"\r\n--"
    tail = b"\r\n--%s--\r\n" % boundary
    total = sum(len(part.head) + part.range.size for part in parts) + len(tail)
    return Multipart(b"multipart/byteranges; boundary=" + boundary, parts, tail, total)


def _number(digits: bytes) -> int:
    significant = digits.lstrip(b"0")
    return int(significant or b"0") if len(significant) <= _MAX_DIGITS else _PAST_ANY_END


def _satisfy(first: bytes, last: bytes, length: int) -> ByteRange | None:
    """RFC 9110 14.1.2; None for a range that does not overlap the representation."""
    if not first:
        count = min(_number(last), length)
        return ByteRange(length - count, count) if count else None
    offset = _number(first)
    if offset >= length:
        return None
    end = min(_number(last) + 1, length) if last else length
    return ByteRange(offset, end - offset)


def _coalesce(ranges: list[ByteRange]) -> list[ByteRange]:
    """Joins what overlaps or touches; each result stands where the first of its members stood."""
    joined: list[tuple[int, int, int]] = []  # position in the request, offset, end
    for offset, count, position in sorted((offset, count, position) for position, (offset, count) in enumerate(ranges)):
        if joined and offset <= joined[-1][2]:
            first_position, first_offset, end = joined[-1]
            joined[-1] = (min(first_position, position), first_offset, max(end, offset + count))
        else:
            joined.append((position, offset, offset + count))
    return [ByteRange(offset, end - offset) for _, offset, end in sorted(joined)]
