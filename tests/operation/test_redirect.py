"""Where a plain HTTP request is sent on to, and that it cannot be sent anywhere else."""

import pytest

from ktls_server.errors import BadRequest
from ktls_server.operation.redirect import redirect
from ktls_server.semantics.messages import Request


def ask(target: bytes, *hosts: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> Request:
    return Request(method, target, version, [(b"host", host) for host in hosts])


def location(request: Request, port: int = 443) -> bytes:
    return dict(redirect(request, port).headers)[b"Location"]


@pytest.mark.parametrize(
    ("host", "target", "port", "expected"),
    [
        (b"example.org", b"/", 443, b"https://example.org/"),
        (b"example.org:80", b"/a?b=c&d", 443, b"https://example.org/a?b=c&d"),
        (b"example.org:8080", b"/", 8443, b"https://example.org:8443/"),
        (b"[2001:db8::1]:80", b"/x", 443, b"https://[2001:db8::1]/x"),
        (b"[2001:db8::1]", b"/x", 8443, b"https://[2001:db8::1]:8443/x"),
        (b"192.0.2.1", b"/%C3%A4%20b", 443, b"https://192.0.2.1/%C3%A4%20b"),
        (b"example.org", b"//evil.example/", 443, b"https://example.org/evil.example/"),
        (b"example.org", b"/a//b", 443, b"https://example.org/a/b"),
        (b"example.org", b"/%0d%0aX:%20y", 443, b"https://example.org/%0D%0AX%3A%20y"),
        (b"example.org", b"*", 443, b"https://example.org/"),
        (b"other.example", b"http://example.org/p?q", 443, b"https://example.org/p?q"),
        (b"other.example", b"http://example.org", 443, b"https://example.org/"),
    ],
)
def test_the_same_resource_over_https(host: bytes, target: bytes, port: int, expected: bytes) -> None:
    assert location(ask(target, host), port) == expected


@pytest.mark.parametrize(
    ("target", "hosts"),
    [
        (b"/", ()),
        (b"/", (b"",)),
        (b"/", (b":80",)),
        (b"/", (b"a.example", b"b.example")),
        (b"/", (b"user@evil.example",)),
        (b"/", (b"example.org/evil",)),
        (b"/", (b"example.org\r\nX: y",)),
        (b"/", (b"example.org evil",)),
        (b"/", (b"[::1",)),
        (b"/../x", (b"example.org",)),
        (b"evil", (b"example.org",)),
        (b"http://user@evil.example/", (b"example.org",)),
        (b"http:///x", (b"example.org",)),
        (b"ftp://example.org/", (b"example.org",)),
        (b"/#x", (b"example.org",)),
    ],
)
def test_what_names_no_good_place_is_refused(target: bytes, hosts: tuple[bytes, ...]) -> None:
    with pytest.raises(BadRequest) as refused:
        redirect(ask(target, *hosts), 443)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("method", "status"), [(b"GET", 301), (b"HEAD", 301), (b"POST", 308), (b"PUT", 308), (b"OPTIONS", 308)]
)
def test_methods_with_a_body_keep_it(method: bytes, status: int) -> None:
    response = redirect(ask(b"/", b"example.org", method=method), 443)
    assert response.status == status
    assert response.close_connection


def test_an_old_client_that_names_no_host_is_told_so() -> None:
    with pytest.raises(BadRequest, match="no address to send you to"):
        redirect(ask(b"/", version=b"1.0"), 443)
