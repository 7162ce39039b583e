"""Reads what a client says first: the ClientHello (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2). Pure.

OpenSSL alone decides whether a handshake is acceptable. This module only describes what the client asked for, so it is
strict: what it cannot read has no description. A ClientHello may come in any number of records, and a record in any number
of pieces; what is kept of it is bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .records import CLIENT_HELLO, HANDSHAKE, HEADER_BYTES, MAX_PLAINTEXT_BYTES

MAX_CLIENT_HELLO_BYTES: Final = 131_396
"""The longest ClientHello that OpenSSL takes: a session id of 32 bytes, and every list at its longest
(CLIENT_HELLO_MAX_LENGTH in ssl/statem/statem_local.h). The four bytes before the message are not counted."""

TICKET_KEY_NAME_BYTES: Final = 16
"""A session ticket starts with the name of the key that sealed it (RFC 5077 section 4)."""

_MESSAGE_HEADER_BYTES: Final = 4
_RANDOM_BYTES: Final = 32
_MAX_SESSION_ID_BYTES: Final = 32
_MAX_EMPTY_RECORDS: Final = 32
"""As many records without content as OpenSSL takes in a row (MAX_EMPTY_RECORDS in ssl/record/record.h)."""

# ExtensionType, by IANA's names: RFC 6066, RFC 7301, RFC 5077, RFC 8449 and RFC 8446 section 4.2.
_SERVER_NAME: Final = 0
_MAX_FRAGMENT_LENGTH: Final = 1
_SUPPORTED_GROUPS: Final = 10
_ALPN: Final = 16
_RECORD_SIZE_LIMIT: Final = 28
_SESSION_TICKET: Final = 35
_PRE_SHARED_KEY: Final = 41
_SUPPORTED_VERSIONS: Final = 43
_KEY_SHARE: Final = 51

_HOST_NAME: Final = 0
"""NameType (RFC 6066 section 3)."""


class UnreadableHello(ValueError):
    """What came is no ClientHello, or one that breaks its own lengths. OpenSSL says what becomes of the handshake."""


@dataclass(slots=True)
class ClientHello:
    """What the client asked for. All of it is untrusted.

    Versions, cipher suites and groups are IANA's numbers. `server_name` is in lower case. `max_fragment_length` is the
    code that the client sent (1 to 4 are lawful), `record_size_limit` a number of bytes. `ticket_key_names` has the name of
    the key for each session ticket that the client offers for resumption.
    """

    legacy_version: int
    random: bytes
    session_id: bytes
    cipher_suites: tuple[int, ...]
    server_name: str | None = None
    alpn_protocols: tuple[bytes, ...] = ()
    max_fragment_length: int | None = None
    record_size_limit: int | None = None
    supported_versions: tuple[int, ...] = ()
    supported_groups: tuple[int, ...] = ()
    key_share_groups: tuple[int, ...] = ()
    ticket_key_names: tuple[bytes, ...] = ()


class ClientHelloReader:
    """Collects the records of one ClientHello."""

    __slots__ = ("_empty_records", "_message", "_record")

    def __init__(self) -> None:
        self._record = bytearray()
        self._message = bytearray()
        self._empty_records = 0

    def feed(self, data_untrusted: bytes) -> ClientHello | None:
        """Take the next bytes of the connection: the ClientHello once it is whole, until then None.

        Bytes behind the ClientHello are passed over. Raises UnreadableHello; feed it no more then.
        """
        record = self._record
        record += data_untrusted
        position = 0
        while len(record) - position >= HEADER_BYTES:
            length = int.from_bytes(record[position + 3 : position + HEADER_BYTES], "big")
            if record[position] != HANDSHAKE or record[position + 1] != 3 or length > MAX_PLAINTEXT_BYTES:
                raise UnreadableHello("not a handshake record")
            end = position + HEADER_BYTES + length
            if end > len(record):
                break
            self._count_empty(length)
            self._message += record[position + HEADER_BYTES : end]
            position = end
            hello = self._whole_message()
            if hello is not None:
                return parse_client_hello(hello)
        del record[:position]
        return None

    def _count_empty(self, length: int) -> None:
        self._empty_records = 0 if length else self._empty_records + 1
        if self._empty_records > _MAX_EMPTY_RECORDS:
            raise UnreadableHello("too many empty records")

    def _whole_message(self) -> bytes | None:
        """The body of the ClientHello, without type and length."""
        message = self._message
        if message and message[0] != CLIENT_HELLO:
            raise UnreadableHello("another handshake message comes first")
        if len(message) < _MESSAGE_HEADER_BYTES:
            return None
        length = int.from_bytes(message[1:_MESSAGE_HEADER_BYTES], "big")
        if length > MAX_CLIENT_HELLO_BYTES:
            raise UnreadableHello("too long")
        end = _MESSAGE_HEADER_BYTES + length
        return bytes(message[_MESSAGE_HEADER_BYTES:end]) if len(message) >= end else None


def read_client_hello(data_untrusted: bytes) -> ClientHello | None:
    """The ClientHello that a connection's first bytes begin with; None where they hold none that can be read."""
    try:
        return ClientHelloReader().feed(data_untrusted)
    except UnreadableHello:
        return None


def parse_client_hello(body_untrusted: bytes) -> ClientHello:
    """Read the body of a ClientHello message. Raises UnreadableHello."""
    try:
        return _parse(body_untrusted)
    except (IndexError, struct.error):
        raise UnreadableHello("it ends too early") from None


