"""Content negotiation (RFC 9110 section 12): what Accept-Encoding and Accept ask for. Pure.

The codings known here are those that a sibling file can have: `file.br`, `file.zst`, `file.gz` beside `file`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

# In the order of preference where the client has none: the smaller result first.
SIBLING_EXTENSION = {b"br": b".br", b"zstd": b".zst", b"gzip": b".gz"}

_SERVER_ORDER = {coding: position for position, coding in enumerate(SIBLING_EXTENSION)}

# RFC 9110 sections 5.6.6 and 12.4.2. Weights are read as thousandths, so that comparing them is exact.
_WEIGHTED = re.compile(
    rb"(?P<name>[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:/[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?)"
    rb"(?:[ \t]*;[ \t]*(?!q=)[!#$%&'*+\-.^_`|~0-9A-Za-z]+=[^;]*)*"
    rb"(?:[ \t]*;[ \t]*q=(?P<weight>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?",
    re.IGNORECASE,
)
_FULL_WEIGHT = 1000

# Browsers send two or three different values; a client cannot make more than this many stay.
_REMEMBERED = 256


class Codings(NamedTuple):
    """`wanted`: the sibling codings to try, best first; `identity`: whether the file as it is may be sent."""

    wanted: tuple[bytes, ...]
    identity: bool


@lru_cache(maxsize=_REMEMBERED)
def acceptable_codings(accept_encoding_untrusted: bytes) -> Codings:
    """What an Accept-Encoding value wants (RFC 9110 12.5.3). Elements that are malformed are left out.

    A coding is wanted unless its weight is 0 or below that of an `identity` that the client named. A client that sends
    no Accept-Encoding at all takes anything (12.5.3, rule 1); it gets the file as it is, which everything understands.
    """
    weights = _weights(accept_encoding_untrusted)
    if b"x-gzip" in weights:  # RFC 9110 section 8.4.1.3
        weights.setdefault(b"gzip", weights[b"x-gzip"])
    others = weights.get(b"*")
    identity = weights.get(b"identity", others)
    wanted = []
    for coding in SIBLING_EXTENSION:
        weight = weights.get(coding, others) or 0
        if weight > 0 and (identity is None or weight >= identity):
            wanted.append((-weight, _SERVER_ORDER[coding], coding))
    return Codings(tuple(coding for _, _, coding in sorted(wanted)), identity != 0)


@lru_cache(maxsize=_REMEMBERED)
def prefers_json(accept_untrusted: bytes) -> bool:
    """Whether an Accept value (RFC 9110 12.5.1) puts `application/json` before `text/html`; a tie means HTML."""
    weights = _weights(accept_untrusted)
    any_type = weights.get(b"*/*", 0)
    json = weights.get(b"application/json", weights.get(b"application/*", any_type))
    html = weights.get(b"text/html", weights.get(b"text/*", any_type))
    return json > html


def accepts_html(accept_untrusted: bytes | None) -> bool:
    """Whether the client names `text/html`: a browser that navigates does, a script that fetches data does not."""
    return accept_untrusted is not None and b"text/html" in accept_untrusted.lower()


def _weights(value_untrusted: bytes) -> dict[bytes, int]:
    weights = {}
    for element in value_untrusted.split(b","):
        match = _WEIGHTED.fullmatch(element.strip(b" \t"))
        if match is not None:
            weight = match["weight"]
            weights[match["name"].lower()] = _FULL_WEIGHT if weight is None else round(float(weight) * 1000)
    return weights
