"""`TlsAcceptor`, the handshake-and-key part for servers that are not this one: a context and a socket in, keys out."""

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import trustme

from ktls_server.acceptor import TlsAcceptor, TlsConnection
from ktls_server.errors import ConnectionLost, HandshakeFailed
from ktls_server.kernel.probe import KernelTls, tls_stat
from tests.tls.conftest import paths
from tests.waiting import WAIT_SECONDS

AUTHORITY = trustme.CA()
each_version = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", paths(metafunc.config), scope="session")


def server_context(name: str = "localhost") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(name).configure_cert(context)
    context.set_alpn_protocols(["example"])
    return context


def client_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["example"])
    return context


class Pair:
    """Connects clients of asyncio's with an acceptor. Its connections end with the `with` block."""

    def __init__(self, context: ssl.SSLContext, kernel: KernelTls) -> None:
        self.context = context
        self.acceptor = TlsAcceptor(context, kernel=kernel)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.writers: list[asyncio.StreamWriter] = []
        self.connections: list[TlsConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for connection in self.connections:
            connection.abort()
        for writer in self.writers:
            writer.transport.abort()
        self.listener.close()
        self.acceptor.close()

    async def connect(
        self, client: ssl.SSLContext, name: str = "localhost"
    ) -> tuple[TlsConnection, asyncio.StreamReader, asyncio.StreamWriter]:
        accepting = asyncio.create_task(self._accept())
        address = self.listener.getsockname()
        try:
            reader, writer = await asyncio.open_connection(*address, ssl=client, server_hostname=name)
        except (OSError, ssl.SSLError):
            await accepting  # which has the better reason
            raise
        self.writers.append(writer)
        return await accepting, reader, writer

    async def _accept(self) -> TlsConnection:
        sock, _ = await asyncio.get_running_loop().sock_accept(self.listener)
        connection = await asyncio.wait_for(self.acceptor.accept(sock), WAIT_SECONDS)
        self.connections.append(connection)
        return connection


@pytest.fixture
async def pair(path: str, kernel_tls: KernelTls) -> AsyncIterator[Pair]:
    with Pair(server_context(), kernel_tls if path == "kernel" else KernelTls()) as pair:
        yield pair


@pytest.mark.kernel_matrix("TlsAcceptor, the part for other servers")
@each_version
async def test_bytes_and_files_in_both_directions(
    pair: Pair, path: str, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    keyed = tls_stat().get("TlsTxSw", 0)
    connection, reader, writer = await pair.connect(client_context(version))
    data = os.urandom(1_000_003)
    file = tmp_path / "file"
    file.write_bytes(data)
    writer.write(b"question")
    assert await connection.receive() == b"question"
    await connection.send(b"answer")
    assert await reader.readexactly(6) == b"answer"
    descriptor = os.open(file, os.O_RDONLY)
    try:
        sending = asyncio.create_task(connection.send_file(descriptor, 3, 1_000_000))
        assert await reader.readexactly(1_000_000) == data[3:]
        await sending
    finally:
        os.close(descriptor)
    assert tls_stat().get("TlsTxSw", 0) - keyed == (path == "kernel")


@each_version
async def test_a_keyed_socket_takes_plain_bytes(pair: Pair, path: str, tmp_path: Path, version: ssl.TLSVersion) -> None:
    if path != "kernel":
        pytest.skip("only where the kernel encrypts")
    connection, reader, _writer = await pair.connect(client_context(version))
    data = os.urandom(300_000)
    file = tmp_path / "file"
    file.write_bytes(data)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection.sock, b"plain")
    assert await reader.readexactly(5) == b"plain"
    with file.open("rb") as opened:
        sending = asyncio.create_task(loop.sock_sendfile(connection.sock, opened, fallback=False))
        assert await reader.readexactly(len(data)) == data
        await sending


@each_version
async def test_close_notify_from_either_side(pair: Pair, version: ssl.TLSVersion) -> None:
    connection, reader, writer = await pair.connect(client_context(version))
    await connection.send(b"all")
    closing = asyncio.create_task(connection.close())
    assert await reader.read() == b"all"
    writer.close()
    await closing
    connection, reader, writer = await pair.connect(client_context(version))
    writer.close()
    assert await connection.receive() == b""


@each_version
async def test_the_session_is_described(pair: Pair, path: str, version: ssl.TLSVersion) -> None:
    connection, _reader, _writer = await pair.connect(client_context(version))
    session = connection.session
    assert session.version == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
    assert session.transmit_path == path
    assert session.alpn_protocol == "example"
    assert session.server_name == "localhost"
    assert (session.resumed, session.client_certificate) == (False, None)
    assert session.cipher in repr(session)


async def test_the_clients_certificate_is_handed_over(pair: Pair) -> None:
    pair.context.verify_mode = ssl.CERT_REQUIRED
    AUTHORITY.configure_trust(pair.context)
    client, leaf = client_context(), AUTHORITY.issue_cert("client@example.org")
    leaf.configure_cert(client)
    connection, _reader, _writer = await pair.connect(client)
    expected = ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
    assert connection.session.client_certificate == expected


async def test_a_context_that_sni_switches_to_is_attached(pair: Pair, path: str) -> None:
    other = server_context("other.example")
    pair.acceptor.attach(other)

    def switch(tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        if name == "other.example":
            tls.context = other

    pair.context.sni_callback = switch
    connection, reader, _writer = await pair.connect(client_context(), "other.example")
    assert connection.session.transmit_path == path
    await connection.send(b"answer")
    assert await reader.readexactly(6) == b"answer"


async def test_a_handshake_that_fails_closes_the_socket(pair: Pair) -> None:
    near, far = socket.socketpair()
    with near, far:
        near.sendall(b"\x16\x03\x01\x00\x04what")
        with pytest.raises(HandshakeFailed):
            await asyncio.wait_for(pair.acceptor.accept(far), WAIT_SECONDS)
        assert far.fileno() == -1
        assert near.recv(100)[:1] == b"\x15", "an alert"
        assert near.recv(100) == b""


async def test_a_peer_that_breaks_the_protocol_loses_its_connection(pair: Pair) -> None:
    connection, _reader, writer = await pair.connect(client_context())
    raw: socket.socket = writer.get_extra_info("socket")
    os.write(raw.fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ConnectionLost):
        await connection.receive()


def test_two_loops_in_two_threads_mix_nothing() -> None:
    """Each acceptor has buffers of its own: what one seals never holds a byte of the other's."""
    received: dict[bytes, bytes] = {}

    async def talk(pattern: bytes) -> None:
        with Pair(server_context(), KernelTls()) as pair:
            connection, reader, _ = await pair.connect(client_context())
            pieces = []
            for _ in range(60):
                sending = asyncio.create_task(connection.send(pattern * 100_000))
                pieces.append(await reader.readexactly(100_000))
                await sending
            received[pattern] = b"".join(pieces)

    threads = [threading.Thread(target=asyncio.run, args=(talk(pattern),)) for pattern in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_SECONDS)
    assert {pattern: set(data) for pattern, data in received.items()} == {b"a": set(b"a"), b"b": set(b"b")}
    assert {len(data) for data in received.values()} == {6_000_000}


def test_one_context_in_two_acceptors_is_refused() -> None:
    """They would take each other's secrets."""
    context = server_context()
    with TlsAcceptor(context, kernel=KernelTls()), pytest.raises(ValueError, match="a context of its own"):
        TlsAcceptor(context, kernel=KernelTls())
