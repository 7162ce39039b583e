"""Conditional requests (RFC 9110 section 13), evaluated in the order of section 13.2.2. Pure.

What is malformed never makes a precondition true that the client needs for its safety: a broken If-Match or
If-None-Match matches nothing, a broken date is ignored (13.1.3, 13.1.4).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from .dates import parse_http_date

CONDITIONAL_FIELDS = frozenset((b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"))

_STRONG_DATE_SECONDS = 2
"""The second of the last change, and one for clocks of file servers that are not quite ours."""

# RFC 9110 section 8.8.3: entity-tag = [ weak ] opaque-tag
_ENTITY_TAG = rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_ENTITY_TAG_LIST = re.compile(rb"[ \t,]*" + _ENTITY_TAG + rb"(?:[ \t]*,[ \t,]*" + _ENTITY_TAG + rb")*[ \t,]*")
_EACH_ENTITY_TAG = re.compile(_ENTITY_TAG)


class Verdict(Enum):
    """What the preconditions of a GET or HEAD come to; the value is the status, 200 meaning that it goes on."""

    PROCEED = 200
    NOT_MODIFIED = 304
    FAILED = 412


def evaluate(fields_untrusted: Mapping[bytes, bytes], etag: bytes, last_modified: int | None) -> Verdict:
    """For a GET or HEAD of a representation that exists, with its strong `etag` and `last_modified` in epoch seconds.

    Without a modification date the two conditions on it are ignored (RFC 9110 13.1.3, 13.1.4).
    `fields_untrusted` has lower-case names; fields that came more than once are joined by commas.
    """
    if_match = fields_untrusted.get(b"if-match")
    if if_match is not None:
        if not _matches(if_match, etag, weak=False):
            return Verdict.FAILED
    elif b"if-unmodified-since" in fields_untrusted:
        date = parse_http_date(fields_untrusted[b"if-unmodified-since"])
        if date is not None and last_modified is not None and last_modified > date:
            return Verdict.FAILED
    if_none_match = fields_untrusted.get(b"if-none-match")
    if if_none_match is not None:
        if _matches(if_none_match, etag, weak=True):
            return Verdict.NOT_MODIFIED
    elif b"if-modified-since" in fields_untrusted:
        date = parse_http_date(fields_untrusted[b"if-modified-since"])
        if date is not None and last_modified is not None and last_modified <= date:
            return Verdict.NOT_MODIFIED
    return Verdict.PROCEED


def range_applies(if_range_untrusted: bytes, etag: bytes, last_modified: int, now: float) -> bool:
    """Whether a Range beside this If-Range (RFC 9110 13.1.5) is to be heeded: strong comparison, or the exact date.

    `now` is in epoch seconds. A date is a strong validator only once the second that it names is over: the file could change
    again within that second (RFC 9110 8.8.2.2).
    """
    if if_range_untrusted.endswith(b'"'):
        return if_range_untrusted == etag
    return parse_http_date(if_range_untrusted) == last_modified and now >= last_modified + _STRONG_DATE_SECONDS


def _matches(list_untrusted: bytes, etag: bytes, *, weak: bool) -> bool:
    """RFC 9110 8.8.3.2: our tag is strong, so weak comparison differs only in also taking `W/` before the same tag."""
    if list_untrusted in (etag, b"*"):
        return True
    if not _ENTITY_TAG_LIST.fullmatch(list_untrusted):
        return False
    tags = _EACH_ENTITY_TAG.findall(list_untrusted)
    return etag in tags or (weak and b"W/" + etag in tags)
