"""Where one request ends and the next begins (RFC 9112): what cannot be trusted is answered once, and then it is over.

Each row is sent together with one more request. Either that is answered, too, or the connection ends before it is: it is
never taken for anything else, and nothing inside a body is ever taken for a request.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from tests.server.clients import request
from tests.server.conversation import Conversation
from tests.server.running import Server
from tests.server.site import SMALL

CLOSED, GOES_ON = False, True

SMUGGLED = request("/smuggled")
"""If this is answered, somebody else's bytes were taken for a request: no such file, but no such status in the table."""
CHUNKED = "Transfer-Encoding: chunked"
NO_CHUNKS = b"0\r\n\r\n"


def get(*fields: str, body: bytes = b"") -> bytes:
    return request("/1.bin", *fields) + body


def head(*lines: bytes, end: bytes = b"\r\n") -> bytes:
    return end.join([*lines, b"", b""])


@dataclass(frozen=True)
class Row:
    """`sent` gets an answer with `status`, after which the connection goes on or is closed."""

    what: str
    sent: bytes
    status: int
    then: bool


GET, HOST = b"GET /1.bin HTTP/1.1", b"Host: localhost"

BODIES = [
    Row("a body has no meaning for a GET, but an end", get("Content-Length: 5", body=b"12345"), 200, GOES_ON),
    Row("an empty body", get("Content-Length: 0"), 200, GOES_ON),
    Row("a body that looks like a request", get(f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED), 200, GOES_ON),
    Row("chunks", get(CHUNKED, body=b"5\r\n12345\r\nA\r\n1234567890\r\n" + NO_CHUNKS), 200, GOES_ON),
    Row("no chunks", get(CHUNKED, body=NO_CHUNKS), 200, GOES_ON),
    Row("a chunk that looks like a request", get(CHUNKED, body=b"%x\r\n%b\r\n" % (len(SMUGGLED), SMUGGLED) + NO_CHUNKS),
        200, GOES_ON),
    Row("chunk extensions", get(CHUNKED, body=b'1;a="b";c\r\nx\r\n' + NO_CHUNKS), 200, GOES_ON),
    Row("trailers", get(CHUNKED, body=b"1\r\nx\r\n0\r\nHost: other\r\nContent-Length: 9\r\n\r\n"), 200, GOES_ON),
    Row("codings know no case", get("Transfer-Encoding: CHUNKED", body=NO_CHUNKS), 200, GOES_ON),
    Row("the body of a refused POST", request("/", "Content-Length: 3", method="POST") + b"abc", 405, GOES_ON),
    Row("the chunks of a refused PUT", request("/new", CHUNKED, method="PUT") + b"1\r\nx\r\n" + NO_CHUNKS, 405, GOES_ON),
    Row("100-continue, and the body comes at once", get("Expect: 100-continue", "Content-Length: 3", body=b"abc"), 200,
        GOES_ON),
    Row("100-continue without a body", get("Expect: 100-continue"), 200, GOES_ON),
    Row("an expectation that nobody knows", get("Expect: tea"), 200, GOES_ON),
    Row("64 KiB of body", get("Content-Length: 65536", body=bytes(65536)), 200, GOES_ON),
    Row("more than 64 KiB of body", get("Content-Length: 65537", body=bytes(65537)), 413, CLOSED),
    Row("more than 64 KiB in chunks", get(CHUNKED, body=(b"8000\r\n" + bytes(0x8000) + b"\r\n") * 3 + NO_CHUNKS), 413,
        CLOSED),
]  # fmt: skip

