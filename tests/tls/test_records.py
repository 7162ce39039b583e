"""What a client may put into records after the handshake, and what it may not (RFC 8446 section 5, RFC 5246 section 6.2).

Lawful oddities change nothing about the answer. A broken rule gets the alert that names it, the connection is closed, no
byte of an answer leaks out, and the server goes on as before.
"""

from collections.abc import Callable

import pytest

from tests.server.running import Server
from tests.server.site import SMALL
from tests.tls.conftest import Connect
from tests.tls.wire_client import (
    ALERT,
    APPLICATION_DATA,
    BAD_RECORD_MAC,
    CHANGE_CIPHER_SPEC,
    CLIENT_HELLO,
    CLOSE_NOTIFY,
    FATAL,
    HANDSHAKE,
    INTERNAL_ERROR,
    NO_RENEGOTIATION,
    PROTOCOL_VERSION,
    RECORD_OVERFLOW,
    TLS12_SUITES,
    TLS13_SUITES,
    UNEXPECTED_MESSAGE,
    USER_CANCELED,
    WARNING,
    WireClient,
    get_request,
)

each_version = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
each_suite = pytest.mark.parametrize("suite", [*TLS12_SUITES, *TLS13_SUITES])

REQUEST = get_request("/small.txt")
MOST = 1 << 14
"""Bytes of content that one record may carry (RFC 8446 section 5.1)."""
MAX_HEAD_BYTES = 32_768

FINISHED_BYTES = bytes((20, 0, 0, 12)) + bytes(12)
CERTIFICATE_BYTES = bytes((11, 0, 0, 4, 0, 0, 0, 0))
UNEXPECTED_HELLO_BYTES = bytes((CLIENT_HELLO, 0, 0, 2, 3, 3))


def expect_small(client: WireClient) -> None:
    answer = client.answer()
    assert (answer.status, answer.body) == (200, SMALL)


def expect_refusal(client: WireClient, *descriptions: int) -> None:
    """One fatal alert, one of those given; no data; the end."""
    ending = client.ending()
    assert ending.data == b""
    assert ending.alerts in [[(FATAL, description)] for description in descriptions]


@pytest.mark.kernel_matrix("fragmented requests")
@each_suite
def test_a_request_in_records_of_one_byte(connect: Connect, suite: str) -> None:
    client = connect(suite)
    client.send_raw(b"".join(client.seal(bytes((byte,))) for byte in REQUEST))
    expect_small(client)


@each_suite
def test_records_that_arrive_byte_by_byte(connect: Connect, suite: str) -> None:
    client = connect(suite)
    for byte in client.seal(REQUEST):
        client.send_raw(bytes((byte,)))
    expect_small(client)


@each_version
def test_a_record_of_the_largest_size(connect: Connect, version: str) -> None:
    client = connect(version)
    filling = MOST - len(get_request("/small.txt", "X: "))
    client.send(get_request("/small.txt", "X: " + "x" * filling))
    expect_small(client)


@each_version
def test_several_requests_in_one_record(connect: Connect, version: str) -> None:
    client = connect(version)
    client.send(REQUEST * 3)
    for _ in range(3):
        expect_small(client)


@pytest.mark.kernel_matrix("empty records")
@each_version
def test_empty_records_around_a_request(connect: Connect, version: str) -> None:
    """Application data of no length is lawful, as a defence against traffic analysis (RFC 8446 section 5.1)."""
    client = connect(version)
    client.send(b"")
    client.send_raw(client.seal(b"") + client.seal(REQUEST[:5]) + client.seal(b"") + client.seal(REQUEST[5:]))
    expect_small(client)
    client.send_raw(client.seal(b"") + client.seal(REQUEST) + client.seal(b""))
    expect_small(client)


@pytest.mark.kernel_matrix("padded records (TLS 1.3)")
@pytest.mark.parametrize("suite", TLS13_SUITES)
def test_padded_records(connect: Connect, suite: str) -> None:
    client = connect(suite)
    for padding in (1, 255, MOST - len(REQUEST)):
        client.send(REQUEST, padding=padding)
        expect_small(client)
    client.send(b"", padding=1000)
    client.send(REQUEST)
    expect_small(client)


