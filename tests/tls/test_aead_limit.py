"""A key seals only so many records (RFC 8446 and RFC 9846 section 5.5): then the server changes it, or closes in between.

The limit is 2^24 records; here it is low. Whoever encrypts goes on under a new key, after a KeyUpdate of the server's own,
in the middle of a download where need be. Only a kernel before Linux 6.14 cannot, and TLS 1.2 has no KeyUpdate: there a
response past the limit announces the end of the connection, and one that would go on far beyond it is cut.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from ktls_server.kernel.probe import KernelTls, tls_stat
from tests.kernels.matrix import MARKER
from tests.server.running import Server, Variant
from tests.server.site import SMALL
from tests.tls.conftest import BIG, ConnectTo
from tests.tls.wire_client import CLOSE_NOTIFY, FATAL, WARNING, WireClient, get_request

LIMIT = 64
AES_SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384")
ONLY_WHERE_KEYS_CAN_CHANGE = "where the kernel encrypts this needs Linux 6.14: `make test-kernels`"
CHACHA20 = "TLS_CHACHA20_POLY1305_SHA256"


@pytest.fixture
def limited(servers: Callable[[Variant], Server], variant: Variant) -> Iterator[Server]:
    """A server whose keys are used up after `LIMIT` records."""
    server = servers(replace(variant, options=(*variant.options, "--aead-record-limit", str(LIMIT))))
    yield server
    server.assert_unharmed()


@pytest.fixture
def rekeys(limited: Server, kernel_tls: KernelTls, record_property: Callable[[str, object], None]) -> bool:
    """Whether the server can change its own key: always where it seals itself, where the kernel can if that seals."""
    rekeys = limited.variant.path == "userspace" or kernel_tls.rekey
    if not rekeys:
        record_property(MARKER, "closed instead")
    return rekeys


def expect_download(client: WireClient, big: bytes) -> None:
    client.send(get_request("/big.bin"))
    answer = client.answer()
    assert answer.status == 200
    assert answer.body == big


@pytest.mark.kernel_matrix("own KeyUpdate at the AEAD limit")
@pytest.mark.parametrize("suite", AES_SUITES)
def test_a_download_past_the_limit(
    limited: Server, connect_to: ConnectTo, rekeys: bool, big: bytes, suite: str
) -> None:
    client = connect_to(limited, suite)
    if not rekeys:
        client.send(get_request("/big.bin"))
        client.read_head()
        ending = client.ending()
        assert ending.alerts == [], "a cut, not an orderly end"
        assert big.startswith(ending.data)
        # The kernel's records may be short: each is counted as up to four.
        assert LIMIT * 2**12 < len(ending.data) < len(big)
        return
    rekeyed = tls_stat().get("TlsTxRekeyOk", 0)
    expect_download(client, big)
    updates = len(client.server_key_updates)
    assert BIG // 2**14 // LIMIT <= updates <= 4 * BIG // 2**14 // LIMIT
    assert not any(client.server_key_updates), "the client's key is the client's to change"
    by_the_kernel = tls_stat().get("TlsTxRekeyOk", 0) - rekeyed
    assert by_the_kernel == (updates if limited.variant.path == "kernel" else 0)


@pytest.mark.kernel_matrix("the AEAD limit between responses")
def test_the_limit_between_responses(limited: Server, connect_to: ConnectTo, rekeys: bool) -> None:
    client = connect_to(limited, AES_SUITES[0])
    answers = 0
    connection = None
    while answers < 2 * LIMIT and connection != "close":
        answer = client.get("/small.txt")
        assert (answer.status, answer.body) == (200, SMALL)
        answers += 1
        connection = answer.headers.get("connection")
    if rekeys:
        assert answers == 2 * LIMIT
        assert client.server_key_updates
        return
    # A response is counted as up to four records.
    assert LIMIT // 5 < answers <= LIMIT + 1
    ending = client.ending()
    assert (ending.data, ending.alerts) == (b"", [(WARNING, CLOSE_NOTIFY)])


def test_chacha20_has_no_limit_that_could_be_reached(limited: Server, connect_to: ConnectTo, big: bytes) -> None:
    client = connect_to(limited, CHACHA20)
    expect_download(client, big)
    assert client.server_key_updates == []


def test_tls_12_cannot_change_keys(limited: Server, connect_to: ConnectTo) -> None:
    client = connect_to(limited, "ECDHE-ECDSA-AES128-GCM-SHA256")
    for _ in range(LIMIT + 1):
        if client.get("/small.txt").headers.get("connection") == "close":
            break
    assert client.ending().alerts == [(WARNING, CLOSE_NOTIFY)]


@pytest.mark.kernel_matrix("OpenSSL's later words after an own KeyUpdate")
def test_openssl_speaks_under_a_key_of_its_own_after_the_server_changed_its(
    limited: Server, connect_to: ConnectTo, rekeys: bool, big: bytes
) -> None:
    """After KeyUpdates of the server's, OpenSSL still believes in the first key, and its words have to be understood."""
    if not rekeys:
        pytest.skip(ONLY_WHERE_KEYS_CAN_CHANGE)
    client = connect_to(limited, AES_SUITES[0])
    expect_download(client, big)
    own = len(client.server_key_updates)
    assert own
    for _ in range(3):
        client.send_key_update(requested=True)
        assert client.get("/small.txt").body == SMALL
    assert len(client.server_key_updates) >= own + 3
    expect_download(client, big)
    client.send(b"\x00", 99)  # A content type that does not exist: the alert is OpenSSL's, too.
    ending = client.ending()
    assert (ending.data, ending.alerts) == (b"", [(FATAL, 10)])


def test_a_client_that_changes_keys_starts_the_count_anew(limited: Server, connect_to: ConnectTo, rekeys: bool) -> None:
    """The server's answer to a KeyUpdate changes its key as well as one of its own would."""
    if not rekeys:
        pytest.skip(ONLY_WHERE_KEYS_CAN_CHANGE)
    client = connect_to(limited, AES_SUITES[0])
    for _ in range(LIMIT):
        client.send_key_update(requested=True)
        assert client.get("/small.txt").body == SMALL
    assert client.server_key_updates == [False] * LIMIT
