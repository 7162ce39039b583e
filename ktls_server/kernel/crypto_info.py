"""Packs `struct tls12_crypto_info_*` of linux/tls.h: the value of the TLS_TX and TLS_RX socket options. Pure.

The structures bear "tls12" in their names and serve TLS 1.3 all the same; `version` tells. Each is `tls_crypto_info`
(version and cipher type, native u16) and then, without padding, iv, key, salt, rec_seq.

| | iv | salt |
|---|---|---|
| AES-GCM, TLS 1.2 | 8 bytes: the explicit nonce of the next record | the 4 bytes of the key block |
| AES-GCM, TLS 1.3 | the last 8 bytes of the 12-byte iv | its first 4 bytes |
| ChaCha20-Poly1305 | all 12 bytes of the iv | none |
"""

from __future__ import annotations

import struct

from ..keys.schedule import RecordKey
from ..keys.suites import CipherKind, CipherSuite
from . import uapi

# struct tls_crypto_info; then iv, key, salt, rec_seq. "=": native byte order, no padding (every field is a byte array).
_TLS12_CRYPTO_INFO_AES_GCM_128 = struct.Struct("=HH8s16s4s8s")
_TLS12_CRYPTO_INFO_AES_GCM_256 = struct.Struct("=HH8s32s4s8s")
_TLS12_CRYPTO_INFO_CHACHA20_POLY1305 = struct.Struct("=HH12s32s0s8s")

_LAYOUT = {
    CipherKind.AES_128_GCM: (uapi.TLS_CIPHER_AES_GCM_128, _TLS12_CRYPTO_INFO_AES_GCM_128),
    CipherKind.AES_256_GCM: (uapi.TLS_CIPHER_AES_GCM_256, _TLS12_CRYPTO_INFO_AES_GCM_256),
    CipherKind.CHACHA20_POLY1305: (uapi.TLS_CIPHER_CHACHA20_POLY1305, _TLS12_CRYPTO_INFO_CHACHA20_POLY1305),
}

_SALT_LENGTH = 4


def pack(suite: CipherSuite, record_key: RecordKey, record_sequence: int, explicit_nonce: bytes | None = None) -> bytes:
    """The option's value: `record_key` in use from record number `record_sequence` on.

    `explicit_nonce` (8 bytes) matters for sending AES-GCM in TLS 1.2 only: the kernel counts up from it, one a record.
    It must be past every nonce that OpenSSL has used with this key: OpenSSL starts at a random one and counts up, so
    the last one seen plus one is right. None means the sequence number, for the receiving side, where each record
    brings its own.
    """
    cipher_type, layout = _LAYOUT[suite.kind]
    rec_seq = record_sequence.to_bytes(8, "big")
    if suite.has_explicit_nonce:
        salt, iv = record_key.iv, rec_seq if explicit_nonce is None else explicit_nonce
    elif suite.kind is CipherKind.CHACHA20_POLY1305:
        salt, iv = b"", record_key.iv
    else:
        salt, iv = record_key.iv[:_SALT_LENGTH], record_key.iv[_SALT_LENGTH:]
    return layout.pack(suite.version, cipher_type, iv, record_key.key, salt, rec_seq)
