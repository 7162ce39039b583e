"""A peer that breaks off, stalls or talks nonsense costs its own connection, and nothing else.

After each test the `server` fixture looks for descriptors left open and for words on standard error; when the process
ends it has to end by itself, which it does not while a connection's task is left. `neighbour` is a connection that was
there before and has to work afterwards.
"""

import os
import socket
import ssl
import struct
import warnings
from collections.abc import Callable, Iterator

import pytest

from ktls_server.net.channel import SENDFILE_BYTES
from tests.server.clients import (
    TLS_1_2,
    TLS_1_3,
    VERSION_NAMES,
    Client,
    client_context,
    connected,
    request,
    tcp_connect,
)
from tests.server.dripping import DrippingClient, client_hello
from tests.server.running import Server, Variant
from tests.server.site import SMALL, SPARSE_BYTES, content

MEBIBYTE = 1 << 20
VERSIONS = [TLS_1_2, TLS_1_3]

each_version = pytest.mark.parametrize("version", VERSIONS, ids=VERSION_NAMES.get)


@pytest.fixture
def neighbour(server: Server) -> Iterator[Client]:
    with Client(server) as client:
        assert client.get("/small.txt").body == SMALL
        yield client
        assert client.get("/16385.bin").body == content(16385)


def reset(sock: socket.socket) -> None:
    """Close so that the peer gets a RST, not a FIN (SO_LINGER of socket(7), with no time)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def finish(sock: socket.socket) -> None:
    """Close the usual way. No close_notify is sent."""
    sock.close()


def read_to_the_end(sock: socket.socket) -> bytes:
    """All that still comes, until a FIN or a RST."""
    data = b""
    try:
        while more := sock.recv(65536):
            data += more
    except ConnectionResetError:
        pass
    return data


each_way_to_go = pytest.mark.parametrize("leave", [reset, finish])


@each_version
@each_way_to_go
def test_a_client_that_vanishes_in_the_middle_of_a_file(
    server: Server, neighbour: Client, version: ssl.TLSVersion, leave: Callable[[socket.socket], None]
) -> None:
    for _ in range(3):
        tcp = tcp_connect(server)
        tls = client_context(server, version).wrap_socket(tcp, server_hostname="localhost")
        tls.sendall(request("/sparse.bin"))
        assert tls.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        leave(tls)


@each_version
def test_a_response_that_was_cut_is_logged_with_what_was_sent_of_it(
    server: Server, neighbour: Client, version: ssl.TLSVersion
) -> None:
    path = f"/sparse.bin?{os.urandom(8).hex()}"
    with Client(server, context=client_context(server, version), receive_buffer=65536) as client:
        client.send(request(path))
        assert client.answer_head().status == 200
        assert len(client.read(2 * MEBIBYTE)) == 2 * MEBIBYTE
    (line,) = server.logged(path)
    # At least what came, but for one call of sendfile that was cut short; at most what socket buffers hold beside it.
    assert isinstance(line["bytes"], int)
    assert 2 * MEBIBYTE - SENDFILE_BYTES <= line["bytes"] < 64 * MEBIBYTE < SPARSE_BYTES


@each_way_to_go
def test_a_client_that_connects_and_goes(
    server: Server, neighbour: Client, leave: Callable[[socket.socket], None]
) -> None:
    for _ in range(50):
        leave(tcp_connect(server))


@each_way_to_go
def test_a_client_that_goes_in_the_middle_of_its_client_hello(
    server: Server, neighbour: Client, leave: Callable[[socket.socket], None]
) -> None:
    hello = client_hello(server)
    for length in (1, 4, 5, 6, len(hello) // 2, len(hello) - 1, len(hello)):
        sock = tcp_connect(server)
        sock.sendall(hello[:length])
        leave(sock)


@each_version
@each_way_to_go
def test_a_client_that_goes_after_the_handshake_without_a_request(
    server: Server, neighbour: Client, version: ssl.TLSVersion, leave: Callable[[socket.socket], None]
) -> None:
    for sent in (b"", b"GET /small.txt HT"):
        tls = client_context(server, version).wrap_socket(tcp_connect(server), server_hostname="localhost")
        tls.sendall(sent)
        leave(tls)


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(bytes(1000), id="zeros"),
        pytest.param(b"\xff" * 1000, id="ones"),
        pytest.param(b"\x16\x03\x01\xff\xff" + b"x" * 1000, id="a record longer than any may be"),
        pytest.param(b"\x16\x03\x01\x00\x10" + b"x" * 16, id="a handshake record of nonsense"),
        pytest.param(b"\x17\x03\x03\x00\x20" + bytes(32), id="application data before the handshake"),
        pytest.param(b"\x15\x03\x03\x00\x02\x02\x28", id="a fatal alert"),
        pytest.param(b"\x80\x2e\x01\x00\x02" + bytes(41), id="an SSL 2 ClientHello"),
    ],
)
def test_a_client_that_sends_garbage_in_place_of_a_handshake(server: Server, neighbour: Client, garbage: bytes) -> None:
    with tcp_connect(server) as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        answer = read_to_the_end(sock)
    # An alert at most (content type 21), and in the clear.
    assert answer == b"" or (answer[0] == 21 and len(answer) == 7)


@each_version
@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\x17\x03\x03\x00\x40" + b"x" * 64, id="a record that does not decrypt"),
        pytest.param(b"\x17\x03\x03\xff\xff" + b"x" * 1000, id="a record longer than any may be"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="plain text"),
        pytest.param(b"\x99\x03\x03\x00\x40" + b"x" * 64, id="a record of no type"),
        pytest.param(bytes(1000), id="zeros"),
    ],
)
def test_a_client_that_sends_garbage_after_the_handshake(
    server: Server, neighbour: Client, version: ssl.TLSVersion, garbage: bytes
) -> None:
    with connected(server, version) as client:
        assert client.get("/small.txt").body == SMALL
        socket.socket.sendall(client.tls, garbage)
        assert client.read_until_broken(1) == b""  # by an alert, or by the end


def test_a_client_of_tls_1_1_is_told_the_version(server: Server, neighbour: Client) -> None:
    context = client_context(server)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with tcp_connect(server) as tcp, pytest.raises(ssl.SSLError) as caught:
        context.wrap_socket(tcp, server_hostname="localhost")
    assert caught.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"


@each_version
@pytest.mark.parametrize("piece", [1, 7])
def test_a_handshake_and_a_request_that_come_a_few_bytes_at_a_time_are_served(
    server: Server, neighbour: Client, version: ssl.TLSVersion, piece: int
) -> None:
    client = DrippingClient(server, piece, version)
    try:
        client.send(request("/16385.bin"))
        client.send(request("/16385.bin"), record=1)
        for _ in range(2):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.read(1)
            assert client.read(16385) == content(16385)
    finally:
        client.close()


@each_version
def test_a_client_that_ends_its_side_after_the_request_gets_the_whole_file(
    server: Server, neighbour: Client, version: ssl.TLSVersion
) -> None:
    with connected(server, version) as client:
        client.send(request("/1048576.bin"))
        socket.socket.shutdown(client.tls, socket.SHUT_WR)
        assert client.answer().body == content(MEBIBYTE)


@each_version
def test_a_client_that_says_goodbye_gets_one_back(server: Server, neighbour: Client, version: ssl.TLSVersion) -> None:
    with connected(server, version) as client:
        assert client.get("/small.txt").body == SMALL
        client.tls.unwrap().close()  # raises where no close_notify comes back


@each_version
@pytest.mark.parametrize("size", [0, MEBIBYTE, MEBIBYTE + 1000], ids=["to nothing", "to 1 MiB", "within a page"])
def test_a_file_truncated_while_it_is_sent_ends_the_connection_and_sends_no_wrong_byte(
    server: Server, neighbour: Client, version: ssl.TLSVersion, size: int
) -> None:
    original = content(8 * MEBIBYTE)  # more than the socket buffers hold
    file = server.directory / f"truncated-{os.urandom(8).hex()}.bin"
    file.write_bytes(original)
    with Client(server, context=client_context(server, version), receive_buffer=65536) as client:
        client.send(request(f"/{file.name}"))
        assert client.answer_head().headers["content-length"] == str(len(original))
        received = client.read(100_000)
        os.truncate(file, size)
        received += client.read_until_broken(len(original) - len(received))
    file.unlink()
    assert received == original[: len(received)]


def test_silent_clients_do_not_hold_up_the_others(server: Server, neighbour: Client) -> None:
    with tcp_connect(server), tcp_connect(server) as half:
        half.sendall(client_hello(server)[:100])
        with Client(server) as client:
            assert client.get("/small.txt").body == SMALL


# Each of these servers has short time limits only for stages in which none of its clients has to be quick.


@pytest.fixture
def limited(servers: Callable[[Variant], Server], variant: Variant) -> Callable[..., Server]:
    """A server like `server`, with further options."""
    return lambda *options: servers(Variant(variant.path, variant.loop, options))


def test_a_handshake_that_does_not_go_on_is_ended(limited: Callable[..., Server]) -> None:
    server = limited("--handshake-timeout", "1")
    with tcp_connect(server) as silent, tcp_connect(server) as half:
        half.sendall(client_hello(server)[:100])
        assert read_to_the_end(silent) == b""
        assert read_to_the_end(half) == b""
        # While the clients still hold their ends.
        server.assert_unharmed()


@each_version
def test_an_idle_connection_is_ended_politely(limited: Callable[..., Server], version: ssl.TLSVersion) -> None:
    server = limited("--keepalive-timeout", "1")
    with connected(server, version) as idle:
        assert idle.at_end()
        server.assert_unharmed()


@each_version
def test_a_request_that_does_not_go_on_and_a_response_that_is_not_taken_are_ended(
    limited: Callable[..., Server], version: ssl.TLSVersion
) -> None:
    server = limited("--head-timeout", "1", "--send-timeout", "1")
    context = client_context(server, version)
    with connected(server, version) as unfinished, Client(server, context=context, receive_buffer=65536) as stalled:
        unfinished.send(request("/small.txt")[:-2])
        stalled.send(request("/sparse.bin"))
        assert stalled.answer_head().headers["content-length"] == str(SPARSE_BYTES)
        answer = unfinished.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert unfinished.at_end()
        server.assert_unharmed()
        stalled.read_until_broken(SPARSE_BYTES)
