"""Lawful talk that once went wrong, and unlawful talk that must end: the same for every opener (FINDINGS 23 to 28)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from ktls_server.kernel.probe import KernelTls
from tests.server.running import Server, Variant
from tests.server.site import SMALL
from tests.tls.conftest import Connect, ConnectTo
from tests.tls.wire_client import (
    ALERT,
    BAD_RECORD_MAC,
    CLIENT_HELLO,
    CLOSE_NOTIFY,
    FATAL,
    HANDSHAKE,
    NO_RENEGOTIATION,
    UNEXPECTED_MESSAGE,
    USER_CANCELED,
    WARNING,
    WireClient,
    get_request,
    key_update,
)

each_version = pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])

REQUEST = get_request("/small.txt")
LAST_REQUEST = get_request("/small.txt", "Connection: close")
MOST = 1 << 14
HELLO = bytes((CLIENT_HELLO, 0, 0, 2, 3, 3))
END = (WARNING, CLOSE_NOTIFY)


def expect_small(client: WireClient) -> None:
    answer = client.answer()
    assert (answer.status, answer.body) == (200, SMALL)


def expect_ending(client: WireClient, *alerts: tuple[int, int]) -> None:
    ending = client.ending()
    assert (ending.data, ending.alerts) == (b"", list(alerts))


@pytest.fixture
def kernel_opens(server: Server, kernel_tls: KernelTls) -> bool:
    """Whether the kernel decrypts for this server."""
    return server.variant.path == "kernel" and kernel_tls.rekey and "on" in server.variant.options


def sealed_alert(client: WireClient, description: int, level: int = WARNING) -> bytes:
    return client.seal(bytes((level, description)), ALERT)


@pytest.mark.parametrize("requested", [False, True])
def test_two_key_updates_behind_the_last_request(connect: Connect, requested: bool, follows_key_updates: bool) -> None:
    """The server lingers while they come. The answer is not reset away."""
    client = connect()
    client.send_raw(
        client.seal(LAST_REQUEST)
        + client.sealed_key_update(requested=requested)
        + client.sealed_key_update(requested=requested)
    )
    expect_small(client)
    ending = client.ending()
    assert (ending.data, ending.alerts, ending.reset) == (b"", [END], False)
    assert len(client.server_key_updates) <= (1 if requested and follows_key_updates else 0)


@each_version
def test_user_canceled_and_close_notify_behind_the_last_request(connect: Connect, version: str) -> None:
    """As Java's clients end (JDK-8329548)."""
    client = connect(version)
    client.send_raw(
        client.seal(LAST_REQUEST) + sealed_alert(client, USER_CANCELED) + sealed_alert(client, CLOSE_NOTIFY)
    )
    expect_small(client)
    ending = client.ending()
    assert (ending.data, ending.alerts, ending.reset) == (b"", [END], False)


def test_an_empty_record_before_a_key_update_is_not_the_end(connect: Connect) -> None:
    client = connect()
    client.send_raw(
        client.seal(b"") + client.sealed_key_update(requested=False) + client.seal(b"") + client.seal(REQUEST)
    )
    expect_small(client)


@each_version
def test_an_empty_record_before_close_notify_and_user_canceled(connect: Connect, version: str) -> None:
    client = connect(version)
    client.send_raw(client.seal(b"") + sealed_alert(client, USER_CANCELED) + client.seal(b"") + client.seal(REQUEST))
    expect_small(client)
    client.send_raw(client.seal(b"") + sealed_alert(client, CLOSE_NOTIFY))
    expect_ending(client, END)


def test_records_that_are_padded_as_far_as_they_may_be(connect: Connect) -> None:
    """An empty one and one with data: 33,290 bytes without application data before the first comes."""
    client = connect()
    client.send_raw(client.seal(b"", padding=MOST) + client.seal(REQUEST, padding=MOST - len(REQUEST)))
    expect_small(client)
    client.send(REQUEST)
    expect_small(client)


@pytest.mark.parametrize("parts", [[4, 1], [1, 1, 1, 1, 1]], ids=["4+1", "1+1+1+1+1"])
def test_a_key_update_in_parts_with_pauses(connect: Connect, parts: list[int], kernel_opens: bool) -> None:
    """Lawful (RFC 8446 section 5.1). A kernel that decrypts holds the second part back: the connection ends there."""
    client = connect()
    client.send(REQUEST)
    expect_small(client)
    message = key_update(requested=False)
    for size in parts:
        client.send(message[:size], HANDSHAKE)
        message = message[size:]
        if not kernel_opens:
            time.sleep(0.02)  # so that each part is read by itself; not what the assertion rests on
    client.next_key()
    client.send(REQUEST)
    if kernel_opens:
        assert client.ending().data == b""
        return
    expect_small(client)


def test_a_key_update_with_data_behind_it_in_its_record(connect: Connect) -> None:
    client = connect()
    client.send(key_update(requested=False) + b"\x18\0\0\1", HANDSHAKE)
    ending = client.ending()
    assert ending.data == b""
    assert [level for level, _ in ending.alerts] == [FATAL]


