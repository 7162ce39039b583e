"""A client may send a KeyUpdate at any time (RFC 8446 section 4.6.3); the server follows, or ends the connection in order.

Where the kernel encrypts and cannot change its key (before Linux 6.14), a KeyUpdate that asks for an answer ends the
connection: the response in hand is finished, then comes close_notify. One that does not ask changes the client's
key only, which whoever decrypts follows.
"""

import pytest

from ktls_server.kernel.probe import KernelTls
from ktls_server.keys.suites import SUITES
from tests.server.running import Server
from tests.server.site import SMALL
from tests.tls.conftest import Connect
from tests.tls.wire_client import (
    APPLICATION_DATA,
    CLOSE_NOTIFY,
    FATAL,
    HANDSHAKE,
    TLS13_SUITES,
    UNEXPECTED_MESSAGE,
    WARNING,
    WireClient,
    get_request,
    key_update,
)

either_kind = pytest.mark.parametrize("requested", [False, True], ids=["unasked", "asking"])

REQUEST = get_request("/small.txt")


def expect_small(client: WireClient) -> None:
    answer = client.answer()
    assert (answer.status, answer.body) == (200, SMALL)


def expect_end(client: WireClient) -> None:
    """Close_notify and nothing else: no data under a key that the client has asked to leave behind, no KeyUpdate."""
    ending = client.ending()
    assert (ending.data, ending.alerts, ending.reset) == (b"", [(WARNING, CLOSE_NOTIFY)], False)
    assert client.server_key_updates == []


def expect_answered(client: WireClient, *, requested: bool, follows: bool) -> None:
    """After a KeyUpdate and a request: the response and, if it was asked for, one KeyUpdate before it; or the end."""
    if requested and not follows:
        expect_end(client)
        return
    expect_small(client)
    assert client.server_key_updates == ([False] if requested else [])
    client.send(REQUEST)  # and the connection goes on
    expect_small(client)


def send_key_updates_forever(client: WireClient) -> None:
    while True:
        client.send_key_update(requested=False)


@pytest.mark.kernel_matrix("client's KeyUpdate between requests")
@either_kind
@pytest.mark.parametrize("suite", TLS13_SUITES)
def test_key_update_between_requests(connect: Connect, suite: str, requested: bool, follows_key_updates: bool) -> None:
    client = connect(suite)
    client.send(REQUEST)
    expect_small(client)
    client.send_key_update(requested=requested)
    client.send(REQUEST)
    expect_answered(client, requested=requested, follows=follows_key_updates)


@pytest.mark.kernel_matrix("client's KeyUpdate with a request")
@either_kind
def test_key_update_in_the_same_segment_as_the_request(
    connect: Connect, requested: bool, follows_key_updates: bool
) -> None:
    client = connect()
    client.send_raw(client.sealed_key_update(requested=requested) + client.seal(REQUEST))
    expect_answered(client, requested=requested, follows=follows_key_updates)


@pytest.mark.kernel_matrix("client's KeyUpdate in a request head")
@either_kind
def test_key_update_in_the_middle_of_a_request_head(
    connect: Connect, requested: bool, follows_key_updates: bool
) -> None:
    client = connect()
    client.send(REQUEST[:9])
    client.send_key_update(requested=requested)
    client.send(REQUEST[9:])
    expect_answered(client, requested=requested, follows=follows_key_updates)


@pytest.mark.kernel_matrix("client's KeyUpdate in a request body")
@either_kind
def test_key_update_in_the_middle_of_a_request_body(
    connect: Connect, requested: bool, follows_key_updates: bool
) -> None:
    client = connect()
    client.send(get_request("/small.txt", "Content-Length: 8") + b"half")
    client.send_key_update(requested=requested)
    client.send(b"half")
    expect_answered(client, requested=requested, follows=follows_key_updates)


@pytest.mark.kernel_matrix("client's KeyUpdate with the Finished")
@either_kind
@pytest.mark.parametrize("suite", TLS13_SUITES)
def test_key_update_together_with_the_finished(
    connect: Connect, suite: str, requested: bool, follows_key_updates: bool
) -> None:
    def also(client: WireClient) -> bytes:
        return client.sealed_key_update(requested=requested) + client.seal(REQUEST)

    client = connect(suite, with_finished=also)
    expect_answered(client, requested=requested, follows=follows_key_updates)


