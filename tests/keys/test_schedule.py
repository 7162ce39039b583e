"""The key schedule against published traces, and against OpenSSL where none is published."""

import dataclasses
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktls_server.keys import schedule
from ktls_server.keys.keylog import CLIENT_TRAFFIC_SECRET_0, SERVER_TRAFFIC_SECRET_0, KeyLog, Tls12Secrets, Tls13Secrets
from ktls_server.keys.record_cipher import RecordOpener
from ktls_server.keys.schedule import (
    RecordKey,
    hkdf_expand_label,
    hmac_digest,
    next_traffic_secret,
    tls12_prf,
    tls12_record_keys,
    tls13_record_key,
)
from ktls_server.keys.suites import SUITES, TLS_1_3, lookup
from tests.keys.memory_tls import connect, seal, split_records

AES_128 = SUITES["TLS_AES_128_GCM_SHA256"]
TLS_1_3_SUITES = [name for name, suite in SUITES.items() if suite.version == TLS_1_3]

# RFC 8448 section 3, "Simple 1-RTT Handshake".
MASTER_SECRET = bytes.fromhex("18df06843d13a08bf2a449844c5f8a478001bc4d4c627984d5a41da8d0402919")
HANDSHAKE_HASH = bytes.fromhex("9608102a0f1ccc6db6250b7b7e417b1a000eaada3daae4777a7686c9ff83df13")
CLIENT_SECRET = bytes.fromhex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
SERVER_SECRET = bytes.fromhex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
PAYLOAD = bytes(range(50))


@pytest.mark.parametrize(
    ("secret", "key", "iv"),
    [
        pytest.param(CLIENT_SECRET, "17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9", id="client"),
        pytest.param(SERVER_SECRET, "9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984", id="server"),
        pytest.param(
            bytes.fromhex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38"),
            "3fce516009c21727d0f2e4e86ee403bc",
            "5d313eb2671276ee13000b30",
            id="server, handshake",
        ),
    ],
)
def test_record_keys_of_rfc_8448(secret: bytes, key: str, iv: str) -> None:
    assert tls13_record_key(AES_128, secret) == RecordKey(bytes.fromhex(key), bytes.fromhex(iv))


@pytest.mark.parametrize(("label", "secret"), [(b"c ap traffic", CLIENT_SECRET), (b"s ap traffic", SERVER_SECRET)])
def test_expanding_with_a_context_gives_the_traffic_secrets_of_rfc_8448(label: bytes, secret: bytes) -> None:
    assert hkdf_expand_label("sha256", MASTER_SECRET, label, HANDSHAKE_HASH, 32) == secret


@pytest.mark.parametrize(
    ("secret", "sequence", "record", "content"),
    [
        pytest.param(
            CLIENT_SECRET,
            0,
            "17030300 43a23f70 54b62c94 d0affafe 8228ba55 cbefacea 42f914aa 66bcab3f 2b9819a8 a5b46b39 5bd54a9a"
            "20441e2b 62974e1f 5a6292a2 977014bd 1e3deae6 3aeebb21 694915e4",
            (23, PAYLOAD),
            id="client, application data",
        ),
        pytest.param(
            SERVER_SECRET,
            1,
            "17030300 432e937e 11ef4ac7 40e538ad 36005fc4 a46932fc 3225d05f 82aa1b36 e30efaf9 7d90e6df fc602dcb"
            "501a59a8 fcc49c4b f2e5f0a2 1c0047c2 abf33254 0dd032e1 67c2955d",
            (23, PAYLOAD),
            id="server, application data after its ticket",
        ),
        pytest.param(
            CLIENT_SECRET,
            1,
            "17030300 13c98727 60655666 b74d7ff1 153efd6d b6d0b0e3",
            (21, b"\x01\x00"),
            id="client, close_notify",
        ),
        pytest.param(
            SERVER_SECRET,
            2,
            "17030300 13b58fd6 7166ebf5 99d24720 cfbe7efa 7a8864a9",
            (21, b"\x01\x00"),
            id="server, close_notify",
        ),
    ],
)
def test_records_of_rfc_8448_open(secret: bytes, sequence: int, record: str, content: tuple[int, bytes]) -> None:
    opener = RecordOpener(AES_128, tls13_record_key(AES_128, secret), sequence)
    assert opener.open(bytes.fromhex(record)) == content
    assert opener.sequence == sequence + 1


