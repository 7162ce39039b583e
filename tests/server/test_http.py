"""Requests as they stand on the wire, and what must come back on the same connection, over real TLS."""

import pytest

from tests.server.clients import Client, request, tcp_connect
from tests.server.running import Server
from tests.server.site import SIZES, SMALL, content


def test_a_get_is_answered_with_the_fields_that_every_file_has(server: Server) -> None:
    with Client(server) as client:
        answer = client.get("/small.txt")
    assert (answer.status, answer.version, answer.body) == (200, "HTTP/1.1", SMALL)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-length"] == str(len(SMALL))
    assert {"date", "last-modified"} <= answer.headers.keys()
    assert "connection" not in answer.headers


def test_alpn_selects_http_1_1(server: Server) -> None:
    with Client(server) as client:
        assert client.tls.selected_alpn_protocol() == "http/1.1"


def test_pipelined_requests_are_answered_in_their_order(server: Server) -> None:
    sizes = SIZES * 4
    with Client(server) as client:
        client.send(b"".join(request(f"/{size}.bin") for size in sizes))
        for size in sizes:
            assert client.answer().body == content(size)
        assert client.get("/small.txt").body == SMALL


def test_requests_pipelined_while_a_file_is_on_its_way_are_answered_after_it(server: Server) -> None:
    with Client(server, receive_buffer=65536) as client:
        client.send(request("/1048576.bin"))
        assert client.answer_head().status == 200
        client.send(request("/small.txt") * 50)
        assert client.read(1 << 20) == content(1 << 20)
        assert [client.answer().body for _ in range(50)] == [SMALL] * 50


def test_head_has_the_fields_of_get_and_no_body(server: Server) -> None:
    with Client(server) as client:
        client.send(request("/1048576.bin", method="HEAD") + request("/small.txt"))
        head = client.answer(has_body=False)
        assert (head.status, head.headers["content-length"]) == (200, str(1 << 20))
        assert client.answer().body == SMALL, "a body came, or the connection was lost"


@pytest.mark.parametrize(
    ("version", "fields", "stays"),
    [
        ("HTTP/1.1", (), True),
        ("HTTP/1.1", ("Connection: close",), False),
        ("HTTP/1.0", (), False),
        ("HTTP/1.0", ("Connection: keep-alive",), True),
    ],
)
def test_the_connection_lives_on_as_its_version_and_connection_field_say(
    server: Server, version: str, fields: tuple[str, ...], stays: bool
) -> None:
    with Client(server) as client:
        client.send(request("/small.txt", *fields, version=version))
        answer = client.answer()
        assert answer.body == SMALL
        said = {("HTTP/1.1", True): None, ("HTTP/1.0", True): "keep-alive"}.get((version, stays), "close")
        assert answer.headers.get("connection") == said
        if stays:
            assert client.get("/small.txt").body == SMALL
        else:
            assert client.at_end(), "something came after the last answer"


def test_http_1_0_needs_no_host_field(server: Server) -> None:
    with Client(server) as client:
        client.send(b"GET /small.txt HTTP/1.0\r\n\r\n")
        assert client.answer().body == SMALL


@pytest.mark.parametrize(
    ("sent", "status", "stays"),
    [
        pytest.param(request("/absent"), 404, True, id="404, no such file"),
        pytest.param(request("/small.txt", method="DELETE"), 405, True, id="405, a method for other servers"),
        pytest.param(b"GET /small.txt HTTP/1.1\r\n\r\n", 400, False, id="400, no Host"),
        pytest.param(b"complete nonsense\r\n\r\n", 400, False, id="400, no request line"),
        pytest.param(request("/small.txt", "Broken field"), 400, False, id="400, a field without a colon"),
        pytest.param(request("/small.txt", "X: " + "x" * 40000), 431, False, id="431, a head past --max-head-bytes"),
        pytest.param(b"GET /" + b"x" * 40000, 431, False, id="431, a request line without an end"),
        pytest.param(request("/small.txt", version="HTTP/2.0"), 505, False, id="505, another version"),
    ],
)
def test_a_request_that_cannot_be_served_gets_its_status(server: Server, sent: bytes, status: int, stays: bool) -> None:
    with Client(server) as client:
        client.send(sent)
        answer = client.answer()
        assert answer.status == status
        assert str(status).encode() in answer.body
        assert ("connection" not in answer.headers) == stays
        if stays:
            assert client.get("/small.txt").body == SMALL
        else:
            assert client.at_end()


def test_index_and_redirect_of_a_folder(server: Server) -> None:
    with Client(server) as client:
        assert b"<title>Hello</title>" in client.get("/").body
        redirect = client.get("/folder?a=b")
        assert (redirect.status, redirect.headers["location"]) == (301, "/folder/?a=b")
        assert b"<title>Folder</title>" in client.get(redirect.headers["location"]).body


@pytest.mark.parametrize("sent", [request("/small.txt"), b"HEAD / HTTP/1.0\r\n\r\n", b"x"], ids=["GET", "HEAD", "x"])
def test_plain_http_gets_a_readable_400(server: Server, sent: bytes) -> None:
    with tcp_connect(server) as sock, sock.makefile("rb") as answers:
        sock.sendall(sent)
        head, _, text = answers.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert f"Content-Length: {len(text)}".encode() in head
    assert b"https://" in text