@pytest.mark.kernel_matrix("requests that come with the Finished")
@each_suite
def test_bytes_that_come_with_the_finished(connect: Connect, suite: str) -> None:
    """Whole records, which the kernel will never see, and part of one, which it must not see the rest of."""

    records = b""

    def requests(client: WireClient) -> bytes:
        nonlocal records
        records = client.seal(REQUEST) + client.seal(REQUEST[:7]) + client.seal(REQUEST[7:])
        return records[:-40]

    client = connect(suite, with_finished=requests)
    client.send_raw(records[-40:])
    for _ in range(2):
        expect_small(client)
    client.send(REQUEST)
    expect_small(client)


@each_version
def test_part_of_a_header_that_comes_with_the_finished(connect: Connect, version: str) -> None:
    record = b""

    def first_bytes(client: WireClient) -> bytes:
        nonlocal record
        record = client.seal(REQUEST)
        return record[:3]

    client = connect(version, with_finished=first_bytes)
    client.send_raw(record[3:10])
    client.send_raw(record[10:])
    expect_small(client)


@pytest.mark.kernel_matrix("requests that come with the Finished")
@each_version
def test_a_request_is_answered_although_part_of_the_next_came_with_it(connect: Connect, version: str) -> None:
    """Together with the Finished, where the server has both in hand and could wait for the wrong one."""
    records = b""

    def one_and_a_half(client: WireClient) -> bytes:
        nonlocal records
        records = client.seal(REQUEST) + client.seal(REQUEST)
        return records[:-10]

    client = connect(version, with_finished=one_and_a_half)
    expect_small(client)
    client.send_raw(records[-10:])
    expect_small(client)


@each_version
def test_a_wrong_mac_is_refused_although_part_of_a_record_came_with_it(connect: Connect, version: str) -> None:
    def one_and_a_half(client: WireClient) -> bytes:
        return client.seal(REQUEST)[:-1] + b"?" + client.seal(REQUEST)[:10]

    expect_refusal(connect(version, with_finished=one_and_a_half), BAD_RECORD_MAC)


@each_version
def test_a_header_that_claims_too_much_right_after_the_finished(connect: Connect, version: str) -> None:
    # A kernel that decrypts looks at a header of TLS 1.2 once the 8 bytes of nonce_explicit are there, too.
    header = bytes((APPLICATION_DATA, 3, 3, 0xFF, 0xFF)) + bytes(8)
    expect_refusal(connect(version, with_finished=lambda _client: header), RECORD_OVERFLOW)


@pytest.mark.kernel_matrix("close_notify")
@each_version
def test_close_notify_is_answered(connect: Connect, version: str) -> None:
    client = connect(version)
    client.send(REQUEST)
    expect_small(client)
    client.send(bytes((WARNING, CLOSE_NOTIFY)), ALERT)
    ending = client.ending()
    assert (ending.data, ending.alerts) == (b"", [(WARNING, CLOSE_NOTIFY)])


@each_version
def test_requests_before_close_notify_are_answered(connect: Connect, version: str) -> None:
    """A client may say that it has said everything, and still want its answers."""
    client = connect(version)
    client.send_raw(client.seal(REQUEST * 2) + client.seal(bytes((WARNING, CLOSE_NOTIFY)), ALERT))
    for _ in range(2):
        expect_small(client)
    assert client.ending().alerts == [(WARNING, CLOSE_NOTIFY)]


@pytest.mark.kernel_matrix("data after close_notify ignored")
@each_version
def test_data_after_close_notify_is_ignored(connect: Connect, version: str) -> None:
    """RFC 8446 section 6.1: any data received after a closure alert MUST be ignored."""
    client = connect(version)
    client.send_raw(client.seal(bytes((WARNING, CLOSE_NOTIFY)), ALERT) + client.seal(REQUEST) + b"and noise")
    ending = client.ending()
    assert (ending.data, ending.alerts) == (b"", [(WARNING, CLOSE_NOTIFY)])


@pytest.mark.kernel_matrix("alerts of both levels")
@each_version
@pytest.mark.parametrize("description", [UNEXPECTED_MESSAGE, BAD_RECORD_MAC, 80])
def test_a_fatal_alert_ends_the_connection_without_an_answer(connect: Connect, version: str, description: int) -> None:
    client = connect(version)
    client.send_raw(client.seal(bytes((FATAL, description)), ALERT) + client.seal(REQUEST))
    ending = client.ending()
    assert (ending.data, ending.alerts) == (b"", [])


