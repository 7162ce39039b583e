"""`KeyLog` under real handshakes: what it gives, to whom it belongs, and that nothing stays behind."""

import os
import ssl

import pytest

from ktls_server.keys.keylog import CLIENT_RANDOM, CLIENT_TRAFFIC_SECRET_0, SERVER_TRAFFIC_SECRET_0, KeyLog
from ktls_server.keys.record_cipher import RecordOpener
from ktls_server.keys.suites import SUITES, CipherSuite
from tests.keys.memory_tls import (
    Connection,
    OpenSslSide,
    client_context,
    connect,
    handshake,
    server_context,
    split_records,
)

TLS_1_3 = SUITES["TLS_AES_256_GCM_SHA384"]
TLS_1_2 = SUITES["ECDHE-RSA-AES128-GCM-SHA256"]


def contents(key_log: KeyLog) -> bytes:
    """All that the memfd holds."""
    with open(key_log.path, "rb") as file:
        return file.read()


def labels(connection: Connection) -> list[list[str]]:
    """Of each of the server's calls."""
    return [list(taken) for taken in connection.taken]


def records(connection: Connection) -> list[int]:
    """How many each of the server's calls wrote."""
    return [len(split_records(flight)) for flight in connection.flights]


def openssl_pair(suite: CipherSuite, session: ssl.SSLSession | None = None) -> Connection:
    """Two OpenSSL ends before their handshake."""
    return Connection(
        suite,
        OpenSslSide(server_context(suite), server=True),
        OpenSslSide(client_context(), server=False, session=session),
    )


def finish(connection: Connection, key_log: KeyLog) -> None:
    """Finish the handshake of an OpenSSL pair and have the client read the tickets."""
    for _ in handshake(connection, key_log):
        pass
    assert isinstance(connection.client, OpenSslSide)
    assert connection.client.read(connection.undelivered + connection.server.write(b"hello")) == b"hello"


def session_of(connection: Connection) -> ssl.SSLSession | None:
    assert isinstance(connection.client, OpenSslSide)
    return connection.client.tls.session


@pytest.mark.parametrize(
    ("suite", "full", "resumed"),
    [
        pytest.param(
            TLS_1_3,
            [[SERVER_TRAFFIC_SECRET_0], [CLIENT_TRAFFIC_SECRET_0]],
            [[SERVER_TRAFFIC_SECRET_0], [CLIENT_TRAFFIC_SECRET_0]],
            id="TLS 1.3",
        ),
        pytest.param(TLS_1_2, [[], [CLIENT_RANDOM]], [[CLIENT_RANDOM], []], id="TLS 1.2"),
    ],
)
def test_the_calls_of_a_handshake_log_what_the_module_says(
    suite: CipherSuite, full: list[list[str]], resumed: list[list[str]]
) -> None:
    with KeyLog() as key_log:
        key_log.attach(server_context(suite))
        first = openssl_pair(suite)
        finish(first, key_log)
        second = openssl_pair(suite, session_of(first))
        finish(second, key_log)
    assert second.server.tls.session_reused
    assert labels(first) == full
    assert labels(second) == resumed


@pytest.mark.parametrize(
    ("suite", "full", "resumed"),
    [
        pytest.param(TLS_1_3, 2, 1, id="TLS 1.3: tickets, under the application key"),
        pytest.param(TLS_1_2, 3, 0, id="TLS 1.2: ticket, ChangeCipherSpec, Finished; or all in the first call"),
    ],
)
def test_the_completing_call_writes_so_many_records(suite: CipherSuite, full: int, resumed: int) -> None:
    with KeyLog() as key_log:
        key_log.attach(server_context(suite))
        first = openssl_pair(suite)
        finish(first, key_log)
        second = openssl_pair(suite, session_of(first))
        finish(second, key_log)
    assert records(first)[-1] == full
    assert records(second)[-1] == resumed


@pytest.mark.parametrize("suite", [TLS_1_3, TLS_1_2], ids=["TLS 1.3", "TLS 1.2"])
def test_nothing_but_zeros_is_left_after_take(suite: CipherSuite) -> None:
    with KeyLog() as key_log:
        key_log.attach(server_context(suite))
        connection = openssl_pair(suite)
        for _ in handshake(connection, key_log):
            assert not contents(key_log).strip(b"\x00")
            assert not any(key_log._buffer)
        assert connection.logged
        assert key_log.take() == {}


def test_secrets_are_there_before_take_so_that_the_test_above_means_something() -> None:
    with KeyLog() as key_log:
        key_log.attach(server_context(TLS_1_3))
        connection = openssl_pair(TLS_1_3)
        connection.server.step(connection.client.step(b""))
        assert b"\nSERVER_TRAFFIC_SECRET_0 " in contents(key_log)
        assert list(key_log.take()) == [SERVER_TRAFFIC_SECRET_0]


def test_the_file_does_not_grow_with_the_number_of_handshakes() -> None:
    with KeyLog() as key_log:
        key_log.attach(server_context(TLS_1_3))
        sizes = []
        for _ in range(100):
            finish(openssl_pair(TLS_1_3), key_log)
            sizes.append(len(contents(key_log)))
        assert max(sizes) < 70_000
        assert sizes != sorted(sizes), "it was never truncated"


