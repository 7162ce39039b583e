"""A head that was judged before gets the same verdict as one that was not, whatever came before and however it is cut."""

import itertools
from collections.abc import Sequence
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktls_server.errors import BadRequest
from ktls_server.http1 import parser as module
from ktls_server.http1.parser import RememberedHeads, RequestParser
from ktls_server.semantics.messages import Request

MAX_HEAD_BYTES = 600

LINES = (
    *(b"GET / HTTP/1.1", b"GET /a HTTP/1.1", b"HEAD /a HTTP/1.1", b"GET / HTTP/1.0", b"GET /a HTTP/1.2"),
    *(b"GET / HTTP/2.0", b"GET  / HTTP/1.1", b"G\x00T / HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET /\xff HTTP/1.1", b""),
    *(b"CONNECT a:1 HTTP/1.1", b"POST /a HTTP/1.1", b"GET / HTTP/1.1\nX: y", b" GET / HTTP/1.1", b"GET /" + b"a" * 700),
)
FIELDS = (
    *(b"Host: a", b"Host: b", b"hOsT: a", b"Accept: */*", b"Accept-Encoding: gzip, br", b"Connection: close"),
    *(b"Connection: keep-alive", b"Connection: Keep-Alive, x", b"Cookie: secret=1", b"Authorization: Basic eA=="),
    *(b"Content-Length: 0", b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Expect: 100-continue"),
    *(b" folded", b"\tfolded", b"No colon", b"Name : x", b": empty", b"X:", b"X: \x00", b"X: a\nY: b", b"X: a\rb"),
    *(b"X: " + b"a" * 300, b"", b'If-None-Match: "x"', b"\xff: x"),
)
ENDS = (b"\r\n", b"\n", b"\r\n\r\n")
BETWEEN = (b"", b"", b"", b"\r\n", b"\n", b"abc", b"0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n")


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Something like a head: mostly as browsers send them."""
    end = draw(st.sampled_from([b"\r\n"] * 8 + list(ENDS)))
    lines = [draw(st.sampled_from(LINES)), b"Host: a", *draw(st.lists(st.sampled_from(FIELDS), max_size=4))]
    if draw(st.integers(0, 5)) == 0:
        del lines[1]
    return end.join(lines) + end + draw(st.sampled_from([b"\r\n"] * 8 + [b"\n", b""]))


streams = st.lists(st.one_of(heads(), st.sampled_from(BETWEEN), st.binary(max_size=20)), min_size=1, max_size=6)


@pytest.fixture(autouse=True)
def own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_remembered", RememberedHeads())


class Nothing(RememberedHeads):
    """Remembers nothing."""

    def remember(self, head_untrusted: bytes, request: Request) -> None:
        pass


def conversation(pieces: Sequence[bytes]) -> list[object]:
    """All that a parser says of a stream: requests, bodies that ended, the refusal at its end, what is left."""
    parser = RequestParser(MAX_HEAD_BYTES)
    said: list[object] = []
    in_body = False
    try:
        for piece in pieces:
            data = piece
            while True:
                if in_body:
                    in_body = not parser.skip_body(data)
                    if in_body:
                        break
                    said.append("end of body")
                else:
                    request = parser.next_request(data)
                    if request is None:
                        break
                    said += [request, dict(request.fields_untrusted)]
                    in_body = True
                data = b""
    except BadRequest as refusal:
        said.append((refusal.status, refusal.close))
    else:
        said.append(parser.idle)
    return said


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


@settings(max_examples=400, deadline=None)
@given(before=st.lists(streams, max_size=3), stream=streams, places=st.lists(st.integers(0, 4000), max_size=6))
def test_what_is_remembered_is_what_h11_says(before: list[list[bytes]], stream: list[bytes], places: list[int]) -> None:
    data = b"".join(stream)
    patch = pytest.MonkeyPatch()
    try:
        patch.setattr(module, "_remembered", Nothing())
        pieces = cut(data, places)
        expected = conversation(pieces)
        patch.setattr(module, "_remembered", RememberedHeads())
        for earlier in before:
            conversation(earlier)
        cold_or_warm = conversation(pieces)
        conversation(stream)
        warm = conversation(pieces)
    finally:
        patch.undo()
    assert cold_or_warm == expected
    assert warm == expected


BROWSER = b"Host: localhost\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\n\r\n"


def test_a_browsers_block_is_judged_once_for_many_targets() -> None:
    judged: list[object] = []
    patch = pytest.MonkeyPatch()

    def judge(*args: Any, **options: Any) -> h11.Connection:
        judged.append(args)
        return original(*args, **options)

    original = h11.Connection
    patch.setattr(h11, "Connection", judge)
    try:
        for _ in range(3):
            for number in range(5):
                request = RequestParser(4096).next_request(b"GET /%d HTTP/1.1\r\n" % number + BROWSER)
                assert request is not None
                assert request.target == b"/%d" % number
    finally:
        patch.undo()
    assert len(judged) == 5, "each request line once; the block with the first"


@pytest.mark.parametrize("field", [b"Cookie: a=b", b"Authorization: Basic eA==", b"Proxy-Authorization: x"])
def test_no_secret_is_remembered(field: bytes) -> None:
    parser = RequestParser(4096)
    assert parser.next_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n") is not None
    remembered = module._remembered
    assert not remembered._heads
    assert not remembered._lines
    assert not remembered._blocks


def test_memory_is_bounded() -> None:
    for number in range(3000):
        head = b"GET /%d HTTP/1.1\r\nHost: a\r\nX: %d\r\n\r\n" % (number, number)
        for _ in range(2):
            assert RequestParser(4096).next_request(head) is not None
    remembered = module._remembered
    assert len(remembered._heads) <= RememberedHeads.MAX_HEADS
    assert len(remembered._lines) <= RememberedHeads.MAX_LINES
    assert len(remembered._blocks) <= RememberedHeads.MAX_BLOCKS
    long = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * RememberedHeads.MAX_HEAD_BYTES + b"\r\n\r\n"
    lines = len(remembered._lines)
    assert RequestParser(65536).next_request(long) is not None
    assert len(remembered._lines) == lines


@pytest.mark.parametrize(
    ("fields", "version", "stays"),
    [
        ([], b"1.1", True),
        ([b"close"], b"1.1", False),
        ([b"close", b"keep-alive"], b"1.1", False),
        ([b"keep-alive", b"close"], b"1.1", False),
        ([b"keep-alive, close"], b"1.0", False),
        ([b"keep-alive"], b"1.0", True),
        ([], b"1.0", False),
    ],
)
def test_close_wins_in_whichever_field_it_stands(fields: list[bytes], version: bytes, stays: bool) -> None:
    """RFC 9112 section 9.3."""
    lines = [b"GET / HTTP/" + version, b"Host: a", *(b"Connection: " + field for field in fields), b"", b""]
    request = RequestParser(4096).next_request(b"\r\n".join(lines))
    assert request is not None
    assert request.keep_alive is stays


def refusal_of(head: bytes, *pieces: bytes) -> int:
    """The status that refuses a request with that head, or its body."""
    parser = RequestParser(65536)
    try:
        assert parser.next_request(head) is not None
        for piece in (b"", *pieces):
            assert not parser.skip_body(piece)
    except BadRequest as refusal:
        return refusal.status
    raise AssertionError("it was taken")


def test_a_length_that_no_body_may_have_is_refused_at_once() -> None:
    for length in (b"65537", b"99999999999", b"9" * 20):
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + length + b"\r\n\r\n"
        assert refusal_of(head) == 413


def test_the_framing_of_chunks_counts() -> None:
    """Sixty megabytes of chunk extensions around some bytes of data are a large body."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert refusal_of(head, *[b"1;" + b"x" * 1000 + b"\r\na\r\n"] * 200) == 413
    assert refusal_of(head, *[b"1\r\na\r\n" * 1000] * 100) == 413


def test_the_number_of_fields_is_bounded() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a:\r\n" * module.MAX_FIELDS + b"\r\n"
    assert refusal_of(head) == 431


def test_a_head_of_many_fields_is_not_remembered() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a:\r\n" * RememberedHeads.MAX_FIELDS + b"\r\n"
    assert RequestParser(65536).next_request(head) is not None
    assert not module._remembered._blocks
