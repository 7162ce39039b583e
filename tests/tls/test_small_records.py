"""Clients that ask for short records (RFC 6066 section 4) get them, whoever encrypts; and what else a ClientHello asks for."""

import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from ktls_server.handshake.client_hello import read_client_hello
from ktls_server.handshake.driver import MAX_HANDSHAKE_BYTES
from tests.server.clients import TLS_1_2, client_context, request
from tests.server.running import Server
from tests.server.site import content

SIZE = 1 << 20


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("most", [512, 4096])
def test_records_are_as_short_as_the_client_asks(server: Server, version: str, most: int, tmp_path: Path) -> None:
    """OpenSSL's client ends the connection at a record that is longer: "data length too long"."""
    client = subprocess.run(
        [
            *("openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-servername", "localhost"),
            *(version, "-maxfraglen", str(most), "-quiet", "-ign_eof"),
        ],
        input=request(f"/{SIZE}.bin").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        capture_output=True,
        timeout=60,
        check=False,
    )
    head, _, body = client.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), client.stderr[-500:]
    assert body == content(SIZE)


def resumes(server: Server, context: ssl.SSLContext) -> bool:
    """Whether a second connection goes on with the session of a first one that was used."""
    session = None
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", server.port)) as raw,
            context.wrap_socket(raw, server_hostname="localhost", session=session) as tls,
        ):
            tls.sendall(request("/small.txt"))
            assert tls.recv(100).startswith(b"HTTP/1.1 200")
            session, reused = tls.session, tls.session_reused
    return bool(reused)


def test_a_tls_1_2_client_without_tickets_resumes_by_its_session_id(server: Server) -> None:
    context = client_context(server, TLS_1_2)
    context.options |= ssl.OP_NO_TICKET
    assert resumes(server, context)


def test_a_client_hello_of_the_longest_size_is_read() -> None:
    """OpenSSL takes up to 131,396 bytes of it; the server must not give up before OpenSSL does."""
    assert MAX_HANDSHAKE_BYTES > 131_396 + 4 + 9 * 5


def test_what_openssl_asks_for_is_understood() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2", "http/1.1"])
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="Example.org")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = read_client_hello(outgoing.read())
    assert hello is not None
    assert hello.server_name == "example.org"
    assert hello.alpn_protocols == (b"h2", b"http/1.1")
    assert 0x0304 in hello.supported_versions
    assert hello.max_fragment_length is None
