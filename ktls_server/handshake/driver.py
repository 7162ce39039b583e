"""Runs the server's side of a handshake on a channel, and collects what keying the kernel needs.

`do_handshake()` is synchronous, so whatever appears in the key log during a call belongs to this connection. The records
that the completing call writes in TLS 1.3 (NewSessionTicket) are already under the application key: they are counted, not
assumed. They are sent at once, like all else: a client whose Nagle algorithm is on waits with its request for an
acknowledgement of its Finished, and they carry it.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import Final

from ..errors import BadRecordMac, HandshakeFailed
from ..keys.keylog import KeyLog, Tls12Secrets, Tls13Secrets
from ..keys.record_cipher import RecordOpener
from ..keys.suites import lookup
from ..net.channel import Channel
from .client_hello import read_client_hello
from .records import (
    CHANGE_CIPHER_SPEC,
    HANDSHAKE,
    HEADER_BYTES,
    MAX_PLAINTEXT_BYTES,
    SERVER_HELLO,
    record_bytes,
    split_records,
)
from .session import Session
from .tickets import TicketGenerations, key_name_of_ticket

_READ_BYTES: Final = 16 * 1024
MAX_HANDSHAKE_BYTES: Final = 256 * 1024
"""What a client may send before the handshake is complete: the longest ClientHello that OpenSSL takes (131,396 bytes) and a
chain of client certificates fit."""

_MAX_FRAGMENT_LENGTH_EXTENSION: Final = b"\x00\x01\x00\x01"
"""Type and length of the extension (RFC 6066 section 4)."""
_MAX_FRAGMENT_LENGTHS: Final = {1: 1 << 9, 2: 1 << 10, 3: 1 << 11, 4: 1 << 12}


class PlainHttpReceived(HandshakeFailed):
    """The peer speaks HTTP without TLS: worth an answer that a person can read."""

    def __init__(self) -> None:
        super().__init__("plain_http")


async def complete_handshake(channel: Channel, tickets: TicketGenerations, key_log: KeyLog | None) -> Session:
    """Complete one handshake. Raises HandshakeFailed, after the alert was sent, or ConnectionLost.

    `key_log` is the one that every context of `tickets` (and every context that SNI may switch to) writes to; None where none
    can be kept.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context: ssl.SSLContext | None = None
    logged: dict[str, tuple[bytes, bytes]] = {}
    server_random = b""
    flights: list[bytes] = []
    hello_untrusted = bytearray()
    received = 0
    while True:
        data = await channel.receive(_READ_BYTES)
        if not received and data[:1].isalpha():
            # A TLS record starts with 22, no letter of any method.
            raise PlainHttpReceived
        received += len(data)
        if not data or received > MAX_HANDSHAKE_BYTES:
            raise HandshakeFailed("oversized" if data else "closed")
        incoming.write(data)
        if context is None:
            context = tickets.choose(data)
            tls = context.wrap_bio(incoming, outgoing, server_side=True)
        if not server_random:
            hello_untrusted += data
        try:
            tls.do_handshake()
            complete = True
        except ssl.SSLWantReadError:
            complete = False
        except ssl.SSLError as error:
            await channel.send(outgoing.read())
            raise HandshakeFailed((error.reason or "protocol_error").lower()) from None
        finally:
            if key_log is not None:
                logged.update(key_log.take())
        flight = outgoing.read()
        if flight:
            if not server_random:
                server_random = _server_random(flight)
            flights.append(flight)
            await channel.send(flight)
        if complete:
            session = _session(tls, incoming, outgoing, logged, server_random, flights, flight, bytes(hello_untrusted))
            if not tickets.is_known(context):
                tickets.learn(context, _ticket_key_name(session, flights, flight))
            return session


