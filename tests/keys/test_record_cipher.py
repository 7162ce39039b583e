"""The truth test of keys and record cipher: records that other implementations wrote must open."""

import pytest

from ktls_server.errors import BadRecordMac
from ktls_server.keys.keylog import KeyLog
from ktls_server.keys.record_cipher import MAX_SEALED_BYTES, RecordOpener, RecordSealer
from ktls_server.keys.schedule import RecordKey
from ktls_server.keys.suites import SUITES, TLS_1_2, TLS_1_3, CipherSuite
from tests.keys.memory_tls import Connection, connect, seal, split_records

every_suite = pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
one_of_each_shape = pytest.mark.parametrize(
    "suite",
    [SUITES[name] for name in ("TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305")],
    ids=lambda suite: suite.name,
)


def connected(suite: CipherSuite) -> Connection:
    with KeyLog() as key_log:
        connection = connect(suite, key_log)
    assert connection.server.tls.cipher()[0] == suite.name  # type: ignore[index]
    return connection


def some_key(suite: CipherSuite) -> RecordKey:
    return RecordKey(bytes(range(suite.key_length)), bytes(range(100, 100 + suite.iv_length)))


@every_suite
def test_what_openssl_wrote_opens_with_the_derived_server_key(suite: CipherSuite) -> None:
    connection = connected(suite)
    _, server_key = connection.record_keys()
    opener = RecordOpener(suite, server_key, connection.server_sequence)
    for data in (b"a", b"second", bytes(16384)):
        assert opener.open(connection.server.write(data)) == (23, data)
    long = [opener.open(record) for record in split_records(connection.server.write(b"z" * 40000))]
    assert b"".join(content for _, content in long) == b"z" * 40000


@every_suite
def test_what_tlslite_wrote_opens_with_the_derived_client_key(suite: CipherSuite) -> None:
    connection = connected(suite)
    client_key, _ = connection.record_keys()
    opener = RecordOpener(suite, client_key, connection.client_sequence)
    for data in (b"a", b"second", bytes(16384)):
        opened = [opener.open(record) for record in split_records(connection.client.write(data))]
        assert {content_type for content_type, _ in opened} == {23}
        assert b"".join(content for _, content in opened) == data


@every_suite
def test_openssl_reads_what_is_sealed_under_the_derived_client_key(suite: CipherSuite) -> None:
    connection = connected(suite)
    client_key, _ = connection.record_keys()
    for number, data in enumerate((b"a", b"second", bytes(16384)), connection.client_sequence):
        assert connection.server.read(seal(suite, client_key, number, 23, data)) == data


@pytest.mark.parametrize("name", [name for name, suite in SUITES.items() if suite.version == TLS_1_3])
def test_the_tickets_are_the_first_records_under_the_server_key(name: str) -> None:
    connection = connected(SUITES[name])
    _, server_key = connection.record_keys()
    opener = RecordOpener(connection.suite, server_key, 0)
    tickets = [opener.open(record) for record in split_records(connection.flights[-1])]
    assert [(content_type, content[0]) for content_type, content in tickets] == [(22, 4), (22, 4)]  # NewSessionTicket
    assert opener.sequence == connection.server_sequence


@pytest.mark.parametrize("name", [name for name, suite in SUITES.items() if suite.version == TLS_1_2])
def test_finished_is_the_first_record_under_the_server_key(name: str) -> None:
    connection = connected(SUITES[name])
    _, server_key = connection.record_keys()
    finished = split_records(connection.flights[-1])[-1]
    content_type, content = RecordOpener(connection.suite, server_key, 0).open(finished)
    assert (content_type, content[0], len(content)) == (22, 20, 16)


@every_suite
def test_openssls_alert_can_be_read(suite: CipherSuite) -> None:
    connection = connected(suite)
    _, server_key = connection.record_keys()
    record = connection.server.shut_down()
    assert RecordOpener(suite, server_key, connection.server_sequence).open(record) == (21, b"\x01\x00")  # close_notify


