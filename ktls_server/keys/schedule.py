"""The key schedule's last steps: secrets in, record keys out. Pure.

OpenSSL runs the handshake and its schedule; this module only repeats what turns a secret from the key log into the key
and iv of one direction (RFC 8446 section 7.3; RFC 5246 section 6.3), and into the next generation after a KeyUpdate
(RFC 8446 section 7.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from .keylog import Tls12Secrets
from .suites import CipherSuite


@dataclass(frozen=True, slots=True)
class RecordKey:
    """What protects the records of one direction.

    `iv` has 12 bytes; with AES-GCM in TLS 1.2 only the 4 that do not travel in the records (RFC 5288 `salt`).
    """

    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)


_HASHES: Final[dict[str, Callable[[bytes], Any]]] = {"sha256": hashlib.sha256, "sha384": hashlib.sha384}
_INNER_PAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD: Final = bytes(byte ^ 0x5C for byte in range(256))


def hmac_digest(hash_name: str, key: bytes, message: bytes) -> bytes:
    """HMAC (RFC 2104) with a key no longer than the hash's block. Half of what `hmac.digest` costs, four times a handshake."""
    new = _HASHES[hash_name]
    padded = key.ljust(64 if hash_name == "sha256" else 128, b"\0")
    inner: bytes = new(padded.translate(_INNER_PAD) + message).digest()
    outer: bytes = new(padded.translate(_OUTER_PAD) + inner).digest()
    return outer


def hkdf_expand_label(hash_name: str, secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """HKDF-Expand-Label, RFC 8446 section 7.1: `length` bytes; `label` comes without its "tls13 " prefix."""
    full_label = b"tls13 " + label
    info = b"%b%c%b%c%b" % (length.to_bytes(2, "big"), len(full_label), full_label, len(context), context)
    return _hkdf_expand(hash_name, secret, info, length)


def _hkdf_expand(hash_name: str, secret: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 section 2.3."""
    output = block = b""
    counter = 0
    while len(output) < length:
        counter += 1
        block = hmac_digest(hash_name, secret, b"%b%b%c" % (block, info, counter))
        output += block
    return output[:length]


def tls13_record_key(suite: CipherSuite, secret: bytes) -> RecordKey:
    """The key and iv of the direction that `secret`, a traffic secret, belongs to (RFC 8446 section 7.3)."""
    return RecordKey(
        key=hkdf_expand_label(suite.hash_name, secret, b"key", b"", suite.key_length),
        iv=hkdf_expand_label(suite.hash_name, secret, b"iv", b"", suite.iv_length),
    )


def next_traffic_secret(suite: CipherSuite, secret: bytes) -> bytes:
    """`application_traffic_secret_N+1` from N: what a KeyUpdate moves on to (RFC 8446 section 7.2)."""
    return hkdf_expand_label(suite.hash_name, secret, b"traffic upd", b"", len(secret))


class TrafficSecret:
    """The traffic secret of one direction in TLS 1.3, of which every KeyUpdate makes the next. Its `repr` does not show it."""

    __slots__ = ("_secret", "_suite")

    def __init__(self, suite: CipherSuite, secret: bytes) -> None:
        self._suite = suite
        self._secret = secret

    def advance(self) -> RecordKey:
        """Go on to the next generation (RFC 8446 section 7.2); returns its record key."""
        self._secret = next_traffic_secret(self._suite, self._secret)
        return tls13_record_key(self._suite, self._secret)


def tls12_prf(hash_name: str, secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """The PRF of TLS 1.2 (RFC 5246 section 5): `length` bytes of P_hash."""
    seed = label + seed
    output = b""
    a = seed
    while len(output) < length:
        a = hmac_digest(hash_name, secret, a)
        output += hmac_digest(hash_name, secret, a + seed)
    return output[:length]


def tls12_record_keys(suite: CipherSuite, secrets: Tls12Secrets, server_random: bytes) -> tuple[RecordKey, RecordKey]:
    """The record keys of a TLS 1.2 connection: (the client's, the server's).

    RFC 5246 section 6.3; AEAD suites have no MAC keys in the key block. `server_random` is ServerHello's 32 bytes.
    """
    key_length, iv_length = suite.key_length, suite.iv_length
    key_block = tls12_prf(
        suite.hash_name,
        secrets.master_secret,
        b"key expansion",
        server_random + secrets.client_random,
        2 * (key_length + iv_length),
    )
    client_key, server_key = key_block[:key_length], key_block[key_length : 2 * key_length]
    client_iv, server_iv = key_block[2 * key_length : -iv_length], key_block[-iv_length:]
    return RecordKey(client_key, client_iv), RecordKey(server_key, server_iv)