LENGTHS = [
    Row(
        "the same length twice is one (9112 6.3)",
        get("Content-Length: 3", "Content-Length: 3", body=b"abc"),
        200,
        GOES_ON,
    ),
    Row("the same length as a list", get("Content-Length: 3, 3", body=b"abc"), 200, GOES_ON),
    Row("leading zeros", get("Content-Length: 0003", body=b"abc"), 200, GOES_ON),
    Row("two lengths", get("Content-Length: 3", "Content-Length: 0", body=b"abc"), 400, CLOSED),
    Row("two lengths in a list", get("Content-Length: 3, 0", body=b"abc"), 400, CLOSED),
    Row("a length with a plus", get("Content-Length: +3", body=b"abc"), 400, CLOSED),
    Row("a negative length", get("Content-Length: -3", body=b"abc"), 400, CLOSED),
    Row("a hexadecimal length", get("Content-Length: 0x3", body=b"abc"), 400, CLOSED),
    Row("a length as Python writes numbers", get("Content-Length: 1_0", body=b"abc"), 400, CLOSED),
    Row("a length in other digits", get("Content-Length: \xb2", body=b"abc"), 400, CLOSED),
    Row("no length in the field", get("Content-Length:", body=b"abc"), 400, CLOSED),
    Row("a length of 5000 digits", get("Content-Length: " + "9" * 5000), 400, CLOSED),
]

CODINGS = [
    Row("length and chunks", get("Content-Length: 5", CHUNKED, body=NO_CHUNKS), 400, CLOSED),
    Row("chunks and length", get(CHUNKED, f"Content-Length: {5 + len(SMUGGLED)}", body=NO_CHUNKS + SMUGGLED), 400,
        CLOSED),
    Row("chunks in HTTP/1.0", request("/1.bin", CHUNKED, version="HTTP/1.0") + NO_CHUNKS, 400, CLOSED),
    Row("chunked twice", get(CHUNKED, CHUNKED, body=NO_CHUNKS), 501, CLOSED),
    Row("chunked twice in a list", get("Transfer-Encoding: chunked, chunked", body=NO_CHUNKS), 501, CLOSED),
    Row("a coding that nobody knows", get("Transfer-Encoding: xchunked", body=NO_CHUNKS), 501, CLOSED),
    Row("a coding before chunked", get("Transfer-Encoding: gzip, chunked", body=NO_CHUNKS), 501, CLOSED),
    Row("a coding after chunked", get("Transfer-Encoding: chunked, identity", body=NO_CHUNKS), 501, CLOSED),
    Row("chunked with a parameter", get("Transfer-Encoding: chunked;q=1", body=NO_CHUNKS), 501, CLOSED),
    Row("no coding in the field", get("Transfer-Encoding:", body=NO_CHUNKS), 501, CLOSED),
    Row("a control character before the coding", get("Transfer-Encoding:\x0bchunked", body=NO_CHUNKS), 400, CLOSED),
    Row("a space before the colon", get("Transfer-Encoding : chunked", body=NO_CHUNKS), 400, CLOSED),
]  # fmt: skip

CHUNKS = [
    Row("a size that is no number", get(CHUNKED, body=b"zz\r\n\r\n"), 400, CLOSED),
    Row("a negative size", get(CHUNKED, body=b"-1\r\nx\r\n" + NO_CHUNKS), 400, CLOSED),
    Row("a size with a plus", get(CHUNKED, body=b"+1\r\nx\r\n" + NO_CHUNKS), 400, CLOSED),
    Row("a size with 0x", get(CHUNKED, body=b"0x1\r\nx\r\n" + NO_CHUNKS), 400, CLOSED),
    Row("a size of 30 digits", get(CHUNKED, body=b"0" * 29 + b"1\r\nx\r\n" + NO_CHUNKS), 400, CLOSED),
    Row("bare LF between chunks", get(CHUNKED, body=b"1\nx\n0\n\n"), 400, CLOSED),
    Row("bare LF in an extension", get(CHUNKED, body=b"1;a\nx\r\n" + NO_CHUNKS), 400, CLOSED),
    Row("more data than the size says", get(CHUNKED, body=b"1\r\nxyz\r\n" + NO_CHUNKS), 400, CLOSED),
    Row("trailers that are no fields", get(CHUNKED, body=b"0\r\nno field\r\n\r\n"), 400, CLOSED),
]

