"""The two rules that name files by a glob: `GLOB=VALUE` for Cache-Control and `GLOB=Name: value` for other headers.

The globs are those of `files/rules.py`. Checked when read, so that what reaches a response can never split its head
(RFC 9110 section 5.5).
"""

from __future__ import annotations

import re
from typing import NamedTuple

_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIELD_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?")

# Written by the server from what it knows of the response; a second one would contradict it or break the framing.
_OWN_FIELDS = frozenset(
    (
        *("connection", "transfer-encoding", "upgrade"),
        *("accept-ranges", "content-encoding", "content-length", "content-range", "date", "etag", "last-modified"),
    )
)


def field_value(text: str) -> str:
    """The text without surrounding spaces, if it may stand in a header field (visible ASCII, spaces, tabs).

    Raises ValueError, whose message ends a sentence that names the option.
    """
    stripped = text.strip(" \t")
    if not _FIELD_VALUE.fullmatch(stripped):
        raise ValueError("a header value is visible ASCII, not empty, without line breaks")
    return stripped


def _split_rule(text: str) -> tuple[str, str]:
    glob, equals, rest = text.partition("=")
    if not equals or not glob.strip():
        raise ValueError("a rule begins with a glob and an equals sign, as in '*.html='")
    return glob.strip(), rest


class CacheRule(NamedTuple):
    """`value` is the Cache-Control of every file whose path under the folder matches `glob`."""

    glob: str
    value: str

    @classmethod
    def parse(cls, text: str) -> CacheRule:
        """From `GLOB=VALUE`. Raises ValueError."""
        glob, value = _split_rule(text)
        return cls(glob, field_value(value))


class HeaderRule(NamedTuple):
    """Every response for a file whose path under the folder matches `glob` carries the field `name: value`."""

    glob: str
    name: str
    value: str

    @classmethod
    def parse(cls, text: str) -> HeaderRule:
        """From `GLOB=Name: value`. Raises ValueError, also for a field that the server writes itself."""
        glob, field = _split_rule(text)
        name, colon, value = field.partition(":")
        name = name.strip()
        if not colon or not _FIELD_NAME.fullmatch(name):
            raise ValueError("after the glob comes a header, as in '*.wasm=X-Name: value'")
        if name.lower() in _OWN_FIELDS:
            raise ValueError(f"the server writes {name} itself")
        return cls(glob, name, field_value(value))
