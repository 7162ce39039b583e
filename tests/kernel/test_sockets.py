"""The kernel's record layer against OpenSSL's, and what the kernel refuses.

A handshake in memory gives the keys; the kernel is then the client's end of a TCP connection, and OpenSSL, still an
`ssl.SSLObject`, the server's.
"""

import contextlib
import errno
import os
import re
import socket
from pathlib import Path

import pytest

from ktls_server.errors import KernelTlsUnavailable
from ktls_server.kernel.crypto_info import pack
from ktls_server.kernel.probe import KernelTls, tls_stat
from ktls_server.kernel.sockets import attach, install_receive, install_transmit, receive, send_control
from ktls_server.keys.keylog import CLIENT_TRAFFIC_SECRET_0, KeyLog
from ktls_server.keys.schedule import next_traffic_secret, tls13_record_key
from ktls_server.keys.suites import SUITES, CipherSuite
from tests.kernel.conftest import SocketPair
from tests.keys.memory_tls import Connection, connect, seal

ALERT, HANDSHAKE, APPLICATION_DATA = 21, 22, 23
CLOSE_NOTIFY = b"\x01\x00"
AES_128 = SUITES["TLS_AES_128_GCM_SHA256"]

every_suite = pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)


def connected(suite: CipherSuite) -> Connection:
    with KeyLog() as key_log:
        return connect(suite, key_log)


def key_client_socket(connection: Connection, sock: socket.socket) -> None:
    """Make `sock` the client's end of `connection`, in both directions."""
    client_key, server_key = connection.record_keys()
    attach(sock)
    install_transmit(sock, pack(connection.suite, client_key, connection.client_sequence, os.urandom(8)))
    install_receive(sock, pack(connection.suite, server_key, connection.server_sequence))


def recv_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += sock.recv(count - len(data))
    return data


def recv_record(sock: socket.socket) -> bytes:
    header = recv_exactly(sock, 5)
    return header + recv_exactly(sock, int.from_bytes(header[3:5], "big"))


@every_suite
def test_openssl_reads_what_the_kernel_wrote(suite: CipherSuite, kernel_tls: KernelTls, tcp_pair: SocketPair) -> None:
    near, far = tcp_pair
    connection = connected(suite)
    assert kernel_tls.transmit(suite)
    before = tls_stat()
    key_client_socket(connection, near)
    assert tls_stat()["TlsTxSw"] == before["TlsTxSw"] + 1
    for data in (b"the first record", b"the second one", os.urandom(16384)):
        near.sendall(data)
        record = recv_record(far)
        assert data not in record
        assert connection.server.read(record) == data


@every_suite
def test_the_kernel_reads_what_openssl_wrote(suite: CipherSuite, kernel_tls: KernelTls, tcp_pair: SocketPair) -> None:
    near, far = tcp_pair
    connection = connected(suite)
    assert kernel_tls.receive(suite)
    before = tls_stat()
    key_client_socket(connection, near)
    assert tls_stat()["TlsRxSw"] == before["TlsRxSw"] + 1
    for data in (b"the first record", b"the second one", os.urandom(16384)):
        far.sendall(connection.server.write(data))
        assert receive(near, 65536) == (APPLICATION_DATA, data)
    assert tls_stat()["TlsDecryptError"] == before["TlsDecryptError"]


@every_suite
def test_control_records_keep_their_type_in_both_directions(
    suite: CipherSuite, kernel_tls: KernelTls, tcp_pair: SocketPair
) -> None:
    near, far = tcp_pair
    connection = connected(suite)
    key_client_socket(connection, near)
    far.sendall(connection.server.write(b"data") + connection.server.shut_down())
    assert receive(near, 65536) == (APPLICATION_DATA, b"data")
    assert receive(near, 65536) == (ALERT, CLOSE_NOTIFY)
    assert send_control(near, ALERT, CLOSE_NOTIFY) == 2
    # Reading a close_notify is what completes the unwrap() that the server began; anything else would raise.
    connection.server.incoming.write(recv_record(far))
    connection.server.tls.unwrap()


def test_sendfile_goes_out_encrypted(kernel_tls: KernelTls, tcp_pair: SocketPair, tmp_path: Path) -> None:
    near, far = tcp_pair
    connection = connected(AES_128)
    key_client_socket(connection, near)
    content = os.urandom(50_000)
    file = tmp_path / "file"
    file.write_bytes(content)
    received = b""
    with file.open("rb") as opened:
        assert os.sendfile(near.fileno(), opened.fileno(), 0, len(content)) == len(content)
    while len(received) < len(content):
        received += connection.server.read(recv_record(far))
    assert received == content


def test_a_reader_with_a_small_buffer_gets_one_record_in_pieces(kernel_tls: KernelTls, tcp_pair: SocketPair) -> None:
    near, far = tcp_pair
    connection = connected(AES_128)
    key_client_socket(connection, near)
    far.sendall(connection.server.write(b"0123456789") + connection.server.shut_down())
    assert receive(near, 4) == (APPLICATION_DATA, b"0123")
    assert receive(near, 4) == (APPLICATION_DATA, b"4567")
    assert receive(near, 4) == (APPLICATION_DATA, b"89"), "never mixed with the alert that follows"
    assert receive(near, 4) == (ALERT, CLOSE_NOTIFY)


def test_the_end_of_the_stream_is_none_and_no_record(kernel_tls: KernelTls, tcp_pair: SocketPair) -> None:
    near, far = tcp_pair
    key_client_socket(connected(AES_128), near)
    far.shutdown(socket.SHUT_WR)
    assert receive(near, 100) is None