LINES = [
    Row("empty lines before a request (9112 2.2)", b"\r\n\r\n" + get(), 200, GOES_ON),
    Row("bare LF (may be taken: 9112 2.2)", head(GET, HOST, end=b"\n"), 200, GOES_ON),
    Row("bare CR", head(GET, HOST, b"X: a\rY: b"), 400, CLOSED),
    Row("bare CR all over", head(GET, HOST, end=b"\r"), 400, CLOSED),
    Row("a folded field is one (9112 5.2)", head(GET, HOST, b"X: a", b" b"), 200, GOES_ON),
    Row(
        "a folded coding is read as one", head(GET, HOST, b"Transfer-Encoding:", b" chunked") + NO_CHUNKS, 200, GOES_ON
    ),
    Row("a folded coding is checked as one", head(GET, HOST, b"Transfer-Encoding: chunked", b" , gzip"), 501, CLOSED),
    Row("a fold before the first field", head(GET, b" " + HOST), 400, CLOSED),
    Row("NUL in a field", head(GET, HOST, b"X: a\0b"), 400, CLOSED),
    Row("a field without a colon", head(GET, HOST, b"X"), 400, CLOSED),
    Row("a field without a name", head(GET, HOST, b": x"), 400, CLOSED),
    Row("a space in a field's name", head(GET, HOST, b"X Y: x"), 400, CLOSED),
    Row("a field's name beyond ASCII", head(GET, HOST, b"X\xe9: x"), 400, CLOSED),
    Row("a field's value beyond ASCII", head(GET, HOST, b"X: \xe9"), 200, GOES_ON),
    Row("many fields", head(GET, HOST, *[b"X: y"] * 199), 200, GOES_ON),
    Row("more fields than any client sends", head(GET, HOST, *[b"X: y"] * 200), 431, CLOSED),
    Row("more fields than --max-head-bytes", head(GET, HOST, *[b"X: y"] * 6000), 431, CLOSED),
    Row("a field without an end", b"%b\r\nX: %b" % (GET, b"x" * 40000), 431, CLOSED),
]

