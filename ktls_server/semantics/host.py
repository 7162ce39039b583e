"""The Host field (RFC 9112 section 3.2): one and valid in HTTP/1.1. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

# RFC 9110 7.2 and RFC 3986 3.2.2: uri-host [ ":" port ]. A host may be empty where the target's authority is.
_REG_NAME = rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*"
_IP_LITERAL = rb"\[[0-9A-Za-z:.\-_~!$&'()*+,;=]+\]"
_HOST = re.compile(rb"(?:" + _REG_NAME + rb"|" + _IP_LITERAL + rb")(?::[0-9]*)?")


# A server has few names; what clients make up is bounded.
@lru_cache(maxsize=256)
def is_valid_host(value_untrusted: bytes) -> bool:
    """Whether the value could name a host and a port; which host it is does not matter to a static folder."""
    return _HOST.fullmatch(value_untrusted) is not None
