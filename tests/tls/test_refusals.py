"""What becomes of a connection whose key the kernel refuses, whichever of its keys that is. Needs no kernel TLS."""

import asyncio
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import cast

import pytest

from ktls_server.errors import ConnectionLost, KernelTlsUnavailable
from ktls_server.handshake.session import Session
from ktls_server.kernel import sockets
from ktls_server.kernel.probe import KernelTls
from ktls_server.keys.keylog import CLIENT_TRAFFIC_SECRET_0, SERVER_TRAFFIC_SECRET_0, KeyLog, Tls13Secrets
from ktls_server.keys.suites import SUITES
from ktls_server.net.channel import Channel
from ktls_server.transport.choice import TransportPolicy, establish
from ktls_server.transport.interface import Transport
from tests.keys.memory_tls import Connection, connect
from tests.tls.wire_client import key_update

SUITE = SUITES["TLS_AES_128_GCM_SHA256"]
ABILITY = frozenset({(SUITE.kind, SUITE.version)})
POLICY = TransportPolicy(
    kernel=KernelTls(ABILITY, ABILITY, rekey=True), transmit=True, receive=True, record_limit=1 << 24
)


class Kernel:
    """Stands for the system calls of kernel TLS: takes every key but those that it is told to refuse."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused: set[str] = set()
        self.controls: list[tuple[int, bytes]] = []
        monkeypatch.setattr(sockets, "attach", lambda _sock: None)
        monkeypatch.setattr(sockets, "install_transmit", lambda _sock, _info: self._install("transmit"))
        monkeypatch.setattr(sockets, "install_receive", lambda _sock, _info: self._install("receive"))
        monkeypatch.setattr(sockets, "send_control", self._send_control)

    def _install(self, direction: str) -> None:
        if direction in self.refused:
            raise KernelTlsUnavailable(f"setsockopt of {direction} failed (ENOMEM)")

    def _send_control(self, _sock: socket.socket, content_type: int, content: bytes) -> int:
        self.controls.append((content_type, content))
        return len(content)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


@pytest.fixture
def connection() -> Connection:
    with KeyLog() as key_log:
        return connect(SUITE, key_log)


@pytest.fixture
def session(connection: Connection) -> Session:
    """As the handshake leaves it, with a request that came together with the client's Finished."""
    server = connection.server
    server.incoming.write(connection.client.write(b"hello"))
    logged = connection.logged
    return Session(
        tls=server.tls,
        incoming=server.incoming,
        outgoing=server.outgoing,
        version="TLSv1.3",
        cipher=SUITE.name,
        suite=SUITE,
        secrets=Tls13Secrets(server=logged[SERVER_TRAFFIC_SECRET_0][1], client=logged[CLIENT_TRAFFIC_SECRET_0][1]),
        server_random=connection.server_random,
        transmit_sequence=connection.server_sequence,
    )


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.setblocking(False)
    yield near, far
    far.close()


@pytest.fixture
def far(ends: tuple[socket.socket, socket.socket]) -> socket.socket:
    """The client's end of the channel."""
    return ends[1]


@pytest.fixture
async def channel(ends: tuple[socket.socket, socket.socket]) -> AsyncIterator[Channel]:
    channel = Channel(ends[0], asyncio.get_running_loop())
    yield channel
    channel.close()


def receive(transport: Transport) -> bytes | None:
    """What is there, without waiting: it came together with the client's Finished."""
    return transport.reader.read()


async def test_the_kernel_takes_all(kernel: Kernel, session: Session, channel: Channel) -> None:
    transport = establish(channel, session, POLICY)
    assert transport.writer.path == "kernel"
    assert receive(transport) == b"hello"


class StandIn:
    """In the place of an SSLObject that nobody asks for anything."""


@pytest.mark.parametrize("offloaded", [True, False])
async def test_the_ssl_object_goes_whoever_decrypts(
    kernel: Kernel, session: Session, channel: Channel, offloaded: bool
) -> None:
    stand_in = cast(ssl.SSLObject, StandIn())
    seen = weakref.ref(stand_in)
    session = replace(session, tls=stand_in)
    del stand_in
    transport = establish(channel, session, replace(POLICY, receive=offloaded))
    del session
    assert seen() is None
    assert transport.writer.path == "kernel"


async def test_the_kernel_does_not_take_the_sending_key(
    kernel: Kernel, session: Session, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.refused.add("transmit")
    transport = establish(channel, session, POLICY)
    assert transport.writer.path == "userspace"
    assert receive(transport) == b"hello"
    assert "ENOMEM" in caplog.text


async def test_the_kernel_does_not_take_the_receiving_key(
    kernel: Kernel, session: Session, channel: Channel, far: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    """This process decrypts."""
    kernel.refused.add("receive")
    request = session.incoming.read()
    transport = establish(channel, session, POLICY)
    assert transport.writer.path == "kernel"
    far.sendall(request)
    assert receive(transport) == b"hello"
    assert "ENOMEM" in caplog.text


async def test_the_kernel_does_not_take_the_receiving_key_once_records_were_opened_without_it(
    kernel: Kernel, session: Session, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel has not seen those: there is no way back."""
    kernel.refused.add("receive")
    transport = establish(channel, session, POLICY)
    with pytest.raises(ConnectionLost):
        receive(transport)
    assert "ENOMEM" in caplog.text


async def test_the_kernel_does_not_take_the_next_key(
    kernel: Kernel, session: Session, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    """KeyUpdate is out and the old key must not be used again: the connection is cut, which is nobody's fault here."""
    transport = establish(channel, session, replace(POLICY, record_limit=1))
    kernel.refused.add("transmit")
    with pytest.raises(ConnectionLost):
        await transport.writer.send(b"data")
    assert kernel.controls == [(22, key_update(requested=False))]
    assert "ENOMEM" in caplog.text
