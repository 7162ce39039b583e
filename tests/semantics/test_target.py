"""Request targets: what becomes a path, and what is refused with which status."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls_server.errors import BadRequest
from ktls_server.semantics.host import is_valid_host
from ktls_server.semantics.target import MAX_TARGET_BYTES, encode_path, parse_target


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        # origin-form
        (b"/", b"/", None),
        (b"/a/b.html", b"/a/b.html", None),
        (b"/a/", b"/a/", None),
        (b"/a?b=c?d&e=%2e%2e/", b"/a", b"b=c?d&e=%2e%2e/"),
        (b"/?", b"/", b""),
        # percent-encoding
        (b"/%61", b"/a", None),
        (b"/caf%C3%A9", b"/caf\xc3\xa9", None),
        (b"/%ff%FE", b"/\xff\xfe", None),
        (b"/a%3Fb%23c%25", b"/a?b#c%", None),
        (b"/%2561", b"/%61", None),
        (b"/a+b", b"/a+b", None),
        (b"/a%0d%0ab", b"/a\r\nb", None),
        (b"/a%5Cb", b"/a\\b", None),
        (b"/a|b^c[d]", b"/a|b^c[d]", None),
        # empty and dot segments
        (b"//", b"/", None),
        (b"//example.com/a", b"/example.com/a", None),
        (b"/a//b/./c", b"/a/b/c", None),
        (b"/a/.", b"/a/", None),
        (b"/a/%2e/b", b"/a/b", None),
        (b"/.", b"/", None),
        (b"/.well-known/x", b"/.well-known/x", None),
        (b"/...", b"/...", None),
        (b"/a..b", b"/a..b", None),
        # absolute-form
        (b"http://example.com/a?b", b"/a", b"b"),
        (b"HTTPS://[::1]:8443/a", b"/a", None),
        (b"https://example.com", b"/", None),
        (b"https://example.com?a/b", b"/", b"a/b"),
        (b"https://example.com//evil.com/", b"/evil.com/", None),
        # asterisk-form
        (b"*", b"*", None),
    ],
)
def test_a_target_becomes_a_path(target: bytes, path: bytes, query: bytes | None) -> None:
    assert parse_target(target) == (path, query)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"", 400),
        (b"a", 400),
        (b"example.com:443", 400),
        (b"ftp://example.com/", 400),
        (b"file:///etc/passwd", 400),
        (b"https:///etc/passwd", 400),
        (b"https://?", 400),
        (b"/a%", 400),
        (b"/a%2", 400),
        (b"/a%zz", 400),
        (b"/a%+1", 400),
        (b"/a% 1", 400),
        (b"/a%00", 400),
        (b"/a%00.html", 400),
        (b"/a\0", 400),
        (b"/a b", 400),
        (b"/a\r\nb", 400),
        (b"/caf\xc3\xa9", 400),
        (b"/a#b", 400),
        (b"/..", 400),
        (b"/../etc/passwd", 400),
        (b"/a/../b", 400),
        (b"/%2e%2e/etc/passwd", 400),
        (b"/.%2E/etc/passwd", 400),
        (b"/a/..", 400),
        (b"//../..", 400),
        (b"http://example.com/../a", 400),
        (b"/..%2fetc/passwd", 404),
        (b"/a%2Fb", 404),
        (b"/" + b"a" * MAX_TARGET_BYTES, 414),
    ],
)
def test_a_target_is_refused(target: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_target(target)
    assert caught.value.status == status
    assert not caught.value.close


def test_the_longest_target_is_taken() -> None:
    assert parse_target(b"/" + b"a" * (MAX_TARGET_BYTES - 1)).path.endswith(b"aa")


@given(st.lists(st.binary(min_size=1, max_size=8), max_size=4))
def test_whatever_comes_out_is_one_slash_and_plain_names(segments: list[bytes]) -> None:
    target = b"/" + b"/".join(segments)
    try:
        path = parse_target(target).path
    except BadRequest as refusal:
        assert refusal.status in (400, 404)  # noqa: PT017 - that it may raise is the property
        return
    names = path[1:].removesuffix(b"/").split(b"/") if path != b"/" else []
    assert path.startswith(b"/")
    assert not {b"", b".", b".."} & set(names)
    assert b"\0" not in path


@given(st.lists(st.binary(min_size=1, max_size=8).map(lambda name: name.replace(b"/", b"x")), max_size=4))
def test_an_encoded_path_is_decoded_to_the_same_path(names: list[bytes]) -> None:
    names = [name.replace(b"\0", b"x") for name in names if name not in (b".", b"..")]
    path = b"/" + b"/".join(names)
    encoded = encode_path(path)
    assert encoded.isascii()
    assert not set(encoded) & set(b" \r\n\"'<>?#\\&")
    assert unquote_to_bytes(encoded) == path
    assert parse_target(encoded).path == path


@pytest.mark.parametrize(
    "host", [b"localhost", b"localhost:8443", b"", b"[::1]:8443", b"a.b-c_d", b"127.0.0.1", b"x%41:", b"a,b"]
)
def test_a_host_is_valid(host: bytes) -> None:
    assert is_valid_host(host)


@pytest.mark.parametrize(
    "host", [b"a b", b"a/b", b"user@host", b"a:b", b"[::1", b"x?y", b"a:1:2", b"h\xc3\xb6st", b"%4"]
)
def test_a_host_is_invalid(host: bytes) -> None:
    assert not is_valid_host(host)


@pytest.mark.parametrize("authority", [b"[::1", b"localhost\\@x", b"user:pw@localhost", b"a b", b"@", b"a:port"])
def test_an_absolute_form_has_a_valid_authority(authority: bytes) -> None:
    """RFC 9110 4.2.4: no user information; RFC 3986 3.2.2: a host as hosts are written."""
    with pytest.raises(BadRequest) as caught:
        parse_target(b"http://" + authority + b"/a")
    assert caught.value.status == 400
