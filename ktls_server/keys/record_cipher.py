"""Opens records with the keys that we derived ourselves: above all those that OpenSSL wrote.

Once the kernel encrypts, OpenSSL may still want to say something: an alert, the answer to a KeyUpdate, close_notify. It
says it into the outgoing BIO, as records sealed under a key and a sequence number that the kernel now uses too. Those
bytes must never reach the socket: two messages under one nonce give an AEAD's secrets away. `RecordOpener` takes the
plaintext back out, and the kernel seals it again under its own count.

The sequence here is OpenSSL's, which goes its own way from the moment the kernel takes over. In the other direction the
same class opens the records that came in too early for the kernel to see them.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from ktls_server.errors import RecordsOutOfStep
from ktls_server.keys.schedule import RecordKey
from ktls_server.keys.suites import TLS_1_3, CipherKind, CipherSuite

_HEADER_LENGTH = 5
_EXPLICIT_NONCE_LENGTH = 8
_TAG_LENGTH = 16


class RecordOpener:
    """Opens the records of one direction, in order. `sequence` is the number of the next one."""

    def __init__(self, suite: CipherSuite, record_key: RecordKey, sequence: int) -> None:
        self._suite = suite
        self._iv = record_key.iv
        self._aead = (
            ChaCha20Poly1305(record_key.key) if suite.kind is CipherKind.CHACHA20_POLY1305 else AESGCM(record_key.key)
        )
        self.sequence = sequence

    def open(self, record: bytes) -> tuple[int, bytes]:
        """The content type and plaintext of one whole record, its five-byte header included.

        In TLS 1.3 the type is the inner one and the padding is gone (RFC 8446 section 5.2). Raises `RecordsOutOfStep`
        where the record does not open: the key or the sequence is not what its writer used.
        """
        header, payload = record[:_HEADER_LENGTH], record[_HEADER_LENGTH:]
        try:
            content_type, plaintext = (
                self._open_tls13(header, payload)
                if self._suite.version == TLS_1_3
                else self._open_tls12(header, payload)
            )
        except (InvalidTag, ValueError) as error:
            raise RecordsOutOfStep(f"the record is not number {self.sequence} under our key") from error
        self.sequence += 1
        return content_type, plaintext

    def _open_tls13(self, header: bytes, payload: bytes) -> tuple[int, bytes]:
        """RFC 8446 sections 5.2 to 5.4: TLSInnerPlaintext is content, one byte of type, zeros."""
        inner = self._aead.decrypt(self._masked_iv(), payload, header).rstrip(b"\x00")
        if not inner:
            raise ValueError("no content type")
        return inner[-1], inner[:-1]

    def _open_tls12(self, header: bytes, payload: bytes) -> tuple[int, bytes]:
        """RFC 5246 section 6.2.3.3, with the nonce of RFC 5288 section 3 or of RFC 7905 section 2."""
        if self._suite.has_explicit_nonce:
            nonce = self._iv + payload[:_EXPLICIT_NONCE_LENGTH]
            payload = payload[_EXPLICIT_NONCE_LENGTH:]
        else:
            nonce = self._masked_iv()
        length = len(payload) - _TAG_LENGTH
        if length < 0:
            raise ValueError("no room for the tag")
        additional_data = self.sequence.to_bytes(8, "big") + header[:3] + length.to_bytes(2, "big")
        return header[0], self._aead.decrypt(nonce, payload, additional_data)

    def _masked_iv(self) -> bytes:
        """The iv XOR the sequence number, padded on the left: the nonce of TLS 1.3 (RFC 8446 section 5.3)."""
        return (int.from_bytes(self._iv, "big") ^ self.sequence).to_bytes(len(self._iv), "big")
