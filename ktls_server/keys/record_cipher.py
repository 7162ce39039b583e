"""Opens and seals records with the keys that we derived ourselves (RFC 8446 section 5.2, RFC 5246 section 6.2.3.3).

`RecordSealer` and `RecordOpener` are the record layer of connections that the kernel cannot take, or takes only one
direction of.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from ..errors import BadRecordMac
from .schedule import RecordKey
from .suites import TLS_1_3, CipherKind, CipherSuite

_HEADER_LENGTH = 5
_EXPLICIT_NONCE_LENGTH = 8
_TAG_LENGTH = 16
_RECORD_VERSION = b"\x03\x03"

MAX_SEALED_BYTES: Final = _HEADER_LENGTH + _EXPLICIT_NONCE_LENGTH + (1 << 14) + _TAG_LENGTH
"""The most that a sealed record of 2^14 bytes takes, in any version."""


def _aead(suite: CipherSuite, key: bytes) -> AESGCM | ChaCha20Poly1305:
    return ChaCha20Poly1305(key) if suite.kind is CipherKind.CHACHA20_POLY1305 else AESGCM(key)


def _masked_iv(iv: int, sequence: int) -> bytes:
    """The iv XOR the sequence number, padded on the left: the nonce of TLS 1.3 (RFC 8446 section 5.3) and of RFC 7905."""
    return (iv ^ sequence).to_bytes(12, "big")


class RecordSealer:
    """Seals the records of one direction, in order. `sequence` is the number of the next one."""

    __slots__ = ("_aead", "_explicit_nonce", "_iv", "_salt", "_tls13", "sequence")

    def __init__(
        self, suite: CipherSuite, record_key: RecordKey, sequence: int, explicit_nonce: bytes | None = None
    ) -> None:
        """`explicit_nonce` is that of the next record, where the suite has one (RFC 5288 section 3); it counts up."""
        self._aead = _aead(suite, record_key.key)
        self._iv = int.from_bytes(record_key.iv, "big")
        self._salt = record_key.iv
        self._tls13 = suite.version == TLS_1_3
        self._explicit_nonce = int.from_bytes(explicit_nonce or b"", "big") if suite.has_explicit_nonce else None
        self.sequence = sequence

    def seal(self, content_type: int, content: bytes) -> bytes:
        """One record, header included, of at most 2^14 bytes of content."""
        room = bytearray(len(content) + 1)
        room[:-1] = content
        record = bytearray(MAX_SEALED_BYTES - (1 << 14) + len(content))
        return bytes(record[: self.seal_into(content_type, memoryview(room), len(content), memoryview(record))])

    def seal_into(self, content_type: int, content: memoryview, size: int, record: memoryview) -> int:
        """Seal the first `size` bytes of `content`, at most 2^14, as one record at the start of `record`.

        Returns the record's length. `content` has one more byte, which TLS 1.3's inner content type is written to;
        `record` has room for MAX_SEALED_BYTES, or for that much less as the content is shorter.
        """
        sequence = self.sequence
        self.sequence = sequence + 1
        if self._tls13:
            sealed_length = size + 1 + _TAG_LENGTH
            header = b"\x17\x03\x03" + sealed_length.to_bytes(2, "big")
            content[size] = content_type
            end = _HEADER_LENGTH + sealed_length
            record[:_HEADER_LENGTH] = header
            self._aead.encrypt_into(
                _masked_iv(self._iv, sequence), content[: size + 1], header, record[_HEADER_LENGTH:end]
            )
            return end
        return self._seal_tls12(sequence, content_type, content[:size], record)

    def _seal_tls12(self, sequence: int, content_type: int, content: memoryview, record: memoryview) -> int:
        start = _HEADER_LENGTH
        if self._explicit_nonce is None:
            nonce = _masked_iv(self._iv, sequence)
        else:
            explicit = self._explicit_nonce.to_bytes(_EXPLICIT_NONCE_LENGTH, "big")
            self._explicit_nonce = (self._explicit_nonce + 1) % (1 << 64)
            start += _EXPLICIT_NONCE_LENGTH
            record[_HEADER_LENGTH:start] = explicit
            nonce = self._salt + explicit
        kind = bytes((content_type,)) + _RECORD_VERSION
        end = start + len(content) + _TAG_LENGTH
        record[:_HEADER_LENGTH] = kind + (end - _HEADER_LENGTH).to_bytes(2, "big")
        additional_data = sequence.to_bytes(8, "big") + kind + len(content).to_bytes(2, "big")
        self._aead.encrypt_into(nonce, content, additional_data, record[start:end])
        return end


class RecordOpener:
    """Opens the records of one direction, in order. `sequence` is the number of the next one."""

    __slots__ = ("_aead", "_explicit_nonce", "_iv", "_salt", "_tls13", "sequence")

    def __init__(self, suite: CipherSuite, record_key: RecordKey, sequence: int) -> None:
        self._aead = _aead(suite, record_key.key)
        self._iv = int.from_bytes(record_key.iv, "big")
        self._salt = record_key.iv
        self._tls13 = suite.version == TLS_1_3
        self._explicit_nonce = suite.has_explicit_nonce
        self.sequence = sequence

    def open(self, record: bytes | memoryview) -> tuple[int, bytes]:
        """The content type and plaintext of one whole record, its five-byte header included.

        In TLS 1.3 the type is the inner one and the padding is gone (RFC 8446 section 5.2); the type is 0 where there is
        nothing but padding. Raises `BadRecordMac` where the record does not open: the key or the sequence is not what
        its writer used.
        """
        sequence = self.sequence
        try:
            if not self._tls13:
                opened = self._open_tls12(sequence, record)
            else:
                # RFC 8446 sections 5.2 to 5.4: TLSInnerPlaintext is content, one byte of type, zeros.
                nonce = (self._iv ^ sequence).to_bytes(12, "big")
                inner = self._aead.decrypt(nonce, record[_HEADER_LENGTH:], record[:_HEADER_LENGTH])
                if not inner or not inner[-1]:
                    inner = inner.rstrip(b"\0")
                opened = (inner[-1], inner[:-1]) if inner else (0, b"")
        except (InvalidTag, ValueError) as error:
            raise BadRecordMac(f"the record is not number {sequence} under our key") from error
        self.sequence = sequence + 1
        return opened

    def _open_tls12(self, sequence: int, record: bytes | memoryview) -> tuple[int, bytes]:
        """RFC 5246 section 6.2.3.3, with the nonce of RFC 5288 section 3 or of RFC 7905 section 2."""
        header, payload = bytes(record[:_HEADER_LENGTH]), record[_HEADER_LENGTH:]
        if self._explicit_nonce:
            nonce = self._salt + payload[:_EXPLICIT_NONCE_LENGTH]
            payload = payload[_EXPLICIT_NONCE_LENGTH:]
        else:
            nonce = _masked_iv(self._iv, sequence)
        length = len(payload) - _TAG_LENGTH
        if length < 0:
            raise ValueError("no room for the tag")
        additional_data = sequence.to_bytes(8, "big") + header[:3] + length.to_bytes(2, "big")
        return header[0], self._aead.decrypt(nonce, payload, additional_data)
