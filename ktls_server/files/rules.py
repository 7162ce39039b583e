"""Which extra fields a path's responses carry: Cache-Control and headers by glob, security headers, CORS.

A glob without a slash is tried on the last name (`*.html` matches `a/b.html`), one with a slash on the whole path under
the root. `*` and `?` stay within one name, `**` crosses folders (`assets/**`, `**/drafts/*`); everything else is
literal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

Field: TypeAlias = tuple[bytes, bytes]

# "Keep it, and ask before each use": with a strong ETag that costs a round trip and a 304 without content, and nobody
# ever sees a stale page. Names that carry their content's hash deserve a rule such as "assets/**=max-age=31536000,
# immutable".
DEFAULT_CACHE_CONTROL = b"no-cache"

# What a page of another origin may read of a response, and send with a request, beyond what Fetch always lets it.
_CORS_EXPOSED = b"Accept-Ranges, Content-Encoding, Content-Length, Content-Range, ETag"
_CORS_ALLOWED = b"If-Match, If-Modified-Since, If-None-Match, If-Range, If-Unmodified-Since, Range"
_CORS_METHODS = b"GET, HEAD"
# Chromium keeps a preflight's answer two hours at the most, whatever is said here.
_CORS_MAX_AGE = b"7200"

# Paths of existing files and folders only, so the size of the served tree is the other bound.
_REMEMBERED_PATHS = 1024

_GLOB_TOKEN = re.compile(r"(?P<any_folders>(?<![^/])\*\*/)|(?P<anything>\*\*)|(?P<star>\*)|(?P<question>\?)")
_TOKEN_PATTERN = {"any_folders": "(?:.*/)?", "anything": ".*", "star": "[^/]*", "question": "[^/]"}


class PathFields(NamedTuple):
    """`fields` to add to those of the file itself, and the lower-case names of what they replace there."""

    fields: tuple[Field, ...]
    replaces: frozenset[bytes]


class Rules:
    """The rules of one site, compiled once."""

    def __init__(
        self,
        *,
        cache_control: Iterable[tuple[str, str]] = (),
        headers: Iterable[tuple[str, str, str]] = (),
        hsts: str | None = None,
        csp: str | None = None,
        cors: str | None = None,
    ) -> None:
        """Names and values are the operator's, checked by the settings for what would split a response head."""
        self._cache_control = [(compile_glob(glob), value.encode("latin-1")) for glob, value in cache_control]
        self._headers = [
            (compile_glob(glob), name.encode("ascii"), value.encode("latin-1")) for glob, name, value in headers
        ]
        self._cors_origin = None if cors is None else cors.encode("ascii")
        self.everywhere = self._fields_of_every_response(hsts, csp)
        self._default = PathFields((*self.everywhere, (b"Cache-Control", DEFAULT_CACHE_CONTROL)), frozenset())
        self._for_path = lru_cache(maxsize=_REMEMBERED_PATHS)(self._match)
        self._has_rules = bool(self._cache_control or self._headers)

    def for_path(self, path: bytes) -> PathFields:
        """The fields for a file or folder that exists at the canonical `path`."""
        return self._for_path(path) if self._has_rules else self._default

    def preflight(self, fields_untrusted: dict[bytes, bytes]) -> list[Field] | None:
        """The fields that answer a CORS preflight (Fetch standard, "CORS-preflight request"), None where it is none."""
        asked = b"origin" in fields_untrusted and b"access-control-request-method" in fields_untrusted
        if self._cors_origin is None or not asked:
            return None
        return [
            *self.everywhere,
            (b"Access-Control-Allow-Methods", _CORS_METHODS),
            (b"Access-Control-Allow-Headers", _CORS_ALLOWED),
            (b"Access-Control-Max-Age", _CORS_MAX_AGE),
        ]

    def _fields_of_every_response(self, hsts: str | None, csp: str | None) -> tuple[Field, ...]:
        fields = [(b"X-Content-Type-Options", b"nosniff")]
        if hsts is not None:
            fields.append((b"Strict-Transport-Security", hsts.encode("ascii")))
        if csp is not None:
            fields.append((b"Content-Security-Policy", csp.encode("ascii")))
        if self._cors_origin is not None:
            # Always the same origin, whoever asks, so the response does not vary by Origin.
            fields.append((b"Access-Control-Allow-Origin", self._cors_origin))
            fields.append((b"Access-Control-Expose-Headers", _CORS_EXPOSED))
        return tuple(fields)

    def _match(self, path: bytes) -> PathFields:
        relative = path[1:].decode("utf-8", "surrogateescape")
        own = [(name, value) for pattern, name, value in self._headers if pattern.fullmatch(relative)]
        # Vary may come more than once and adds up; of everything else the operator's word is the only one.
        replaces = frozenset(name.lower() for name, _ in own) - {b"vary"}
        cache_control = next(
            (value for pattern, value in self._cache_control if pattern.fullmatch(relative)), DEFAULT_CACHE_CONTROL
        )
        general = [
            field for field in (*self.everywhere, (b"Cache-Control", cache_control)) if field[0].lower() not in replaces
        ]
        return PathFields((*general, *own), replaces)


def compile_glob(glob: str) -> re.Pattern[str]:
    """A pattern for `fullmatch` on a path relative to the root, without its leading slash."""
    relative = glob.removeprefix("/")
    if "/" not in glob and glob != "**":
        relative = "**/" + relative
    pieces = []
    literal_from = 0
    for token in _GLOB_TOKEN.finditer(relative):
        pieces.append(re.escape(relative[literal_from : token.start()]))
        pieces.append(_TOKEN_PATTERN[token.lastgroup or ""])
        literal_from = token.end()
    pieces.append(re.escape(relative[literal_from:]))
    return re.compile("".join(pieces), re.DOTALL)