def test_interleaved_handshakes_get_their_own_secrets() -> None:
    with KeyLog() as key_log:
        connections = [openssl_pair(suite) for suite in (TLS_1_3, TLS_1_2) * 20]
        for suite in (TLS_1_3, TLS_1_2):
            key_log.attach(server_context(suite))
        waiting = [handshake(connection, key_log) for connection in connections]
        while waiting:
            waiting = [steps for steps in waiting if next(steps, "finished") is None]
    client_randoms = {random for connection in connections for random, _ in connection.logged.values()}
    assert len(client_randoms) == len(connections)
    for connection in connections:
        if connection.suite is TLS_1_2:
            # ssl does not say which of our suites it will be, but there is only one.
            assert connection.server.tls.cipher() == (TLS_1_2.name, "TLSv1.2", 128)
        _, server_key = connection.record_keys()
        opener = RecordOpener(connection.suite, server_key, connection.server_sequence)
        assert opener.open(connection.server.write(b"mine")) == (23, b"mine")


def test_a_failed_handshake_leaves_its_lines_to_its_own_take_only() -> None:
    with KeyLog() as key_log:
        key_log.attach(server_context(TLS_1_3))
        failed = openssl_pair(TLS_1_3)
        failed.server.step(failed.client.step(b""))
        taken = key_log.take()
        with pytest.raises(ssl.SSLError):
            failed.server.step(b"\x17\x03\x03\x00\x20" + bytes(32))
        assert key_log.take() == {}
        healthy = openssl_pair(TLS_1_3)
        finish(healthy, key_log)
        assert taken[SERVER_TRAFFIC_SECRET_0][0] != healthy.logged[SERVER_TRAFFIC_SECRET_0][0]


def test_the_last_handshake_is_found_behind_a_backlog_that_nobody_took() -> None:
    with KeyLog() as key_log:
        key_log.attach(server_context(TLS_1_3))
        for _ in range(12):
            forgotten = openssl_pair(TLS_1_3)
            forgotten.server.step(forgotten.client.step(b""))
        assert len(contents(key_log)) > 2 * 4096
        connection = openssl_pair(TLS_1_3)
        finish(connection, key_log)
        _, server_key = connection.record_keys()
        opener = RecordOpener(TLS_1_3, server_key, connection.server_sequence + 1)  # finish() sent one
        assert opener.open(connection.server.write(b"found")) == (23, b"found")
        assert not contents(key_log).strip(b"\x00")


def test_lines_of_other_programs_and_comments_are_passed_over() -> None:
    random, secret = bytes(range(32)), bytes(range(48))
    with KeyLog() as key_log:
        with open(key_log.path, "ab") as file:
            file.write(b"# TLS secrets log file\nSERVER_HANDSHAKE_TRAFFIC_SECRET " + b"11" * 32 + b" " + b"22" * 32)
            file.write(f"\nCLIENT_RANDOM {random.hex()} {secret.hex().upper()}\nEXPORTER_SECRET 00 11\n".encode())
        assert key_log.take() == {CLIENT_RANDOM: (random, secret)}


@pytest.mark.parametrize("updates", [1, 17, 1000])
def test_the_secrets_of_key_updates_in_between_are_passed_over_and_wiped(updates: int) -> None:
    """OpenSSL versions that log them write such lines while records are read, with no handshake going on."""
    with KeyLog() as key_log:
        connect(TLS_1_3, key_log)
        with open(key_log.path, "ab") as file:
            file.write(f"CLIENT_TRAFFIC_SECRET_N {'11' * 32} {'22' * 48}\n".encode() * updates)
        connection = connect(TLS_1_3, key_log)
        assert labels(connection) == [[SERVER_TRAFFIC_SECRET_0], [CLIENT_TRAFFIC_SECRET_0]]
        assert not contents(key_log).strip(b"\x00")
        assert len(contents(key_log)) < 70_000


def test_the_file_is_anonymous_and_closed_on_exec() -> None:
    with KeyLog() as key_log:
        fd = int(key_log.path.rpartition("/")[2])
        assert os.readlink(key_log.path).startswith("/memfd:")
        assert not os.get_inheritable(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    key_log.close()


def test_two_key_logs_do_not_see_each_other() -> None:
    with KeyLog() as one, KeyLog() as other:
        one.attach(server_context(TLS_1_3))
        connection = openssl_pair(TLS_1_3)
        connection.server.step(connection.client.step(b""))
        assert other.take() == {}
        assert one.take()


def test_connecting_with_another_implementation_logs_the_same() -> None:
    with KeyLog() as key_log:
        assert labels(connect(TLS_1_3, key_log)) == [[SERVER_TRAFFIC_SECRET_0], [CLIENT_TRAFFIC_SECRET_0]]
        assert labels(connect(TLS_1_2, key_log)) == [[], [CLIENT_RANDOM]]