@pytest.mark.parametrize(
    ("hash_name", "secret", "seed", "output"),
    [
        pytest.param(
            "sha256",
            "9bbe436ba940f017b17652849a71db35",
            "a0ba9f936cda311827a6f796ffd5198c",
            "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a"
            "6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def17abfd3797c0564bab"
            "4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff701"
            "87347b66",
            id="P_SHA256",
        ),
        pytest.param(
            "sha384",
            "b80b733d6ceefcdc71566ea48e5567df",
            "cd665cf6a8447dd6ff8b27555edb7465",
            "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cd"
            "e9ca0faa60be9fe34f82b1233c9146a0e534cb400fed2700884f9dc236f80edd"
            "8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d918425"
            "9b5bf8cd4d90fa0d31e2dec479e4f1a26066f2eea9a69236a3e52655c9e9aee6"
            "91c8f3a26854308d5eaa3be85e0990703d73e56f",
            id="P_SHA384",
        ),
    ],
)
def test_the_tls_1_2_prf_gives_the_vectors_posted_to_the_ietf_tls_list(
    hash_name: str, secret: str, seed: str, output: str
) -> None:
    """https://mailarchive.ietf.org/arch/msg/tls/fzVCzk-z3FShgGJ6DOXqM1ydxms/ (tls list, msg03416)."""
    expected = bytes.fromhex(output)
    assert tls12_prf(hash_name, bytes.fromhex(secret), b"test label", bytes.fromhex(seed), len(expected)) == expected


def test_the_tls_1_2_key_block_is_cut_in_the_order_of_rfc_5246() -> None:
    suite = SUITES["ECDHE-RSA-AES128-GCM-SHA256"]
    secrets = Tls12Secrets(master_secret=bytes(48), client_random=b"c" * 32)
    block = tls12_prf("sha256", bytes(48), b"key expansion", b"s" * 32 + b"c" * 32, 40)
    client, server = tls12_record_keys(suite, secrets, b"s" * 32)
    assert client.key + server.key + client.iv + server.iv == block
    assert [len(part) for part in (client.key, server.key, client.iv, server.iv)] == [16, 16, 4, 4]


@pytest.mark.parametrize("name", TLS_1_3_SUITES)
@pytest.mark.parametrize("generations", [1, 3])
def test_openssl_follows_key_updates_to_the_secrets_that_we_compute(name: str, generations: int) -> None:
    """We are the client that updates: OpenSSL must read under the next keys, and answer under the next keys."""
    suite = SUITES[name]
    key_update_requested = b"\x18\x00\x00\x01\x01"  # RFC 8446 section 4.6.3
    with KeyLog() as key_log:
        connection = connect(suite, key_log)
    client_secret = connection.logged[CLIENT_TRAFFIC_SECRET_0][1]
    server_secret = connection.logged[SERVER_TRAFFIC_SECRET_0][1]
    client_sequence, server_sequence = connection.client_sequence, connection.server_sequence
    for _ in range(generations):
        update = seal(suite, tls13_record_key(suite, client_secret), client_sequence, 22, key_update_requested)
        client_secret = next_traffic_secret(suite, client_secret)
        data = seal(suite, tls13_record_key(suite, client_secret), 0, 23, b"under the next key", padding=7)
        client_sequence = 1
        assert connection.server.read(update + data) == b"under the next key"
        answer, reply = split_records(connection.server.write(b"likewise"))
        opener = RecordOpener(suite, tls13_record_key(suite, server_secret), server_sequence)
        assert opener.open(answer) == (22, b"\x18\x00\x00\x01\x00")
        server_secret = next_traffic_secret(suite, server_secret)
        opener = RecordOpener(suite, tls13_record_key(suite, server_secret), 0)
        assert opener.open(reply) == (23, b"likewise")
        server_sequence = opener.sequence


def test_no_secret_shows_in_a_repr() -> None:
    secret = b"\xabtop secret"
    for value in (Tls13Secrets(secret, secret), Tls12Secrets(secret, secret), RecordKey(secret, secret)):
        for text in (repr(value), str(value), f"{value}"):
            assert "secret'" not in text
            assert secret.hex() not in text
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(value)[0].name, b"")


def test_a_suite_that_the_kernel_has_no_part_in_is_not_found() -> None:
    for name in ("ECDHE-RSA-AES128-SHA256", "ECDHE-ECDSA-AES128-CCM8", "TLS_AES_128_CCM_SHA256", "no such suite"):
        assert lookup(name) is None
    assert lookup("TLS_AES_128_GCM_SHA256") is AES_128


@given(hash_name=st.sampled_from(["sha256", "sha384"]), key=st.binary(max_size=64), message=st.binary(max_size=300))
@settings(deadline=None)
def test_the_hmac_is_that_of_the_standard_library(hash_name: str, key: bytes, message: bytes) -> None:
    assert hmac_digest(hash_name, key, message) == hmac.digest(key, message, hash_name)


def test_expand_goes_on_over_more_than_one_block() -> None:
    """RFC 5869, test case 2: 82 bytes, where each block is made from the one before."""
    info = bytes(range(0xB0, 0x100))
    secret = bytes.fromhex("06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244")
    expected = (
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
    )
    assert schedule._hkdf_expand("sha256", secret, info, 82).hex() == expected