@pytest.mark.kernel_matrix("alerts of both levels")
@pytest.mark.parametrize(
    ("version", "description"), [("TLSv1.2", USER_CANCELED), ("TLSv1.2", 41), ("TLSv1.3", USER_CANCELED)]
)
def test_a_warning_changes_nothing(connect: Connect, version: str, description: int) -> None:
    """In TLS 1.3 user_canceled is the only one (RFC 8446 section 6.1); 41, no_certificate, was once sent by browsers."""
    client = connect(version)
    client.send(bytes((WARNING, description)), ALERT)
    client.send(REQUEST)
    expect_small(client)


def test_in_tls_13_a_warning_is_no_warning(connect: Connect) -> None:
    """RFC 8446 section 6: error alerts MUST be treated as fatal, whatever their level says."""
    client = connect("TLSv1.3")
    client.send_raw(client.seal(bytes((WARNING, UNEXPECTED_MESSAGE)), ALERT) + client.seal(REQUEST))
    assert client.ending().data == b""


@each_version
def test_a_flood_of_warnings_is_ended(connect: Connect, version: str) -> None:
    client = connect(version)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        send_forever(client, lambda: client.seal(bytes((WARNING, USER_CANCELED)), ALERT))


def test_a_flood_of_client_hellos_is_ended(connect: Connect) -> None:
    client = connect("TLSv1.2")
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        send_forever(client, lambda: client.seal(UNEXPECTED_HELLO_BYTES, HANDSHAKE))


def send_forever(client: WireClient, record: Callable[[], bytes]) -> None:
    while True:
        client.send_raw(record())


@pytest.mark.kernel_matrix("renegotiation declined (TLS 1.2)")
def test_renegotiation_is_declined_and_the_connection_goes_on(connect: Connect) -> None:
    """RFC 5746 section 4.5, RFC 5246 section 7.2.2: no_renegotiation is a warning. It comes at once, not with an answer."""
    client = connect("TLSv1.2")
    client.send(UNEXPECTED_HELLO_BYTES, HANDSHAKE)
    assert client.receive_record() == (ALERT, bytes((WARNING, NO_RENEGOTIATION)))
    client.send(REQUEST)
    expect_small(client)


@pytest.mark.kernel_matrix("alert for a wrong MAC")
@each_suite
def test_a_wrong_mac(connect: Connect, suite: str) -> None:
    client = connect(suite)
    client.send(REQUEST)
    expect_small(client)
    record = bytearray(client.seal(REQUEST))
    record[-1] ^= 1
    client.send_raw(bytes(record))
    expect_refusal(client, BAD_RECORD_MAC)


@each_suite
def test_a_wrong_mac_right_after_the_finished(connect: Connect, suite: str) -> None:
    def tampered(client: WireClient) -> bytes:
        record = bytearray(client.seal(REQUEST))
        record[-1] ^= 1
        return bytes(record) + client.seal(REQUEST)

    expect_refusal(connect(suite, with_finished=tampered), BAD_RECORD_MAC)


@each_version
@pytest.mark.parametrize("skipped", [1, -1])
def test_a_record_out_of_sequence(connect: Connect, version: str, skipped: int) -> None:
    """One is missing, or one comes twice."""
    client = connect(version)
    client.send(REQUEST)
    expect_small(client)
    client.sealer.sequence += skipped
    client.send(REQUEST)
    expect_refusal(client, BAD_RECORD_MAC)


@each_version
def test_a_header_that_claims_more_than_any_record_has(connect: Connect, version: str) -> None:
    client = connect(version)
    client.send_raw(bytes((APPLICATION_DATA, 3, 3, 0xFF, 0xFF)) + bytes(MOST))
    expect_refusal(client, RECORD_OVERFLOW)


@pytest.mark.kernel_matrix("alert for a record too long")
@each_version
def test_more_content_than_a_record_may_carry(connect: Connect, version: str) -> None:
    client = connect(version)
    client.send(bytes(MOST + 1))
    expect_refusal(client, RECORD_OVERFLOW)


@each_version
def test_more_content_than_a_record_may_carry_right_after_the_finished(connect: Connect, version: str) -> None:
    client = connect(version, with_finished=lambda client: client.seal(bytes(MOST + 1)))
    expect_refusal(client, RECORD_OVERFLOW)