@one_of_each_shape
@pytest.mark.parametrize("change", ["sequence", "key", "iv", "tag", "header", "cut", "empty"])
def test_a_record_that_is_not_the_next_one_is_refused_and_not_counted(suite: CipherSuite, change: str) -> None:
    record_key, sequence = some_key(suite), 7
    record = seal(suite, record_key, sequence, 23, b"data")
    match change:
        case "sequence":
            sequence += 1
        case "key":
            record_key = RecordKey(bytes(suite.key_length), record_key.iv)
        case "iv":
            record_key = RecordKey(record_key.key, bytes(suite.iv_length))
        case "tag":
            record = record[:-1] + bytes((record[-1] ^ 1,))
        case "header":
            record = bytes((record[0] ^ 1,)) + record[1:]
        case "cut":
            record = record[:12]
        case "empty":
            record = record[:5]
    opener = RecordOpener(suite, record_key, sequence)
    with pytest.raises(BadRecordMac) as caught:
        opener.open(record)
    assert record_key.key.hex() not in str(caught.value)
    assert opener.sequence == sequence


@pytest.mark.parametrize("padding", [0, 1, 500])
def test_tls_1_3_padding_is_taken_off_and_zeros_of_the_content_are_not(padding: int) -> None:
    suite = SUITES["TLS_CHACHA20_POLY1305_SHA256"]
    record = seal(suite, some_key(suite), 3, 22, b"\x00content\x00\x00", padding=padding)
    assert RecordOpener(suite, some_key(suite), 3).open(record) == (22, b"\x00content\x00\x00")


def test_a_tls_1_3_record_of_padding_only_has_no_type() -> None:
    suite = SUITES["TLS_AES_128_GCM_SHA256"]
    assert RecordOpener(suite, some_key(suite), 0).open(seal(suite, some_key(suite), 0, 0, b"", padding=20)) == (0, b"")


@one_of_each_shape
def test_the_highest_sequence_numbers_work(suite: CipherSuite) -> None:
    sequence = 2**64 - 1
    record = seal(suite, some_key(suite), sequence, 23, b"last")
    assert RecordOpener(suite, some_key(suite), sequence).open(record) == (23, b"last")


@every_suite
def test_sealed_records_are_those_of_the_reference(suite: CipherSuite) -> None:
    record_key, first = some_key(suite), 2**40 + 254
    explicit_nonce = first.to_bytes(8, "big") if suite.has_explicit_nonce else None
    sealer = RecordSealer(suite, record_key, first, explicit_nonce)
    contents = ((23, b"a"), (21, b"\x01\x00"), (23, b""), (23, bytes(range(256)) * 64))
    for sequence, (content_type, content) in enumerate(contents, first):
        assert sealer.seal(content_type, content) == seal(suite, record_key, sequence, content_type, content)
    assert sealer.sequence == first + len(contents)


@every_suite
def test_a_buffer_is_sealed_into_another_and_nothing_beyond_the_record_is_touched(suite: CipherSuite) -> None:
    record_key = some_key(suite)
    content, record = bytearray(b"z" * 16385), bytearray(b"-" * (MAX_SEALED_BYTES + 1))
    sealer = RecordSealer(suite, record_key, 0, bytes(8))
    for sequence, size in enumerate((16384, 100)):
        length = sealer.seal_into(23, memoryview(content), size, memoryview(record))
        assert bytes(record[:length]) == seal(suite, record_key, sequence, 23, b"z" * size)
    assert record.endswith(b"-")


def test_the_explicit_nonce_goes_on_from_where_it_was_and_wraps() -> None:
    suite = SUITES["ECDHE-RSA-AES128-GCM-SHA256"]
    sealer = RecordSealer(suite, some_key(suite), 1, b"\xff" * 8)
    opener = RecordOpener(suite, some_key(suite), 1)
    records = [sealer.seal(23, b"data") for _ in range(2)]
    assert [record[5:13] for record in records] == [b"\xff" * 8, bytes(8)]
    assert [opener.open(record) for record in records] == [(23, b"data")] * 2
