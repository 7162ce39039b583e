"""ClientHellos, as OpenSSL sends them and as nobody should: read the same however they are cut, or not at all."""

import functools
import itertools
import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktls_server.handshake.client_hello import (
    MAX_CLIENT_HELLO_BYTES,
    ClientHello,
    ClientHelloReader,
    UnreadableHello,
    read_client_hello,
)
from ktls_server.handshake.driver import _max_plaintext_bytes


@functools.cache
def openssl_hello(name: str = "example.org", *protocols: str) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def in_records(hello: bytes, size: int) -> bytes:
    """The same message in records of `size` bytes."""
    message = hello[5:]
    parts = [message[start : start + size] for start in range(0, len(message), size)]
    return b"".join(hello[:3] + len(part).to_bytes(2, "big") + part for part in parts)


def fed(data: bytes, places: list[int]) -> ClientHello | None:
    reader = ClientHelloReader()
    bounds = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    for start, end in itertools.pairwise(bounds):
        hello = reader.feed(data[start:end])
        if hello is not None:
            return hello
    return None


@settings(deadline=None)
@given(size=st.integers(1, 600), places=st.lists(st.integers(0, 5000), max_size=8))
def test_records_and_pieces_make_no_difference(size: int, places: list[int]) -> None:
    hello = openssl_hello("example.org", "h2", "http/1.1")
    expected = read_client_hello(hello)
    assert expected is not None
    assert expected.server_name == "example.org"
    assert fed(in_records(hello, size), places) == expected
    assert fed(hello, list(range(len(hello)))) == expected


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=300), places=st.lists(st.integers(0, 300), max_size=4))
def test_nonsense_is_unreadable_and_nothing_worse(data: bytes, places: list[int]) -> None:
    for stream in (data, b"\x16\x03\x01\x01\x00" + data, openssl_hello()[:9] + data):
        try:
            hello = fed(stream, places)
        except UnreadableHello:
            continue
        assert hello is None or isinstance(hello, ClientHello)


@settings(deadline=None, max_examples=300)
@given(position=st.integers(0, 2000), byte=st.integers(0, 255), cut=st.integers(0, 2000))
def test_a_changed_hello_is_read_or_unreadable(position: int, byte: int, cut: int) -> None:
    hello = bytearray(openssl_hello("example.org", "h2"))
    hello[position % len(hello)] = byte
    read_client_hello(bytes(hello[: len(hello) - cut % len(hello)]))


def test_a_hello_that_never_ends_is_given_up() -> None:
    reader = ClientHelloReader()
    length = MAX_CLIENT_HELLO_BYTES + 1
    with pytest.raises(UnreadableHello):
        reader.feed(b"\x16\x03\x01\x00\x04\x01" + length.to_bytes(3, "big"))
    reader = ClientHelloReader()
    with pytest.raises(UnreadableHello):
        reader.feed(b"\x16\x03\x01\x00\x00" * 1000)


def test_what_is_no_handshake_is_unreadable() -> None:
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x17\x03\x03\x00\x05hello", b"\x16\x02\x00\x00\x05hello"):
        assert read_client_hello(data) is None


def with_max_fragment_length(hello: bytes) -> bytes:
    """The same ClientHello with one extension more, in its record."""
    extension = b"\x00\x01\x00\x01\x01"
    body = bytearray(hello[9:])
    position = 34
    position += 1 + body[position]
    position += 2 + int.from_bytes(body[position : position + 2], "big")
    position += 1 + body[position]
    length = int.from_bytes(body[position : position + 2], "big") + len(extension)
    body[position : position + 2] = length.to_bytes(2, "big")
    body[position + 2 : position + 2] = extension
    message = b"\x01" + len(body).to_bytes(3, "big") + bytes(body)
    return hello[:3] + len(message).to_bytes(2, "big") + message


@pytest.mark.parametrize("size", [1, 3, 100, 16384])
def test_a_fragment_length_is_found_in_records_of_any_size(size: int) -> None:
    hello = in_records(with_max_fragment_length(openssl_hello()), size)
    assert _max_plaintext_bytes(hello) == 512
    assert _max_plaintext_bytes(in_records(openssl_hello(), size)) == 16384