def _parse(body: bytes) -> ClientHello:
    position = 2 + _RANDOM_BYTES
    session_id, position = _vector(body, position, 1)
    suites, position = _vector(body, position, 2)
    compression_methods, position = _vector(body, position, 1)
    if len(session_id) > _MAX_SESSION_ID_BYTES or not suites or not compression_methods:
        raise UnreadableHello("a list of impossible length")
    hello = ClientHello(
        legacy_version=int.from_bytes(body[:2], "big"),
        random=body[2 : 2 + _RANDOM_BYTES],
        session_id=session_id,
        cipher_suites=_numbers(suites),
    )
    if position == len(body):  # A client that knows no extensions leaves out the whole list.
        return hello
    extensions, position = _vector(body, position, 2)
    if position != len(body):
        raise UnreadableHello("bytes behind the extensions")
    _read_extensions(hello, extensions)
    return hello


def _read_extensions(hello: ClientHello, extensions: bytes) -> None:
    seen: set[int] = set()
    position, end = 0, len(extensions)
    while position < end:
        kind, length = _KIND_AND_LENGTH.unpack_from(extensions, position)
        start = position + 4
        position = start + length
        if position > end or kind in seen:
            raise UnreadableHello("an extension that comes twice, or does not end")
        seen.add(kind)
        read = _READERS.get(kind)
        if read is not None:
            read(hello, extensions[start:position])


_KIND_AND_LENGTH: Final = struct.Struct(">HH")


def _vector(data: bytes, position: int, length_bytes: int) -> tuple[bytes, int]:
    """A variable-length vector (RFC 8446 section 3.4) with its length before it, and the position behind it."""
    start = position + length_bytes
    end = start + int.from_bytes(data[position:start], "big")
    if start > len(data) or end > len(data):
        raise UnreadableHello("a list that does not end")
    return data[start:end], end


def _whole_vector(data: bytes, length_bytes: int) -> bytes:
    """The vector that `data` is, nothing behind it; not empty."""
    vector, end = _vector(data, 0, length_bytes)
    if end != len(data) or not vector:
        raise UnreadableHello("an extension of another length than its list")
    return vector


def _numbers(data: bytes) -> tuple[int, ...]:
    """Numbers of two bytes each. An odd length is a struct.error."""
    return struct.unpack(f">{len(data) >> 1}H", data)


def _read_server_name(hello: ClientHello, data: bytes) -> None:
    """RFC 6066 section 3. One name, as OpenSSL has it; a name that no host has is left out."""
    names = _whole_vector(data, 2)
    if names[0] != _HOST_NAME:
        raise UnreadableHello("a name that is not a host's")
    name = _whole_vector(names[1:], 2)
    if name.isascii() and all(0x21 <= byte <= 0x7E for byte in name):
        hello.server_name = name.decode().lower()


def _read_max_fragment_length(hello: ClientHello, data: bytes) -> None:
    """RFC 6066 section 4."""
    if len(data) != 1:
        raise UnreadableHello("max_fragment_length of another length")
    hello.max_fragment_length = data[0]


def _read_supported_groups(hello: ClientHello, data: bytes) -> None:
    """RFC 8446 section 4.2.7."""
    hello.supported_groups = _numbers(_whole_vector(data, 2))


def _read_alpn(hello: ClientHello, data: bytes) -> None:
    """RFC 7301 section 3.1."""
    names = _whole_vector(data, 2)
    protocols = []
    position = 0
    while position < len(names):
        name, position = _vector(names, position, 1)
        if not name:
            raise UnreadableHello("a protocol without a name")
        protocols.append(name)
    hello.alpn_protocols = tuple(protocols)


def _read_record_size_limit(hello: ClientHello, data: bytes) -> None:
    """RFC 8449 section 4."""
    (hello.record_size_limit,) = struct.unpack(">H", data)


def _read_session_ticket(hello: ClientHello, data: bytes) -> None:
    """RFC 5077 section 3.2: the ticket itself, or nothing where the client only asks for one."""
    if data:
        hello.ticket_key_names += (data[:TICKET_KEY_NAME_BYTES],)


def _read_pre_shared_key(hello: ClientHello, data: bytes) -> None:
    """OfferedPsks (RFC 8446 section 4.2.11). A session ticket is an identity."""
    identities, position = _vector(data, 0, 2)
    _whole_vector(data[position:], 2)  # the binders
    position = 0
    while position < len(identities):
        identity, position = _vector(identities, position, 2)
        position += 4  # obfuscated_ticket_age
        hello.ticket_key_names += (identity[:TICKET_KEY_NAME_BYTES],)
    if position != len(identities) or not identities:
        raise UnreadableHello("no identity, or a part of one")


def _read_supported_versions(hello: ClientHello, data: bytes) -> None:
    """RFC 8446 section 4.2.1."""
    hello.supported_versions = _numbers(_whole_vector(data, 1))


def _read_key_share(hello: ClientHello, data: bytes) -> None:
    """KeyShareClientHello (RFC 8446 section 4.2.8): an empty list asks for a HelloRetryRequest."""
    shares, end = _vector(data, 0, 2)
    if end != len(data):
        raise UnreadableHello("bytes behind the key shares")
    groups = []
    position = 0
    while position < len(shares):
        groups.append(int.from_bytes(shares[position : position + 2], "big"))
        _share, position = _vector(shares, position + 2, 2)
    hello.key_share_groups = tuple(groups)


_READERS: Final[dict[int, Callable[[ClientHello, bytes], None]]] = {
    _SERVER_NAME: _read_server_name,
    _MAX_FRAGMENT_LENGTH: _read_max_fragment_length,
    _SUPPORTED_GROUPS: _read_supported_groups,
    _ALPN: _read_alpn,
    _RECORD_SIZE_LIMIT: _read_record_size_limit,
    _SESSION_TICKET: _read_session_ticket,
    _PRE_SHARED_KEY: _read_pre_shared_key,
    _SUPPORTED_VERSIONS: _read_supported_versions,
    _KEY_SHARE: _read_key_share,
}