@each_version
def test_a_record_too_short_to_hold_its_mac(connect: Connect, version: str) -> None:
    client = connect(version)
    client.send_raw(bytes((APPLICATION_DATA, 3, 3, 0, 15)) + bytes(15) + bytes(32))
    expect_refusal(client, BAD_RECORD_MAC, INTERNAL_ERROR)  # the latter is how OpenSSL 3.0 puts it in TLS 1.2


@pytest.mark.parametrize("content", [b"", bytes(100)])
def test_a_record_of_nothing_but_padding(connect: Connect, content: bytes) -> None:
    """RFC 8446 section 5.4: without a non-zero octet in it, there is no content type: unexpected_message."""
    client = connect("TLSv1.3")
    client.send(content, 0)
    expect_refusal(client, UNEXPECTED_MESSAGE, BAD_RECORD_MAC)


@each_version
def test_text_in_place_of_a_record(connect: Connect, version: str) -> None:
    client = connect(version)
    client.send_raw(REQUEST)
    expect_refusal(client, PROTOCOL_VERSION, UNEXPECTED_MESSAGE, RECORD_OVERFLOW)


@pytest.mark.kernel_matrix("alert for a message out of place")
@each_version
@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        pytest.param(HANDSHAKE, FINISHED_BYTES, id="Finished"),
        pytest.param(HANDSHAKE, CERTIFICATE_BYTES, id="Certificate"),
        pytest.param(HANDSHAKE, bytes((99, 0, 0, 0)), id="a handshake type that does not exist"),
        pytest.param(CHANGE_CIPHER_SPEC, b"\x01", id="change_cipher_spec, encrypted"),
        pytest.param(24, b"\x01\x00\x00", id="heartbeat"),
        pytest.param(99, b"?", id="a content type that does not exist"),
    ],
)
def test_a_message_that_has_no_place_after_the_handshake(
    connect: Connect, version: str, content_type: int, content: bytes
) -> None:
    client = connect(version)
    client.send(REQUEST)
    expect_small(client)
    client.send(content, content_type)
    client.send(REQUEST)
    expect_refusal(client, UNEXPECTED_MESSAGE)


@pytest.mark.parametrize(
    "content", [UNEXPECTED_HELLO_BYTES, bytes((4, 0, 0, 0))], ids=["ClientHello", "NewSessionTicket"]
)
def test_a_handshake_that_starts_again_in_tls_13(connect: Connect, content: bytes) -> None:
    """RFC 8446 section 4.1.2: a ClientHello at any other time MUST end with unexpected_message."""
    client = connect("TLSv1.3")
    client.send(content, HANDSHAKE)
    expect_refusal(client, UNEXPECTED_MESSAGE)


def test_a_plain_change_cipher_spec_after_the_finished(connect: Connect) -> None:
    """RFC 8446 section 5 wants unexpected_message; a kernel that decrypts sees a record too short to decrypt."""
    client = connect("TLSv1.3")
    client.send_raw(bytes((CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1)))
    expect_refusal(client, UNEXPECTED_MESSAGE, BAD_RECORD_MAC)


@each_version
@pytest.mark.parametrize("content", [b"\x02", b"", b"\x01\x00\x00"], ids=["half", "empty", "and more"])
def test_an_alert_that_is_none(connect: Connect, version: str, content: bytes) -> None:
    client = connect(version)
    client.send(content, ALERT)
    client.send(REQUEST)
    assert client.ending().data == b""
    assert [level for level, _ in client.alerts] == [FATAL]


@pytest.mark.kernel_matrix("truncated records")
@each_version
@pytest.mark.parametrize("kept", [3, 5, 20])
def test_a_truncated_record_and_the_end(connect: Connect, server: Server, version: str, kept: int) -> None:
    client = connect(version)
    client.send_raw(client.seal(REQUEST)[:kept])
    client.close()
    server.assert_unharmed()


@pytest.mark.kernel_matrix("others unharmed by a broken client")
@each_version
def test_others_are_unharmed(connect: Connect, big: bytes, version: str) -> None:
    """While one client downloads, another breaks every rule."""
    good = connect(version)
    good.send(get_request("/big.bin"))
    good.read_head()
    received = good.read(1000)
    for _ in range(5):
        bad = connect(version)
        bad.send_raw(b"\x17\x03\x03\x00\x20" + bytes(32))
        expect_refusal(bad, BAD_RECORD_MAC)
        received += good.read(1000)
    received += good.read(len(big) - len(received))
    assert received == big
