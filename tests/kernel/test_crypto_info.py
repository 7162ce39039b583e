"""The bytes that setsockopt() gets, field by field, at the offsets of the structures in linux/tls.h."""

import sys

import pytest

from ktls_server.kernel.crypto_info import pack
from ktls_server.keys.schedule import RecordKey
from ktls_server.keys.suites import SUITES

SEQUENCE = 0x0102030405060708
NONCE = b"explicit"
SALT_AND_IV = b"SALTinitvect"


def u16(value: int) -> bytes:
    return value.to_bytes(2, sys.byteorder)


@pytest.mark.parametrize(
    ("name", "record_iv", "nonce", "fields"),
    [
        # struct tls12_crypto_info_aes_gcm_128: info 0, iv 4, key 12, salt 28, rec_seq 32, size 40
        pytest.param(
            "TLS_AES_128_GCM_SHA256",
            SALT_AND_IV,
            None,
            {0: u16(0x0304), 2: u16(51), 4: b"initvect", 12: b"k" * 16, 28: b"SALT", 32: bytes(range(1, 9)), 40: b""},
            id="tls12_crypto_info_aes_gcm_128, TLS 1.3",
        ),
        pytest.param(
            "ECDHE-RSA-AES128-GCM-SHA256",
            b"SALT",
            NONCE,
            {0: u16(0x0303), 2: u16(51), 4: NONCE, 12: b"k" * 16, 28: b"SALT", 32: bytes(range(1, 9)), 40: b""},
            id="tls12_crypto_info_aes_gcm_128, TLS 1.2",
        ),
        # struct tls12_crypto_info_aes_gcm_256: info 0, iv 4, key 12, salt 44, rec_seq 48, size 56
        pytest.param(
            "TLS_AES_256_GCM_SHA384",
            SALT_AND_IV,
            None,
            {0: u16(0x0304), 2: u16(52), 4: b"initvect", 12: b"k" * 32, 44: b"SALT", 48: bytes(range(1, 9)), 56: b""},
            id="tls12_crypto_info_aes_gcm_256, TLS 1.3",
        ),
        pytest.param(
            "AES256-GCM-SHA384",
            b"SALT",
            None,
            {
                0: u16(0x0303),
                2: u16(52),
                4: bytes(range(1, 9)),
                12: b"k" * 32,
                44: b"SALT",
                48: bytes(range(1, 9)),
                56: b"",
            },
            id="tls12_crypto_info_aes_gcm_256, TLS 1.2, the sequence as nonce",
        ),
        # struct tls12_crypto_info_chacha20_poly1305: info 0, iv 4, key 16, salt 48 (empty), rec_seq 48, size 56
        pytest.param(
            "TLS_CHACHA20_POLY1305_SHA256",
            SALT_AND_IV,
            None,
            {0: u16(0x0304), 2: u16(54), 4: SALT_AND_IV, 16: b"k" * 32, 48: bytes(range(1, 9)), 56: b""},
            id="tls12_crypto_info_chacha20_poly1305, TLS 1.3",
        ),
        pytest.param(
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            SALT_AND_IV,
            None,
            {0: u16(0x0303), 2: u16(54), 4: SALT_AND_IV, 16: b"k" * 32, 48: bytes(range(1, 9)), 56: b""},
            id="tls12_crypto_info_chacha20_poly1305, TLS 1.2",
        ),
    ],
)
def test_fields_are_where_linux_tls_h_has_them(
    name: str, record_iv: bytes, nonce: bytes | None, fields: dict[int, bytes]
) -> None:
    suite = SUITES[name]
    info = pack(suite, RecordKey(b"k" * suite.key_length, record_iv), SEQUENCE, nonce)
    assert {offset: info[offset : offset + len(value)] for offset, value in fields.items()} == fields
    assert len(info) == max(fields)
    assert sum(map(len, fields.values())) == len(info), "a byte that no field above covers"
