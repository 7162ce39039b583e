"""TLS record framing of the bytes that pass between OpenSSL and the socket (RFC 8446 section 5.1).

OpenSSL writes whole records into a memory BIO, so what is read from it splits without a remainder. What comes from the
network may end anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

HEADER_BYTES: Final = 5
CHANGE_CIPHER_SPEC: Final = 20
ALERT: Final = 21
HANDSHAKE: Final = 22
APPLICATION_DATA: Final = 23

MAX_PLAINTEXT_BYTES: Final = 1 << 14
"""The most that one record carries (RFC 8446 section 5.1)."""

MAX_RECORD_BYTES: Final = HEADER_BYTES + MAX_PLAINTEXT_BYTES + 2048
"""The longest record that any version allows, with its header (RFC 5246 section 6.2.3; TLS 1.3 allows 256, not 2048)."""

CLIENT_HELLO: Final = 1
SERVER_HELLO: Final = 2
KEY_UPDATE: Final = 24

KEY_UPDATE_NOT_REQUESTED: Final = bytes((KEY_UPDATE, 0, 0, 1, 0))
KEY_UPDATE_REQUESTED: Final = bytes((KEY_UPDATE, 0, 0, 1, 1))
"""A whole KeyUpdate message, with request_update 0 and 1 (RFC 8446 section 4.6.3)."""

CLOSE_NOTIFY: Final = b"\x01\x00"
"""Alert level warning, description close_notify (RFC 8446 section 6.1)."""


def split_records(data: bytes) -> Iterator[bytes]:
    """The records of a flight, each with its header. `data` ends with a whole record."""
    position = 0
    while position < len(data):
        end = position + HEADER_BYTES + int.from_bytes(data[position + 3 : position + 5], "big")
        yield data[position:end]
        position = end


def record_bytes(data_untrusted: bytes) -> int:
    """How many bytes the first record takes up, by its header; HEADER_BYTES where not even that is whole."""
    if len(data_untrusted) < HEADER_BYTES:
        return HEADER_BYTES
    return HEADER_BYTES + int.from_bytes(data_untrusted[3:HEADER_BYTES], "big")
