"""tlslite-ng, a TLS stack in pure Python that shares no line with OpenSSL, as the client from the handshake to the end."""

import socket
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from ktls_server.keys.suites import SUITES, CipherKind
from tests.server.running import Server
from tests.server.site import SMALL, content
from tests.tls.wire_client import TLS12_SUITES, TLS13_SUITES, get_request
from tests.waiting import WAIT_SECONDS

with warnings.catch_warnings():  # It imports asyncore, deprecated in Python 3.11.
    warnings.simplefilter("ignore", DeprecationWarning)
    from tlslite.api import HandshakeSettings, TLSAbruptCloseError, TLSConnection, TLSRemoteAlert
    from tlslite.constants import AlertDescription, AlertLevel, KeyUpdateMessageType
    from tlslite.messages import Alert, ApplicationData

CIPHERS = {
    CipherKind.AES_128_GCM: "aes128gcm",
    CipherKind.AES_256_GCM: "aes256gcm",
    CipherKind.CHACHA20_POLY1305: "chacha20-poly1305",
}
REQUEST = get_request("/small.txt")

Connect = Callable[..., Any]
"""A suite's name and settings of tlslite's, to a TLSConnection."""


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    sockets: list[socket.socket] = []

    def connect(suite_name: str, **wanted: object) -> Any:
        suite = SUITES[suite_name]
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = (suite.version >> 8, suite.version & 0xFF)
        settings.cipherNames = [CIPHERS[suite.kind]]
        for name, value in wanted.items():
            setattr(settings, name, value)
        sockets.append(socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_SECONDS))
        connection = TLSConnection(sockets[-1])
        connection.closeSocket = False
        connection.handshakeClientCert(serverName="localhost", settings=settings)
        assert connection.version == (suite.version >> 8, suite.version & 0xFF)
        return connection

    yield connect
    for sock in sockets:
        sock.close()


def run(steps: Iterable[object]) -> None:
    """tlslite's asynchronous calls are generators; on a blocking socket they run through."""
    for _ in steps:
        pass


def read_answer(connection: Any) -> bytes:
    """The body of the next response, whose head is checked."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += read_some(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode().lower().split("\r\n")
    assert status_line.startswith("http/1.1 200")
    (length,) = (int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
    while len(body) < length:
        body += read_some(connection)
    return body


def read_some(connection: Any) -> bytes:
    data = bytes(connection.read(max=65536, min=1))
    assert data, "the stream ended within a response"
    return data


@pytest.mark.parametrize("suite", [*TLS13_SUITES, *TLS12_SUITES])
def test_a_download_between_small_requests(connect: Connect, suite: str) -> None:
    """More than one record, and no more: AES in pure Python makes about 100 KB/s."""
    connection = connect(suite)
    for path, expected in (("/small.txt", SMALL), ("/16385.bin", content(16385)), ("/small.txt", SMALL)):
        connection.write(get_request(path))
        assert read_answer(connection) == expected
    connection.close()


@pytest.mark.kernel_matrix("tlslite-ng as the client")
@pytest.mark.parametrize("suite", [*TLS13_SUITES, *TLS12_SUITES])
def test_fragmented_and_empty_records(connect: Connect, suite: str) -> None:
    connection = connect(suite)
    connection.recordSize = 7
    connection.write(REQUEST)
    assert read_answer(connection) == SMALL
    run(connection._sendMsg(ApplicationData().create(b""), randomizeFirstBlock=False))
    connection.write(REQUEST)
    assert read_answer(connection) == SMALL


@pytest.mark.kernel_matrix("tlslite-ng as the client")
@pytest.mark.parametrize("suite", TLS13_SUITES)
def test_padded_records(connect: Connect, suite: str) -> None:
    def padding(length: int, _content_type: int, most: int) -> int:
        return min(most, 3 * length)

    connection = connect(suite, padding_cb=padding)
    for _ in range(3):
        connection.write(REQUEST)
        assert read_answer(connection) == SMALL


@pytest.mark.kernel_matrix("tlslite-ng as the client")
@pytest.mark.parametrize("suite", TLS13_SUITES)
def test_key_updates_in_the_middle_of_a_request(connect: Connect, suite: str, follows_key_updates: bool) -> None:
    kinds = [KeyUpdateMessageType.update_not_requested]
    if follows_key_updates:
        kinds.append(KeyUpdateMessageType.update_requested)
    connection = connect(suite)
    for kind in kinds * 3:
        connection.write(REQUEST[:11])
        run(connection.send_keyupdate_request(kind))
        connection.write(REQUEST[11:])
        assert read_answer(connection) == SMALL


@pytest.mark.kernel_matrix("tlslite-ng as the client")
def test_a_warning_interleaved_with_a_request(connect: Connect) -> None:
    connection = connect(TLS12_SUITES[0])
    connection.write(REQUEST[:11])
    alert = Alert().create(AlertDescription.user_canceled, AlertLevel.warning)
    run(connection._sendMsg(alert))
    connection.write(REQUEST[11:])
    assert read_answer(connection) == SMALL


@pytest.mark.kernel_matrix("tlslite-ng as the client")
@pytest.mark.parametrize("suite", [TLS13_SUITES[0], TLS12_SUITES[0]])
def test_the_server_closes_in_order(connect: Connect, suite: str) -> None:
    """tlslite raises TLSAbruptCloseError where close_notify is missing."""
    connection = connect(suite)
    connection.write(get_request("/small.txt", "Connection: close"))
    assert read_answer(connection) == SMALL
    assert connection.read(max=1, min=1) == b""
    assert connection.closed


@pytest.mark.parametrize("suite", [*TLS13_SUITES, *TLS12_SUITES])
def test_tlslite_understands_the_servers_alert(connect: Connect, suite: str) -> None:
    connection = connect(suite)
    connection.write(REQUEST)
    assert read_answer(connection) == SMALL
    connection._recordLayer._writeState.seqnum += 1
    connection.write(REQUEST)
    with pytest.raises(TLSRemoteAlert) as alert:
        connection.read(max=1, min=1)
    assert alert.value.description == AlertDescription.bad_record_mac


@pytest.mark.parametrize("suite", [TLS13_SUITES[0], TLS12_SUITES[0]])
def test_a_fatal_alert_ends_the_connection(connect: Connect, suite: str) -> None:
    """What comes after it is not answered, and it has no answer itself (RFC 8446 section 6.2)."""
    connection = connect(suite)
    connection.write(REQUEST)
    assert read_answer(connection) == SMALL
    run(connection._sendMsg(Alert().create(AlertDescription.internal_error, AlertLevel.fatal)))
    connection.write(REQUEST)
    with pytest.raises((TLSAbruptCloseError, ConnectionError)):
        connection.read(max=1, min=1)


@pytest.mark.kernel_matrix("tlslite-ng as the client")
@pytest.mark.parametrize("suite", [TLS13_SUITES[0], TLS12_SUITES[0]])
def test_data_after_close_notify_is_not_answered(connect: Connect, suite: str) -> None:
    connection = connect(suite)
    run(connection._sendMsg(Alert().create(AlertDescription.close_notify, AlertLevel.warning)))
    connection.write(REQUEST)
    assert connection.read(max=1, min=1) == b""
    assert connection.closed