REQUEST_LINES = [
    Row("two spaces", head(b"GET  /1.bin HTTP/1.1", HOST), 400, CLOSED),
    Row("a space in the target", head(b"GET /1 .bin HTTP/1.1", HOST), 400, CLOSED),
    Row("tabs for spaces", head(b"GET\t/1.bin\tHTTP/1.1", HOST), 400, CLOSED),
    Row("a space at the end", head(b"GET /1.bin HTTP/1.1 ", HOST), 400, CLOSED),
    Row("a space at the start", head(b" GET /1.bin HTTP/1.1", HOST), 400, CLOSED),
    Row("no target", head(b"GET HTTP/1.1", HOST), 400, CLOSED),
    Row("no version: HTTP/0.9", head(b"GET /1.bin"), 400, CLOSED),
    Row("a target beyond ASCII", head(b"GET /\xe9 HTTP/1.1", HOST), 400, CLOSED),
    Row("a method that is no token", head(b"GE(T /1.bin HTTP/1.1", HOST), 400, CLOSED),
    Row("an unknown method", head(b"BREW /1.bin HTTP/1.1", HOST), 501, GOES_ON),
    Row("lower-case HTTP", head(b"GET /1.bin http/1.1", HOST), 400, CLOSED),
    Row("HTTP/1.2 is as HTTP/1.1 (9110 2.5)", head(b"GET /1.bin HTTP/1.2", HOST), 200, GOES_ON),
    Row("HTTP/2.0", head(b"GET /1.bin HTTP/2.0", HOST), 505, CLOSED),
    Row("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, CLOSED),
    Row("a target past 8190 bytes", head(b"GET /%b HTTP/1.1" % (b"x" * 8190), HOST), 414, GOES_ON),
    Row("TLS within TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, CLOSED),
]

HOSTS = [
    Row("no Host", head(GET), 400, CLOSED),
    Row("two Hosts", head(GET, HOST, b"Host: other"), 400, CLOSED),
    Row("one Host twice", head(GET, HOST, HOST), 400, CLOSED),
    Row("two Hosts in one", head(GET, b"Host: localhost, other"), 400, CLOSED),
    Row("a Host with a path", head(GET, b"Host: localhost/x"), 400, CLOSED),
    Row("a Host with a user", head(GET, b"Host: user@localhost"), 400, CLOSED),
    Row("an empty Host (9112 3.2)", head(GET, b"Host:"), 200, GOES_ON),
    Row("any Host", head(GET, b"Host: [2001:db8::1]:443"), 200, GOES_ON),
    Row("absolute-form still needs one", head(b"GET https://localhost/1.bin HTTP/1.1"), 400, CLOSED),
    Row("absolute-form and another Host", head(b"GET https://localhost/1.bin HTTP/1.1", b"Host: other"), 200, GOES_ON),
    Row("absolute-form of another scheme", head(b"GET ftp://localhost/1.bin HTTP/1.1", HOST), 400, GOES_ON),
    Row("authority-form", head(b"GET localhost:443 HTTP/1.1", HOST), 400, GOES_ON),
    Row("CONNECT", head(b"CONNECT localhost:443 HTTP/1.1", HOST), 405, GOES_ON),
    Row("OPTIONS *", head(b"OPTIONS * HTTP/1.1", HOST), 204, GOES_ON),
    Row("GET *", head(b"GET * HTTP/1.1", HOST), 400, GOES_ON),
    Row("no target for an upgrade here", head(GET, HOST, b"Connection: Upgrade", b"Upgrade: h2c"), 200, GOES_ON),
]

TABLE = {
    f"{group}: {row.what}": row
    for group, rows in {
        "bodies": BODIES,
        "lengths": LENGTHS,
        "codings": CODINGS,
        "chunks": CHUNKS,
        "lines": LINES,
        "request lines": REQUEST_LINES,
        "hosts": HOSTS,
    }.items()
    for row in rows
}


def method_of(row: Row) -> bytes:
    """For the reader of the answer: only CONNECT's and HEAD's are read in another way than GET's."""
    return b"CONNECT" if row.sent.startswith(b"CONNECT ") else b"GET"


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_table(server: Server, row: Row) -> None:
    with Conversation(server) as conversation:
        conversation.send(row.sent + request("/small.txt"))
        answer = conversation.answer(method_of(row))
        assert (answer.status, answer.interim) == (row.status, ())
        assert answer.fields.get("connection") == (None if row.then is GOES_ON else "close")
        if row.then is GOES_ON:
            assert conversation.answer().body == SMALL
        else:
            assert conversation.at_end()


@pytest.mark.parametrize("row", [row for row in TABLE.values() if len(row.sent) < 300], ids=lambda row: row.what)
def test_where_the_pieces_of_a_request_end_does_not_matter(server: Server, row: Row) -> None:
    with Conversation(server) as conversation:
        for start in range(0, len(row.sent), 9):
            conversation.send(row.sent[start : start + 9])
        conversation.send(request("/small.txt"))
        assert conversation.answer(method_of(row)).status == row.status


def test_a_body_that_waits_for_100_continue_is_not_wanted(server: Server) -> None:
    """RFC 9110 10.1.1: the final answer comes at once. Whether the body still does, nobody knows, so that is the end."""
    with Conversation(server) as conversation:
        conversation.send(get("Expect: 100-continue", "Content-Length: 5"))
        answer = conversation.answer()
        assert (answer.status, answer.interim, answer.fields["connection"]) == (200, (), "close")
        assert conversation.at_end()


def test_after_an_error_that_ends_the_connection_no_request_is_looked_at(server: Server) -> None:
    path = f"/after-{os.urandom(8).hex()}"
    with Conversation(server) as conversation:
        conversation.send(request(path) + get("Content-Length: x") + request(path) + request(path))
        assert conversation.answer().status == 404
        assert conversation.answer().status == 400
        assert conversation.at_end()
    server.logged(path, 1)
