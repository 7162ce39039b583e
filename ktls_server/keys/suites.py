"""The cipher suites whose records this project can hand to the kernel.

A table, and the first question asked after every handshake: is the negotiated suite one of them? Linux kernel TLS knows
more ciphers (CCM, SM4, ARIA), but no browser negotiates those; a suite that is not here stays in userspace.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# ProtocolVersion on the wire, RFC 5246 section 6.2.1 and RFC 8446 section 4.1.2.
TLS_1_2 = 0x0303
TLS_1_3 = 0x0304


class CipherKind(StrEnum):
    """The AEAD under a suite: what decides the record's shape and the kernel's structure."""

    AES_128_GCM = "AES-128-GCM"
    AES_256_GCM = "AES-256-GCM"
    CHACHA20_POLY1305 = "CHACHA20-POLY1305"


@dataclass(frozen=True, slots=True)
class CipherSuite:
    """One suite. `name` is OpenSSL's, as `SSLObject.cipher()[0]` has it; `hash_name` is hashlib's; lengths in bytes."""

    name: str
    version: int
    kind: CipherKind
    hash_name: str

    @property
    def key_length(self) -> int:
        """Bytes of key that the AEAD takes."""
        return 16 if self.kind is CipherKind.AES_128_GCM else 32

    @property
    def has_explicit_nonce(self) -> bool:
        """Whether each record carries half of its nonce: AES-GCM in TLS 1.2 (RFC 5288 section 3), nothing else here."""
        return self.version == TLS_1_2 and self.kind is not CipherKind.CHACHA20_POLY1305

    @property
    def iv_length(self) -> int:
        """Bytes of the nonce that the key schedule yields: all 12, or the 4 of RFC 5288's `salt`."""
        return 4 if self.has_explicit_nonce else 12


def _tls13(name: str, kind: CipherKind, hash_name: str) -> CipherSuite:
    return CipherSuite(name, TLS_1_3, kind, hash_name)


def _tls12(key_exchange: str) -> tuple[CipherSuite, ...]:
    """The two AES-GCM suites of one key exchange; `key_exchange` is OpenSSL's prefix, empty for plain RSA."""
    return (
        CipherSuite(f"{key_exchange}AES128-GCM-SHA256", TLS_1_2, CipherKind.AES_128_GCM, "sha256"),
        CipherSuite(f"{key_exchange}AES256-GCM-SHA384", TLS_1_2, CipherKind.AES_256_GCM, "sha384"),
    )


def _tls12_chacha20(key_exchange: str) -> CipherSuite:
    return CipherSuite(f"{key_exchange}CHACHA20-POLY1305", TLS_1_2, CipherKind.CHACHA20_POLY1305, "sha256")


# TLS 1.3: RFC 8446 appendix B.4. TLS 1.2: RFC 5289 and RFC 5288 (AES-GCM), RFC 7905 (ChaCha20, no plain RSA variant).
SUITES: dict[str, CipherSuite] = {
    suite.name: suite
    for suite in (
        _tls13("TLS_AES_128_GCM_SHA256", CipherKind.AES_128_GCM, "sha256"),
        _tls13("TLS_AES_256_GCM_SHA384", CipherKind.AES_256_GCM, "sha384"),
        _tls13("TLS_CHACHA20_POLY1305_SHA256", CipherKind.CHACHA20_POLY1305, "sha256"),
        *_tls12("ECDHE-ECDSA-"),
        *_tls12("ECDHE-RSA-"),
        *_tls12("DHE-RSA-"),
        *_tls12(""),
        _tls12_chacha20("ECDHE-ECDSA-"),
        _tls12_chacha20("ECDHE-RSA-"),
        _tls12_chacha20("DHE-RSA-"),
    )
}


def lookup(name: str) -> CipherSuite | None:
    """The suite of that OpenSSL name, or None where the kernel has no part in it (CBC, CCM, ...)."""
    return SUITES.get(name)
