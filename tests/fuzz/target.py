"""What must hold of the way from bytes to answers, whatever the bytes are: `RequestPath.check` raises where it does not.

The way is the one that a connection takes (`connection.py`): `RequestParser`, `Site.respond`, `HeadWriter`, without the
socket. What holds:

- no exception but `BadRequest`, and no answer with status 500;
- every head is one that another implementation (h11's client) reads, and its body has the length that it says;
- no byte from outside the folder, nor of a hidden file;
- no descriptor is left open;
- how the bytes are cut into pieces makes no difference.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h11

from ktls_server.errors import BadRequest
from ktls_server.files.site import Site, SiteOptions
from ktls_server.http1.heads import HeadWriter
from ktls_server.http1.parser import RequestParser
from ktls_server.operation.redirect import redirect
from ktls_server.semantics.messages import FileSlice, Request, Response
from tests.files.cases import CASES, SECRET, SITES, make_folder
from tests.server.conversation import head_of_request
from tests.server.test_framing import TABLE

FUZZED_SITES = ("plain", "listing", "ruled", "application")
"""Those of `SITES` that keep hidden files to themselves."""
CANARIES = (SECRET, b"SECRET=", b"[core]", b"root:x:")
"""What stands in secret.txt beside the folder, in the hidden files, and in /etc/passwd."""
MAX_HEAD_BYTES = 2048
"""Small, so that inputs reach it."""
PIECES = (1, 7, 64)

_VISIBLE_ASCII = bytes(range(0x21, 0x7F))


def seeds() -> list[bytes]:
    """The requests of the suite's tables, each in the form that `RequestPath.check` takes."""
    requests = [
        head_of_request(case.method, case.target, case.request_fields(lambda _: '"tag"')) for case in CASES.values()
    ]
    requests += [row.sent for row in TABLE.values()]
    return [
        bytes((number,)) + request for number in range(len(FUZZED_SITES)) for request in requests if len(request) < 1000
    ]


class UnexpectedLogLine(Exception):
    """The site met something that it did not expect, and logged it."""


class _Raise(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise UnexpectedLogLine(record.getMessage())


class RequestPath:
    """The sites over one folder, and the check."""

    def __init__(self, folder: Path) -> None:
        """Fills `folder`, which exists and is empty."""
        make_folder(folder)
        self._sites = []
        for name in FUZZED_SITES:
            options = dict(SITES[name])
            self._sites.append(Site(SiteOptions(root=folder / options.pop("root", ""), **options)))
        self._heads = HeadWriter()
        self._own_descriptors = os.listdir("/proc/self/fd")

    def close(self) -> None:
        for site in self._sites:
            site.close()

    def check(self, data: bytes) -> int:
        """The first byte chooses the site, the rest is what comes on the wire. Returns how many answers there were."""
        if not data:
            return 0
        site, stream = self._sites[data[0] % len(self._sites)], data[1:]
        with _log_lines_raise():
            whole = self._answer_all(site, stream, len(stream) or 1)
            for size in PIECES:
                if size < len(stream):
                    _check_same(whole, self._answer_all(site, stream, size))
        assert os.listdir("/proc/self/fd") == self._own_descriptors
        return len(whole)

    def _answer_all(self, site: Site, stream: bytes, size: int) -> list[int]:
        """The statuses of all answers to a stream that comes in pieces of `size` bytes."""
        parser = RequestParser(MAX_HEAD_BYTES)
        pieces = iter([stream[start : start + size] for start in range(0, len(stream), size)])
        statuses: list[int] = []
        try:
            while (request := _next_request(parser, pieces)) is not None:
                if not _skip_body(parser, pieces):
                    break
                self._check_redirect(request)
                response = site.respond(request)
                statuses.append(self._check(response, request))
                if response.close_connection or not request.keep_alive:
                    break
        except BadRequest as refusal:
            response = site.error(refusal.status, refusal.explanation, close=True)
            statuses.append(self._check(response, None))
        return statuses

    def _check(self, response: Response, request: Request | None) -> int:
        try:
            body = b"".join(
                os.pread(part.fd, part.count, part.offset) if isinstance(part, FileSlice) else part
                for part in response.body
            )
        finally:
            response.close()
        keep_alive = request is not None and request.keep_alive and not response.close_connection
        head = self._heads.head(response, keep_alive, request is not None and request.version == b"1.0")
        assert response.status != 500
        for canary in CANARIES:
            assert canary not in body
            assert canary not in head
        for name, value in response.headers:
            assert name != b"Location" or not value.translate(None, _VISIBLE_ASCII)
        client = h11.Connection(h11.CLIENT)
        client.send(
            h11.Request(method=b"GET" if request is None else request.method, target=b"/", headers=[("host", "")])
        )
        client.send(h11.EndOfMessage())
        client.receive_data(head + body)
        event = client.next_event()
        assert isinstance(event, h11.Response)
        assert event.status_code == response.status
        received = 0
        while isinstance(event := client.next_event(), h11.Data):
            received += len(event.data)
        assert isinstance(event, h11.EndOfMessage)
        assert client.trailing_data[0] == b""
        assert received == len(body)
        return response.status

    def _check_redirect(self, request: Request) -> None:
        """The plain-HTTP listener's answer to the same request."""
        try:
            response = redirect(request, 8443)
        except BadRequest:
            return
        location = dict(response.headers)[b"Location"]
        assert location.startswith(b"https://")
        assert b":8443/" in location
        if request.method == b"HEAD":  # the listener (operation/plain_http.py) sends no body then
            response.body = ()
        self._check(response, request)


def _next_request(parser: RequestParser, pieces: Iterator[bytes]) -> Request | None:
    """As `Connection._next_request`: None at the end of the stream."""
    data = b""
    while True:
        if data or not parser.idle:
            request = parser.next_request(data)
            if request is not None:
                return request
        data = next(pieces, b"")
        if not data:
            return None


def _skip_body(parser: RequestParser, pieces: Iterator[bytes]) -> bool:
    """As `Connection._skip_body`: False at the end of the stream."""
    data = b""
    while not parser.skip_body(data):
        data = next(pieces, b"")
        if not data:
            return False
    return True


def _check_same(whole: list[int], pieces: list[int]) -> None:
    """A head that is both too long and wrong may be refused for the one or the other; anything else has to agree."""
    if whole != pieces:
        assert whole[:-1] == pieces[:-1], (whole, pieces)
        last = {*whole[-1:], *pieces[-1:]}
        assert 431 in last, (whole, pieces)
        assert last <= {431, 400, 501, 505}, (whole, pieces)


@contextmanager
def _log_lines_raise() -> Iterator[None]:
    logger, handler = logging.getLogger("ktls_server.files.site"), _Raise(logging.ERROR)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
