"""The request target (RFC 9112 section 3.2) as the decoded path of a file. Pure.

A `Target` that comes out of here is canonical: its path begins with exactly one slash, holds no empty, `.` or `..`
segment, no NUL, and no slash that was percent-encoded. So it can neither climb out of a folder by itself nor begin with
the `//` that a browser would take for another host's name in a redirect. The file system has the last word on symlinks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..errors import BadRequest
from .host import is_valid_host

# RFC 9112 section 3 wants at least 8000 octets for the request line; Apache's LimitRequestLine is 8190.
MAX_TARGET_BYTES = 8190

# Targets that come again and again are short; so what a client can make stay is below half a megabyte.
_REMEMBERED_BYTES = 256

# Visible ASCII without "#": a fragment never leaves the client (RFC 9110 section 4.2.5). More than RFC 3986 allows,
# since browsers send "|", "^", "[" and some others as they are.
_TARGET_BYTES = bytes(byte for byte in range(0x21, 0x7F) if byte != ord("#"))

_HEX_DIGITS = b"0123456789abcdefABCDEF"
_DECODED = {bytes((high, low)): bytes((int(bytes((high, low)), 16),)) for high in _HEX_DIGITS for low in _HEX_DIGITS}

# RFC 3986 section 2.3, and the slash between the segments
_UNENCODED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/"
_ENCODED = [bytes((byte,)) if byte in _UNENCODED else b"%%%02X" % byte for byte in range(256)]


class Target(NamedTuple):
    """`path` is decoded and canonical, or `*`; `query` is what followed the first `?`, as it came, None without one."""

    path: bytes
    query: bytes | None


def parse_target(target_untrusted: bytes) -> Target:
    """Takes origin-form, absolute-form or asterisk-form; any authority is accepted, since the site has only one folder.

    Raises `BadRequest`: 414 for one that is too long, 404 for an encoded slash (no file has such a name), 400 for the
    rest. None of them puts the framing in doubt, so the connection can go on.
    """
    if len(target_untrusted) <= _REMEMBERED_BYTES:
        return _parse_remembered(target_untrusted)
    return _parse(target_untrusted)


def encode_path(path: bytes) -> bytes:
    """The path as it may stand in a Location field or a link: ASCII, everything unusual percent-encoded."""
    if not path.translate(None, _UNENCODED):
        return path
    return b"".join([_ENCODED[byte] for byte in path])


def _parse(target_untrusted: bytes) -> Target:
    if len(target_untrusted) > MAX_TARGET_BYTES:
        raise BadRequest(414, f"The request target is longer than {MAX_TARGET_BYTES} bytes.", close=False)
    if target_untrusted.translate(None, _TARGET_BYTES):
        raise BadRequest(400, "The request target holds a byte that is not allowed there.", close=False)
    if target_untrusted == b"*":
        return Target(b"*", None)
    if not target_untrusted.startswith(b"/"):
        target_untrusted = _origin_of_absolute(target_untrusted)
    path, question_mark, query = target_untrusted.partition(b"?")
    if b"%" in path:
        path = _decode_path(path)
    if b"//" in path or b"/." in path:
        path = _canonical(path)
    return Target(path, query if question_mark else None)


_parse_remembered = lru_cache(maxsize=512)(_parse)


def _origin_of_absolute(target_untrusted: bytes) -> bytes:
    """The origin-form of an absolute-form target (RFC 9112 3.2.2); authority-form belongs to CONNECT only (3.2.3)."""
    scheme, separator, rest = target_untrusted.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise BadRequest(400, "The request target is neither a path nor an http or https URI.", close=False)
    authority_end = min(index for index in (rest.find(b"/"), rest.find(b"?"), len(rest)) if index >= 0)
    if authority_end == 0:
        raise BadRequest(400, "The request target names no host.", close=False)
    if not is_valid_host(rest[:authority_end]):
        # RFC 9110 4.2.4: no user information either.
        raise BadRequest(400, "The request target's host is not valid.", close=False)
    origin = rest[authority_end:]
    return origin if origin.startswith(b"/") else b"/" + origin


def _decode_path(path_untrusted: bytes) -> bytes:
    first, *escaped = path_untrusted.split(b"%")
    pieces = [first]
    for piece in escaped:
        byte = _DECODED.get(piece[:2])
        if byte is None:
            raise BadRequest(
                400, "The request target holds a % that two hexadecimal digits do not follow.", close=False
            )
        if byte == b"\0":
            raise BadRequest(400, "The request target holds a NUL.", close=False)
        if byte == b"/":
            raise BadRequest(404, "No file has a slash in its name.", close=False)
        pieces.append(byte)
        pieces.append(piece[2:])
    return b"".join(pieces)


def _canonical(path: bytes) -> bytes:
    """Drops empty and `.` segments, as nginx does; refuses `..`, which a client resolves itself (RFC 3986 5.2.4)."""
    segments = path.split(b"/")
    if b".." in segments:
        raise BadRequest(400, "The request target climbs with a .. segment.", close=False)
    kept = [segment for segment in segments if segment not in (b"", b".")]
    ends_in_folder = segments[-1] in (b"", b".")
    return b"/" + b"/".join(kept) + (b"/" if kept and ends_in_folder else b"")
