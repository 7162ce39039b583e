"""Request in, response out: the pipeline of one answer, from a folder. Synchronous; knows no socket.

`Site.respond` goes through these steps, numbered in the code:

1. the Host field and the method (RFC 9112 3.2, RFC 9110 9)
2. the target as a path (`semantics/target.py`)
3. the path as a file or folder inside the root (`files/resolve.py`)
4. the representation: the file or a precompressed sibling (`semantics/negotiation.py`)
5. preconditions (`semantics/conditionals.py`)
6. ranges (`semantics/ranges.py`)

A simple GET that was answered before is answered from memory while that is proved to be true (`remembered.py`).

What always holds: a `Response` comes back, whatever the request; the descriptor in it is the only one left open.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path

from ..errors import BadRequest, FileUnavailable
from ..semantics.conditionals import CONDITIONAL_FIELDS, Verdict, evaluate, range_applies
from ..semantics.host import is_valid_host
from ..semantics.messages import BodyPart, FileSlice, Headers, Request, Response, field_lines
from ..semantics.negotiation import SIBLING_EXTENSION, Codings, acceptable_codings, accepts_html, prefers_json
from ..semantics.ranges import ByteRange, content_range, multipart, parse_ranges
from ..semantics.target import Target, encode_path, parse_target
from .content_types import content_type_of
from .listing import CONTENT_SECURITY_POLICY, JSON, Order, as_html, as_json, order_of_query, read_entries
from .pages import EXPLANATIONS, HTML, error_page
from .remembered import SMALL_BYTES, Answers, Key
from .representation import Representation, describe
from .resolve import Found, Root
from .rules import DEFAULT_CACHE_CONTROL, Rules

_logger = logging.getLogger(__name__)

ALLOWED_METHODS = b"GET, HEAD, OPTIONS"

# The IANA method registry, as far as a client may try it on a file server. Known, and not allowed here: 405; others:
# 501.
_KNOWN_METHODS = frozenset(
    b"CONNECT COPY DELETE LOCK MKCOL MOVE PATCH POST PROPFIND PROPPATCH PUT QUERY REPORT SEARCH TRACE UNLOCK".split()
)

# RFC 9110 section 15.4.5: what a 304 repeats of the 200 that it stands for (the connection adds Date).
_NOT_MODIFIED_FIELDS = frozenset((b"cache-control", b"content-location", b"etag", b"expires", b"vary"))

# What a listing says of itself, whatever the rules say of its path.
_LISTING_FIELDS = frozenset((b"cache-control", b"content-security-policy", b"content-type", b"etag"))

_IDENTITY_ONLY = Codings((), True)

_KEY_FIELDS = (b"host", b"accept-encoding", b"if-none-match")
_COMPLICATING_FIELDS = frozenset((b"range", b"if-range", b"if-match", b"if-modified-since", b"if-unmodified-since"))
_MAX_KEY_FIELD_BYTES = 256
_REMEMBERED_STATUSES = (200, 304)

# A listing shows sizes and times of files, which change without the folder: none is given out that is older.
_LISTING_SECONDS = 1.0
_MAX_LISTINGS = 16
_LARGE_FOLDER = 500
_LISTING_BYTES = 16 * 1024 * 1024

# Requests that were seen once. When the set is full all are forgotten, so that it costs nothing to keep.
_MAX_ASKED = 4096
_WELL_KNOWN = b"/.well-known/"  # RFC 8615
_CHALLENGE = b'Basic realm="ktls_server", charset="UTF-8"'  # RFC 7617

Fields = dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class SiteOptions:
    """What is served and how. `cache_control` is (glob, value), `headers` (glob, name, value); see `files/rules.py`.

    `elsewhere` runs a function on another thread: large folders are listed there. Without it they are listed at once.
    """

    root: Path
    index: tuple[str, ...] = ("index.html",)
    listing: bool = False
    hidden_files: bool = False
    spa: bool = False
    cache_control: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str, str], ...] = ()
    hsts: str | None = None
    csp: str | None = None
    cors: str | None = None
    precompressed: bool = True
    elsewhere: Callable[[Callable[[], object]], Awaitable[object]] | None = None


class _ListingTakesLong(Exception):
    """The answer, a listing, should be made by `make`, elsewhere."""

    def __init__(self, make: Callable[[], Response]) -> None:
        super().__init__()
        self.make = make


class Site:
    """One folder, served. Keeps one descriptor, that of the root, until `close()`."""

    def __init__(self, options: SiteOptions) -> None:
        """Raises OSError where the root is no folder that can be opened."""
        self._options = options
        self._index = tuple(os.fsencode(name) for name in options.index)
        self._rules = Rules(
            cache_control=options.cache_control,
            headers=options.headers,
            hsts=options.hsts,
            csp=options.csp,
            cors=options.cors,
        )
        self._root = Root(options.root)
        self._answers = Answers(self._root)
        self._asked: set[Key] = set()
        self._listings_lock = threading.Lock()
        self._listings: dict[tuple[bytes, Order, bool], tuple[tuple[int, ...], float, bytes, bytes]] = {}

    def close(self) -> None:
        """Give the root's descriptor back."""
        self._root.close()

    def handle(self, request: Request, _client: object = None) -> Response | Awaitable[Response]:
        """The answer to a request, or an awaitable of it where a large folder has to be listed first."""
        key = request.answer_key
        if key is None:
            key = request.answer_key = _key_of(request)
        remembered = self._answers.get(key)  # type: ignore[arg-type]
        if remembered is not None:
            return remembered
        try:
            return self._answer(request, may_wait=True)
        except _ListingTakesLong as listing:
            return self._respond_after(request, listing.make)

    def respond(self, request: Request) -> Response:
        """The answer to a request, however long it takes. Never raises for anything that is in the request.

        The receiver closes the response.
        """
        key = request.answer_key
        if key is None:
            key = request.answer_key = _key_of(request)
        remembered = self._answers.get(key)  # type: ignore[arg-type]
        return self._answer(request, may_wait=False) if remembered is None else remembered

    async def _respond_after(self, request: Request, make: Callable[[], Response]) -> Response:
        """What the other thread made is the answer, also where the folder has changed meanwhile: it is made there, once."""
        assert self._options.elsewhere is not None
        try:
            response = await self._options.elsewhere(make)
            assert isinstance(response, Response)
            return response
        except Exception as error:
            return self._refusal(error, request)

    def _answer(self, request: Request, *, may_wait: bool) -> Response:
        try:
            return self._respond(request, request.answer_key or None, may_wait)  # type: ignore[arg-type]
        except _ListingTakesLong:
            raise
        except Exception as error:
            return self._refusal(error, request)

    def _refusal(self, error: Exception, request: Request) -> Response:
        if isinstance(error, BadRequest):
            return self.error(error.status, error.explanation, close=error.close, request=request)
        if isinstance(error, FileUnavailable):
            return self.error(error.status, EXPLANATIONS[error.status], close=False, request=request)
        _log_unexpected(error)
        return self.error(500, EXPLANATIONS[500], close=False, request=request)

    def error(self, status: int, explanation: str, *, close: bool, request: Request | None = None) -> Response:
        """The answer that says what went wrong, as the folder's own `404.html` (403, 500, ...) or a built-in page.

        Without a request (its head could not be read) nobody knows who asks for what, so the folder is left alone.
        """
        wants_html = False
        head_only = False
        if request is not None:
            accept = request.header_list(b"accept")
            wants_html = accepts_html(accept)
            head_only = request.method == b"HEAD"
            if request.method in (b"GET", b"HEAD") and (wants_html or accept is None or b"*/*" in accept):
                page = self._own_page(status, head_only=head_only, close=close)
                if page is not None:
                    return page
        content_type, body = error_page(status, explanation, as_html=wants_html)
        return Response(
            status,
            [*self._error_fields(status), (b"Content-Type", content_type)],
            () if head_only else (body,),
            len(body),
            close_connection=close,
        )

    def _respond(self, request: Request, key: Key | None, may_wait: bool) -> Response:
        fields = request.fields_untrusted
        # 1. the Host field and the method
        host = fields.get(b"host")
        if host is None:
            if request.version != b"1.0":
                raise BadRequest(400, "HTTP/1.1 requests need a Host field.")
        elif not is_valid_host(host):
            raise BadRequest(400, "The Host field names no host.")
        method = request.method
        if method not in (b"GET", b"HEAD"):
            return self._other_method(request, fields)
        # 2. the target as a path
        target = parse_target(request.target)
        path = target.path
        if path == b"*":
            raise BadRequest(400, "Only OPTIONS can ask about the server as a whole.", close=False)
        if b"/." in path and not self._options.hidden_files and _is_hidden(path):
            raise FileUnavailable(404)
        # 3. the path as a file or folder
        try:
            if path.endswith(b"/"):
                return self._respond_folder(request, fields, target, key, may_wait)
            found = self._root.find(path[1:])
        except FileUnavailable as refusal:
            if refusal.status == 404 and self._options.spa and accepts_html(fields.get(b"accept")):
                return self._respond_index(request, fields, b"/", None)
            raise
        if stat.S_ISDIR(found.stat.st_mode):
            os.close(found.fd)
            return self._redirect_to_folder(target)
        return self._respond_file(request, fields, path, found, key)

    def _other_method(self, request: Request, fields: Fields) -> Response:
        if request.method == b"OPTIONS":
            parse_target(request.target)
            headers = self._rules.preflight(fields) or list(self._rules.everywhere)
            return Response(204, [*headers, (b"Allow", ALLOWED_METHODS)], content_length=None)
        if request.method not in _KNOWN_METHODS:
            raise BadRequest(501, "This server does not know the request's method.", close=False)
        raise BadRequest(405, "Files can be asked for, not changed: GET, HEAD and OPTIONS only.", close=False)

    def _respond_folder(
        self, request: Request, fields: Fields, target: Target, key: Key | None, may_wait: bool
    ) -> Response:
        try:
            return self._respond_index(request, fields, target.path, key)
        except FileUnavailable as refusal:
            if refusal.status != 404 or not self._options.listing:
                raise
        return self._respond_listing(request, fields, target, may_wait)

    def _respond_index(self, request: Request, fields: Fields, folder: bytes, key: Key | None) -> Response:
        """The first index file that the folder has. Raises `FileUnavailable`."""
        for name in self._index:
            path = folder + name
            found = self._root.find_file(path[1:])
            if found is not None:
                return self._respond_file(request, fields, path, found, key)
            key = None  # A better index file may appear: that is more than a proof can say.
        raise FileUnavailable(404)

    def _respond_listing(self, request: Request, fields: Fields, target: Target, may_wait: bool) -> Response:
        """What the folder holds, as HTML or JSON. Raises `FileUnavailable` and `_ListingTakesLong`."""
        as_data = prefers_json(fields.get(b"accept", b""))
        made = self._listing(target, as_data=as_data, may_wait=may_wait)
        if made is None:
            raise _ListingTakesLong(partial(self._respond_listing, request, fields, target, may_wait=False))
        content_type, body = made
        etag = b'"%s"' % hashlib.blake2b(body, digest_size=16).hexdigest().encode("ascii")
        own = self._rules.for_path(target.path).fields
        headers = [field for field in own if field[0].lower() not in _LISTING_FIELDS]
        headers += [
            (b"Content-Type", content_type),
            (b"Content-Security-Policy", CONTENT_SECURITY_POLICY),
            (b"Cache-Control", DEFAULT_CACHE_CONTROL),
            (b"ETag", etag),
            (b"Vary", b"Accept"),
        ]
        response = self._preconditions(fields, headers, etag, None)
        if response is not None:
            return response
        return Response(200, headers, (body,) if request.method == b"GET" else (), len(body))

    def _listing(self, target: Target, *, as_data: bool, may_wait: bool) -> tuple[bytes, bytes] | None:
        """Content type and body. Made anew when the folder has changed, and after a second: files in it may have grown.

        However often a large folder is asked for, by GET or HEAD, its listing is made once a second at most. Runs on the
        event loop's thread and, for large folders, on another one: None where it should be made there. Raises
        `FileUnavailable`.
        """
        order = order_of_query(target.query)
        found = self._root.find(target.path[1:])
        try:
            status = found.stat
            state = status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns
            key = target.path, order, as_data
            made = self._listings.get(key)
            now = time.monotonic()
            if made is not None and made[0] == state and now - made[1] < _LISTING_SECONDS:
                return made[2], made[3]
            if may_wait and self._options.elsewhere is not None and self._is_large(found):
                return None
            entries = read_entries(self._root, found, target.path, hidden=self._options.hidden_files)
        finally:
            os.close(found.fd)
        if as_data:
            content_type, body = JSON, as_json(target.path, entries, order)
        else:
            content_type, body = HTML, as_html(target.path, entries, order)
        with self._listings_lock:
            self._listings.pop(key, None)
            self._listings[key] = state, now, content_type, body
            while len(self._listings) > 1 and (
                len(self._listings) > _MAX_LISTINGS
                or sum(len(each[3]) for each in self._listings.values()) > _LISTING_BYTES
            ):
                del self._listings[next(iter(self._listings))]
        return content_type, body

    def _is_large(self, found: Found) -> bool:
        """Whether to list a folder takes more than some milliseconds."""
        fd = self._root.open_folder(found)
        try:
            with os.scandir(fd) as scan:
                return any(count > _LARGE_FOLDER for count, _ in enumerate(scan))
        finally:
            os.close(fd)

    def _redirect_to_folder(self, target: Target) -> Response:
        """So that relative links in the folder's page work. Same origin, always: the path begins with one slash."""
        location = encode_path(target.path) + b"/"
        if target.query is not None:
            location += b"?" + target.query
        headers = [*self._rules.everywhere, (b"Cache-Control", DEFAULT_CACHE_CONTROL), (b"Location", location)]
        return Response(301, headers)

    def _respond_file(
        self, request: Request, fields: Fields, path: bytes, found: Found, key: Key | None = None
    ) -> Response:
        """Takes `found` over, descriptor and all. `key` is what the answer is remembered by, if it can be proved."""
        # 4. the representation
        content_type, compressible = content_type_of(path)
        varies = compressible and self._options.precompressed
        codings = _IDENTITY_ONLY
        accept_encoding = fields.get(b"accept-encoding")
        if accept_encoding is not None:
            codings = acceptable_codings(accept_encoding)
        sibling = self._open_sibling(codings, path, found) if varies and codings.wanted else None
        if sibling is not None:
            coding, fd, status = sibling
        elif codings.identity:
            coding, fd, status = None, self._root.open_file(found, path[1:]), found.stat
        else:
            os.close(found.fd)
            raise BadRequest(406, "No form of this file is in a coding that the request accepts.", close=False)
        try:
            representation = describe(status, content_type, coding, varies)
            response = self._respond_representation(request, fields, path, representation, fd, status.st_size)
        except BaseException:
            os.close(fd)
            raise
        if key is not None and response.fd < 0 and response.status in _REMEMBERED_STATUSES:
            preferred = codings.wanted if varies else ()
            self._remember(key, response, path, found.stat, preferred, None if coding is None else (coding, status))
        return response

    def _remember(
        self,
        key: Key,
        response: Response,
        path: bytes,
        original: os.stat_result,
        preferred: tuple[bytes, ...],
        sibling: tuple[bytes, os.stat_result] | None,
    ) -> None:
        """Keep the answer once it is asked for a second time, if every state of its files can be told from the next.

        `preferred` are the codings that the client would rather have, `sibling` is the one that it gets and its file.
        """
        if not self._asked_before(key):
            return
        absent = []
        files = [(path[1:], original)]
        for coding in preferred:
            sibling_path = path[1:] + SIBLING_EXTENSION[coding]
            if sibling is not None and coding == sibling[0]:
                files.append((sibling_path, sibling[1]))
                break
            absent.append(sibling_path)
        proof = self._root.proof(files, tuple(absent))
        if proof is not None and self._answers.is_settled(proof):
            if response.status == HTTPStatus.OK:
                response.prepared = field_lines(response)
            self._answers.remember(key, response, proof)

    def _asked_before(self, key: Key) -> bool:
        """Whether this was asked for lately. What is asked for once is not worth remembering."""
        if key in self._asked:
            return True
        if len(self._asked) >= _MAX_ASKED:
            self._asked.clear()
        self._asked.add(key)
        return False

    def _open_sibling(self, codings: Codings, path: bytes, original: Found) -> tuple[bytes, int, os.stat_result] | None:
        """The best sibling that can be read and is no older than the original, which is closed then; else None."""
        for coding in codings.wanted:
            sibling_path = path[1:] + SIBLING_EXTENSION[coding]
            if not self._root.seems_to_hold(sibling_path):
                continue
            with suppress(FileUnavailable):
                sibling = self._root.find_file(sibling_path)
                if sibling is None:
                    continue
                if not stat.S_ISREG(original.stat.st_mode) or sibling.stat.st_mtime_ns < original.stat.st_mtime_ns:
                    os.close(sibling.fd)
                    continue
                fd = self._root.open_file(sibling, sibling_path)
                os.close(original.fd)
                return coding, fd, sibling.stat
        return None

    def _respond_representation(
        self, request: Request, fields: Fields, path: bytes, representation: Representation, fd: int, size: int
    ) -> Response:
        """Takes `fd` over unless it raises."""
        own, replaces = self._rules.for_path(path)
        headers = [*representation.fields, *own]
        if replaces:
            headers = [*(field for field in representation.fields if field[0].lower() not in replaces), *own]
        # 5. preconditions
        not_modified = self._preconditions(fields, headers, representation.etag, representation.last_modified)
        if not_modified is not None:
            os.close(fd)
            return not_modified
        if request.method == b"HEAD":
            os.close(fd)
            return Response(200, headers, (), size)
        # 6. ranges
        range_field = fields.get(b"range")
        if range_field is not None:
            if_range = fields.get(b"if-range")
            if if_range is None or range_applies(
                if_range, representation.etag, representation.last_modified, time.time()
            ):
                ranges = parse_ranges(range_field, size)
                if ranges is not None:
                    return self._respond_ranges(request, ranges, headers, fd, size)
        if size <= SMALL_BYTES:
            # With its head it goes out in one call, and nothing stays open.
            try:
                content = os.pread(fd, size, 0)
            except OSError as error:
                _logger.error("%r could not be read: %s", path, error.strerror)
                raise FileUnavailable(500) from error
            if len(content) == size and os.fstat(fd).st_size == size:
                os.close(fd)
                return Response(200, headers, (content,) if size else (), size)
        return Response(200, headers, (FileSlice(fd, 0, size),), size, fd)

    def _preconditions(
        self, fields: Fields, headers: Headers, etag: bytes, last_modified: int | None
    ) -> Response | None:
        """The 304 for a response with those headers, where the request earns one. Raises `BadRequest` for a 412."""
        if CONDITIONAL_FIELDS.isdisjoint(fields):
            return None
        verdict = evaluate(fields, etag, last_modified)
        if verdict is Verdict.FAILED:
            raise BadRequest(412, "The file is not in the state that the request expects.", close=False)
        if verdict is Verdict.PROCEED:
            return None
        kept = [field for field in headers if field[0].lower() in _NOT_MODIFIED_FIELDS]
        return Response(304, kept, content_length=None)

    def _respond_ranges(
        self, request: Request, ranges: list[ByteRange], headers: Headers, fd: int, size: int
    ) -> Response:
        """206, or 416 where no range can be satisfied. Takes `fd` over unless it raises."""
        if not ranges:
            response = self.error(416, "The file has no such range.", close=False, request=request)
            os.close(fd)
            response.headers.append((b"Content-Range", b"bytes */%d" % size))
            return response
        if len(ranges) == 1:
            (only,) = ranges
            headers.append((b"Content-Range", content_range(only, size)))
            return Response(206, headers, (FileSlice(fd, only.offset, only.size),), only.size, fd)
        content_type = next((value for name, value in headers if name.lower() == b"content-type"), b"")
        form = multipart(ranges, size, content_type)
        body: list[BodyPart] = []
        for head, (offset, count) in form.parts:
            body += (head, FileSlice(fd, offset, count))
        body.append(form.tail)
        headers = [field for field in headers if field[0].lower() != b"content-type"]
        headers.append((b"Content-Type", form.content_type))
        return Response(206, headers, tuple(body), form.length, fd)

    def _own_page(self, status: int, *, head_only: bool, close: bool) -> Response | None:
        """The folder's page for a status, None where it has none that can be read."""
        name = b"%d.html" % status
        try:
            found = self._root.find_file(name)
            if found is None:
                return None
            fd = self._root.open_file(found, name)
        except Exception:  # whatever is wrong with the folder's page, the built-in one still tells the client
            return None
        size = found.stat.st_size
        headers = [*self._error_fields(status), (b"Content-Type", content_type_of(name).value)]
        if head_only or not size:
            os.close(fd)
            return Response(status, headers, (), size, close_connection=close)
        return Response(status, headers, (FileSlice(fd, 0, size),), size, fd, close)

    def _error_fields(self, status: int) -> Headers:
        headers = [*self._rules.everywhere, (b"Cache-Control", DEFAULT_CACHE_CONTROL)]
        if status == 401:
            headers.append((b"WWW-Authenticate", _CHALLENGE))
        elif status == 405:
            headers.append((b"Allow", ALLOWED_METHODS))
        elif status == 503:
            headers.append((b"Retry-After", b"1"))
        return headers