@pytest.mark.kernel_matrix("client's KeyUpdate after a request")
@either_kind
def test_key_update_after_a_request_that_came_in_the_same_segment(
    connect: Connect, requested: bool, follows_key_updates: bool
) -> None:
    """The request came before the KeyUpdate: it is answered everywhere."""
    client = connect()
    client.send_raw(client.seal(REQUEST) + client.sealed_key_update(requested=requested))
    expect_small(client)
    client.send(REQUEST)
    expect_answered(client, requested=requested, follows=follows_key_updates)


@pytest.mark.kernel_matrix("client's KeyUpdate during a download")
@either_kind
@pytest.mark.parametrize("suite", TLS13_SUITES)
def test_key_update_during_a_download(
    connect: Connect, big: bytes, suite: str, requested: bool, follows_key_updates: bool
) -> None:
    client = connect(suite)
    client.send(get_request("/big.bin"))
    client.read_head()
    received = client.read(100_000)
    client.send_key_update(requested=requested)
    received += client.read(len(big) - len(received))
    assert received == big
    client.send(REQUEST)
    expect_answered(client, requested=requested, follows=follows_key_updates)


@pytest.mark.kernel_matrix("many KeyUpdates in a row")
def test_many_key_updates_in_a_row(connect: Connect, follows_key_updates: bool) -> None:
    """As many as are lawful before anything else; the server may answer them all with one (RFC 8446 section 4.6.3)."""
    client = connect()
    for number in range(100):
        client.send_key_update(requested=number % 2 == 0)
    client.send(REQUEST)
    if not follows_key_updates:
        expect_end(client)
        return
    expect_small(client)
    assert 1 <= len(client.server_key_updates) <= 50
    assert not any(client.server_key_updates), "an answer asks for nothing"


def test_a_key_update_before_each_of_many_requests(connect: Connect, follows_key_updates: bool) -> None:
    client = connect()
    for _ in range(20):
        client.send_key_update(requested=follows_key_updates)
        client.send(REQUEST)
        expect_small(client)
    assert client.server_key_updates == [False] * (20 if follows_key_updates else 0)


@pytest.mark.kernel_matrix("a flood of KeyUpdates is ended")
def test_a_flood_of_key_updates_is_ended(connect: Connect) -> None:
    client = connect()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        send_key_updates_forever(client)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(key_update(requested=False)[:4] + b"\x02", id="request_update is neither 0 nor 1"),
        pytest.param(key_update(requested=False) + b"\x00", id="a byte too many"),
        pytest.param(key_update(requested=False) * 2, id="two in one record"),
    ],
)
def test_a_malformed_key_update_is_refused(connect: Connect, content: bytes) -> None:
    client = connect()
    client.send(content, HANDSHAKE)
    ending = client.ending()
    (alert,) = ending.alerts
    assert ending.data == b""
    assert alert[0] == 2, alert


def test_a_key_update_in_two_records(connect: Connect, server: Server, kernel_tls: KernelTls) -> None:
    """Lawful (RFC 8446 section 5.1), though nobody sends it. A kernel that decrypts waits for the next key after the first
    part already, so that the second can never be read: it is refused in order."""
    client = connect()
    message = key_update(requested=False)
    client.send_raw(client.seal(message[:3], HANDSHAKE) + client.seal(message[3:], HANDSHAKE))
    client.next_key()
    client.send(REQUEST)
    if server.variant.path == "kernel" and kernel_tls.rekey and "on" in server.variant.options:
        ending = client.ending()
        assert (ending.data, ending.alerts) == (b"", [(FATAL, UNEXPECTED_MESSAGE)])
        return
    expect_small(client)


def test_data_under_the_key_that_was_left_behind_is_refused(connect: Connect) -> None:
    client = connect()
    client.send(key_update(requested=False), HANDSHAKE)
    client.send(REQUEST, APPLICATION_DATA)
    ending = client.ending()
    assert (ending.data, ending.alerts) == (b"", [(2, 20)])


def test_every_suite_is_known() -> None:
    assert {SUITES[name].kind for name in TLS13_SUITES} == {suite.kind for suite in SUITES.values()}