def _session(
    tls: ssl.SSLObject,
    incoming: ssl.MemoryBIO,
    outgoing: ssl.MemoryBIO,
    logged: dict[str, tuple[bytes, bytes]],
    server_random: bytes,
    flights: list[bytes],
    last_flight: bytes,
    hello_untrusted: bytes,
) -> Session:
    version, cipher = tls.version() or "", (tls.cipher() or ("",))[0]
    suite = lookup(cipher)
    secrets: Tls12Secrets | Tls13Secrets | None = None
    explicit_nonce = None
    if version == "TLSv1.3":
        if logged:
            secrets = Tls13Secrets(
                server=logged["SERVER_TRAFFIC_SECRET_0"][1], client=logged["CLIENT_TRAFFIC_SECRET_0"][1]
            )
        receive_sequence = 0
        transmit_sequence = sum(1 for _record in split_records(last_flight))
    else:
        if logged:
            client_random, master_secret = logged["CLIENT_RANDOM"]
            secrets = Tls12Secrets(master_secret, client_random)
        transmit_sequence = receive_sequence = 1  # Finished took 0 (RFC 5246 section 6.1)
        finished_nonce = None
        for flight in flights:
            finished_nonce = _explicit_nonce_of_finished(flight) or finished_nonce
        if suite is not None and suite.has_explicit_nonce and finished_nonce is not None:
            # OpenSSL starts nonce_explicit at random and counts up: the kernel goes on from there, so that none comes twice.
            explicit_nonce = ((int.from_bytes(finished_nonce, "big") + 1) % (1 << 64)).to_bytes(8, "big")
    return Session(
        tls=tls,
        incoming=incoming,
        outgoing=outgoing,
        version=version,
        cipher=cipher,
        suite=suite,
        secrets=secrets,
        server_random=server_random,
        transmit_sequence=transmit_sequence,
        receive_sequence=receive_sequence,
        transmit_explicit_nonce=explicit_nonce,
        max_plaintext_bytes=_max_plaintext_bytes(hello_untrusted),
        hello_untrusted=hello_untrusted,
        alpn_protocol=tls.selected_alpn_protocol(),
        resumed=bool(tls.session_reused),
        client_certificate=None if tls.context.verify_mode == ssl.CERT_NONE else tls.getpeercert(binary_form=True),
    )


def _ticket_key_name(session: Session, flights: list[bytes], last_flight: bytes) -> bytes:
    """The name of the key of the ticket that this handshake gave out; b"" where there was none, or it cannot be read."""
    if session.version == "TLSv1.3":
        if session.secrets is None or session.suite is None or not last_flight:
            return b""
        opener = RecordOpener(session.suite, session.server_key(), 0)
        with contextlib.suppress(BadRecordMac):
            return key_name_of_ticket(opener.open(next(split_records(last_flight)))[1], tls13=True)
        return b""
    for record in (record for flight in flights for record in split_records(flight)):
        if record[0] == HANDSHAKE:
            name = key_name_of_ticket(record[HEADER_BYTES:], tls13=False)
            if name:
                return name
    return b""


def _max_plaintext_bytes(hello_untrusted: bytes) -> int:
    """How long the content of a record may be for this client: OpenSSL agrees to each lawful max_fragment_length.

    Most clients ask for none, in a ClientHello of one record. Reading a whole ClientHello costs more than looking for the
    extension's first bytes, which only a record header can part.
    """
    in_one_record = len(hello_untrusted) == record_bytes(hello_untrusted)
    if not in_one_record or _MAX_FRAGMENT_LENGTH_EXTENSION in hello_untrusted:
        hello = read_client_hello(hello_untrusted)
        if hello is not None and hello.max_fragment_length in _MAX_FRAGMENT_LENGTHS:
            return _MAX_FRAGMENT_LENGTHS[hello.max_fragment_length]
    return MAX_PLAINTEXT_BYTES


def _server_random(flight: bytes) -> bytes:
    """ServerHello.random, where the flight starts with a ServerHello: type, length (3), version (2), random (32)."""
    if flight[0] != HANDSHAKE or flight[HEADER_BYTES] != SERVER_HELLO:
        return b""
    start = HEADER_BYTES + 1 + 3 + 2
    return flight[start : start + 32]


def _explicit_nonce_of_finished(flight: bytes) -> bytes | None:
    """The nonce_explicit of the record after ChangeCipherSpec: Finished, in TLS 1.2 (RFC 5288 section 3)."""
    after_change = False
    for record in split_records(flight):
        if after_change and record[0] == HANDSHAKE:
            return record[HEADER_BYTES : HEADER_BYTES + 8]
        after_change = record[0] == CHANGE_CIPHER_SPEC
    return None