def _key_of(request: Request) -> Key:
    """All that the answer to a simple GET can depend on, beside the files; () where there is more, or it is long."""
    if request.method != b"GET":
        return ()
    fields = request.fields_untrusted
    if not _COMPLICATING_FIELDS.isdisjoint(fields) or len(request.target) > _MAX_KEY_FIELD_BYTES:
        return ()
    host, accept_encoding, if_none_match = map(fields.get, _KEY_FIELDS)
    for value in (host, accept_encoding, if_none_match):
        if value is not None and len(value) > _MAX_KEY_FIELD_BYTES:
            return ()
    return request.target, request.version, host, accept_encoding, if_none_match


def _is_hidden(path: bytes) -> bool:
    """Whether a name on the way begins with a dot; `/.well-known/` does not count, what is hidden in it does."""
    return b"/." in (path[len(_WELL_KNOWN) - 1 :] if path.startswith(_WELL_KNOWN) else path)


def _log_unexpected(error: Exception) -> None:
    """Where it happened and the errno, without the exception's text: that may quote the request."""
    frames = " <- ".join(
        f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}"
        for frame in reversed(traceback.extract_tb(error.__traceback__))
    )
    name = type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        name = f"{name} {errno.errorcode.get(error.errno, error.errno)}"
    _logger.error("a request was answered with 500: %s at %s", name, frames)