def test_half_a_record_blocks_and_is_not_lost(kernel_tls: KernelTls, tcp_pair: SocketPair) -> None:
    near, far = tcp_pair
    connection = connected(AES_128)
    key_client_socket(connection, near)
    near.setblocking(False)
    record = connection.server.write(b"in two parts")
    far.sendall(record[:10])
    with pytest.raises(BlockingIOError):
        receive(near, 100)
    far.sendall(record[10:])
    near.settimeout(10)
    assert receive(near, 100) == (APPLICATION_DATA, b"in two parts")


def test_a_full_socket_raises_blocking_io_error_for_a_control_record(
    kernel_tls: KernelTls, tcp_pair: SocketPair
) -> None:
    near, _ = tcp_pair
    key_client_socket(connected(AES_128), near)
    near.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while near.send(bytes(65536)):
            pass
    with pytest.raises(BlockingIOError):
        send_control(near, ALERT, CLOSE_NOTIFY)


def test_an_empty_record_is_passed_over(kernel_tls: KernelTls, tcp_pair: SocketPair) -> None:
    """RFC 8446 section 5.1 allows application data of no bytes; it must not look like the end of the stream."""
    near, far = tcp_pair
    connection = connected(AES_128)
    key_client_socket(connection, near)
    near.setblocking(False)
    _, server_key = connection.record_keys()
    far.sendall(seal(AES_128, server_key, connection.server_sequence, APPLICATION_DATA, b"", padding=3))
    with pytest.raises(BlockingIOError):
        receive(near, 100)
    far.sendall(seal(AES_128, server_key, connection.server_sequence + 1, APPLICATION_DATA, b"data"))
    assert receive(near, 100) == (APPLICATION_DATA, b"data")


@pytest.mark.parametrize(
    ("record", "error"),
    [
        pytest.param(b"\x17\x03\x03\x00\x20" + bytes(32), errno.EBADMSG, id="does not decrypt"),
        pytest.param(b"\x17\x03\x03\x00\x02ab", errno.EBADMSG, id="too short for a tag"),
        pytest.param(b"\x17\x03\x03\x48\x00" + bytes(0x4800), errno.EMSGSIZE, id="longer than 2^14 + 256"),
        pytest.param(b"\x17\x03\x01\x00\x20" + bytes(32), errno.EINVAL, id="TLS 1.0 on the record"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", errno.EINVAL, id="plain text"),
    ],
)
def test_a_bad_record_raises_the_errno_of_the_kernels_documentation(
    record: bytes, error: int, kernel_tls: KernelTls, tcp_pair: SocketPair
) -> None:
    near, far = tcp_pair
    key_client_socket(connected(AES_128), near)
    far.sendall(record)
    with pytest.raises(OSError, match=re.escape(os.strerror(error))) as caught:
        receive(near, 65536)
    assert caught.value.errno == error


def test_a_second_key_is_refused_or_used_as_the_probe_said(kernel_tls: KernelTls, tcp_pair: SocketPair) -> None:
    near, far = tcp_pair
    connection = connected(AES_128)
    key_client_socket(connection, near)
    secret = next_traffic_secret(AES_128, connection.logged[CLIENT_TRAFFIC_SECRET_0][1])
    info = pack(AES_128, tls13_record_key(AES_128, secret), 0)
    if not kernel_tls.rekey:
        with pytest.raises(KernelTlsUnavailable, match=r"^setsockopt\(TLS_TX\) failed \(EBUSY\)$"):
            install_transmit(near, info)
        near.sendall(b"still under the first key")
        assert connection.server.read(recv_record(far)) == b"still under the first key"
        return
    assert send_control(near, HANDSHAKE, b"\x18\x00\x00\x01\x00") == 5  # KeyUpdate(update_not_requested)
    install_transmit(near, info)
    near.sendall(b"under the next key")
    assert connection.server.read(recv_record(far) + recv_record(far)) == b"under the next key"


def test_attaching_twice_is_refused(kernel_tls: KernelTls, tcp_pair: SocketPair) -> None:
    attach(tcp_pair[0])
    with pytest.raises(KernelTlsUnavailable, match=r"^setsockopt\(TCP_ULP, \"tls\"\) failed \(EEXIST\)$"):
        attach(tcp_pair[0])


def test_attaching_an_unconnected_socket_is_refused(kernel_tls: KernelTls) -> None:
    with (
        socket.socket() as sock,
        pytest.raises(KernelTlsUnavailable, match=r"^setsockopt\(TCP_ULP, \"tls\"\) failed \(ENOTCONN\)$"),
    ):
        attach(sock)


def test_an_unknown_cipher_is_refused(kernel_tls: KernelTls, tcp_pair: SocketPair) -> None:
    attach(tcp_pair[0])
    with pytest.raises(KernelTlsUnavailable, match=r"^setsockopt\(TLS_RX\) failed \(EINVAL\)$"):
        install_receive(tcp_pair[0], b"\x04\x03\xff\x00" + bytes(36))


def test_what_is_not_tcp_cannot_be_attached() -> None:
    """On any kernel: the refusal names the step and the error, and is our exception."""
    near, far = socket.socketpair()
    with near, far, pytest.raises(KernelTlsUnavailable, match=r"^setsockopt\(TCP_ULP, \"tls\"\) failed \(E\w+\)$"):
        attach(near)