def test_nothing_comes_between_the_parts_of_a_message(connect: Connect) -> None:
    client = connect()
    client.send_raw(client.seal(key_update(requested=False)[:3], HANDSHAKE) + client.seal(REQUEST))
    ending = client.ending()
    assert ending.data == b""
    assert [level for level, _ in ending.alerts] == [FATAL]


@each_version
def test_a_broken_record_right_behind_a_good_request(connect: Connect, version: str) -> None:
    """What came before is answered; then the alert."""
    client = connect(version)
    broken = bytearray(client.seal(REQUEST) + client.seal(REQUEST))
    broken[-1] ^= 1
    client.send_raw(bytes(broken))
    expect_small(client)
    expect_ending(client, (FATAL, BAD_RECORD_MAC))


@each_version
def test_a_message_out_of_place_right_behind_a_good_request(connect: Connect, version: str) -> None:
    client = connect(version)
    client.send_raw(client.seal(REQUEST) + client.seal(b"\x63\0\0\0", HANDSHAKE))
    expect_small(client)
    expect_ending(client, (FATAL, UNEXPECTED_MESSAGE))


@pytest.mark.parametrize("cut", [1, 3, 4, 5])
def test_a_client_hello_in_two_parts_earns_one_warning(connect: Connect, cut: int) -> None:
    client = connect("TLSv1.2")
    client.send(HELLO[:cut], HANDSHAKE)
    client.send(HELLO[cut:], HANDSHAKE)
    client.send(REQUEST)
    expect_small_after_warning(client)
    client.send(REQUEST)
    expect_small(client)
    assert client.alerts == [(WARNING, NO_RENEGOTIATION)]


def expect_small_after_warning(client: WireClient) -> None:
    assert client.receive_record() == (ALERT, bytes((WARNING, NO_RENEGOTIATION)))
    expect_small(client)


def talk_without_reading(client: WireClient, version: str) -> None:
    """A download that is not read, so that the socket is full, is not the point here: the answers alone."""
    for _ in range(400):
        if version == "TLSv1.2":
            client.send(HELLO, HANDSHAKE)
        else:
            client.send_key_update(requested=True)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_hundreds_of_messages_that_earn_answers_are_within_the_burst(
    connect: Connect, version: str, follows_key_updates: bool
) -> None:
    """400 are fewer than CONTROL_BURST: the connection goes on, and there are no more answers than questions."""
    client = connect(version)
    talk_without_reading(client, version)
    client.send(REQUEST)
    if version == "TLSv1.3" and not follows_key_updates:
        expect_ending(client, END)
        return
    while not client.alerts or version == "TLSv1.3":
        record = client.receive_record()
        assert record is not None
        if record[0] not in (ALERT, HANDSHAKE):
            assert record[1].startswith(b"HTTP/1.1 200 ")
            break
    assert len(client.alerts) <= 400
    assert len(client.server_key_updates) <= 400


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_flood_of_messages_is_ended_although_data_comes_between(
    connect: Connect, version: str, follows_key_updates: bool
) -> None:
    client = connect(version)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        flood(client, version, requested=follows_key_updates)


def flood(client: WireClient, version: str, *, requested: bool) -> None:
    while True:
        if version == "TLSv1.2":
            client.send_raw(client.seal(HELLO, HANDSHAKE) + client.seal(b"\r\n"))
        else:
            client.send_raw(client.sealed_key_update(requested=requested) + client.seal(b"\r\n"))


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_client_that_never_reads_is_ended_in_the_time_of_a_response(
    start_server: Callable[[Variant], Server],
    variant: Variant,
    connect_to: ConnectTo,
    big: bytes,
    version: str,
) -> None:
    """It asks for a download and for answers and reads nothing: the send time-out ends it, not the grace at SIGTERM."""
    server = start_server(replace(variant, options=(*variant.options, "--send-timeout", "1", "--grace", "600")))
    client = connect_to(server, version)
    client.send(get_request("/big.bin"))
    client.read_head()
    talk_without_reading(client, version)
    server.logged("/big.bin")  # it is written when the connection ends
    assert server.terminate() == 0
    with pytest.raises((ConnectionResetError, AssertionError), match=r"reset|within a record"):
        client.read(len(big))


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_sigterm_does_not_wait_for_a_client_that_makes_the_server_talk(
    start_server: Callable[[Variant], Server], variant: Variant, connect_to: ConnectTo, version: str
) -> None:
    server = start_server(replace(variant, options=(*variant.options, "--send-timeout", "600", "--grace", "600")))
    client = connect_to(server, version)
    assert client.get("/small.txt").body == SMALL
    talk_without_reading(client, version)
    began = time.monotonic()
    assert server.terminate() == 0
    assert time.monotonic() - began < 300, "half of the grace: the idle connection was ended, not waited for"
