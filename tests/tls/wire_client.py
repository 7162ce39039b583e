"""A client that can say anything: after a real handshake it seals every record by hand, lawful or not.

OpenSSL or tlslite-ng does the handshake; its secrets then go through the project's own key schedule, and from there on
no TLS library is in the way. Records are read here too, following the server's KeyUpdates.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from ktls_server.keys.keylog import (
    CLIENT_RANDOM,
    CLIENT_TRAFFIC_SECRET_0,
    SERVER_TRAFFIC_SECRET_0,
    KeyLog,
    Tls12Secrets,
)
from ktls_server.keys.record_cipher import RecordOpener
from ktls_server.keys.schedule import RecordKey, next_traffic_secret, tls12_record_keys, tls13_record_key
from ktls_server.keys.suites import SUITES, TLS_1_2, TLS_1_3, CipherKind, CipherSuite
from tests.server.clients import Answer
from tests.waiting import WAIT_SECONDS

with warnings.catch_warnings():  # It imports asyncore, deprecated in Python 3.11.
    warnings.simplefilter("ignore", DeprecationWarning)
    from tlslite.api import HandshakeSettings, TLSConnection

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
"""ContentType (RFC 8446 section 5.1)."""
WARNING, FATAL = 1, 2
CLOSE_NOTIFY, UNEXPECTED_MESSAGE, BAD_RECORD_MAC, RECORD_OVERFLOW = 0, 10, 20, 22
PROTOCOL_VERSION, INTERNAL_ERROR, USER_CANCELED, NO_RENEGOTIATION = 70, 80, 90, 100
"""AlertLevel and AlertDescription (RFC 8446 section 6; no_renegotiation: RFC 5246 section 7.2)."""

CLIENT_HELLO, NEW_SESSION_TICKET, KEY_UPDATE = 1, 4, 24
"""HandshakeType (RFC 8446 section 4)."""

TLS13_SUITES = tuple(name for name, suite in SUITES.items() if suite.version == TLS_1_3)
TLS12_SUITES = tuple(name for name in SUITES if name.startswith("ECDHE-ECDSA-"))

_TLSLITE_CIPHERS = {
    CipherKind.AES_128_GCM: "aes128gcm",
    CipherKind.AES_256_GCM: "aes256gcm",
    CipherKind.CHACHA20_POLY1305: "chacha20-poly1305",
}
_HEADER_BYTES = 5


def key_update(*, requested: bool) -> bytes:
    """The handshake message of RFC 8446 section 4.6.3."""
    return bytes((KEY_UPDATE, 0, 0, 1, requested))


class RecordSealer:
    """Seals the records of one direction, in order; the counterpart of `RecordOpener`. `sequence` may be tampered with."""

    def __init__(self, suite: CipherSuite, record_key: RecordKey, sequence: int) -> None:
        self._suite = suite
        self._key = record_key
        self.sequence = sequence

    def seal(self, content_type: int, content: bytes, *, padding: int = 0) -> bytes:
        """A record (RFC 8446 section 5.2, RFC 5246 section 6.2.3.3), however long `content` is. `padding`: TLS 1.3 only."""
        cipher = ChaCha20Poly1305 if self._suite.kind is CipherKind.CHACHA20_POLY1305 else AESGCM
        number = self.sequence.to_bytes(8, "big")
        self.sequence += 1
        aead = cipher(self._key.key)
        nonce = (int.from_bytes(self._key.iv, "big") ^ int.from_bytes(number, "big")).to_bytes(12, "big")
        if self._suite.version == TLS_1_3:
            inner = content + bytes((content_type,)) + bytes(padding)
            header = struct.pack("!BHH", APPLICATION_DATA, TLS_1_2, len(inner) + 16)
            return header + aead.encrypt(nonce, inner, header)
        explicit = b""
        if self._suite.has_explicit_nonce:
            explicit, nonce = number, self._key.iv + number
        additional = number + struct.pack("!BHH", content_type, TLS_1_2, len(content))
        sealed = explicit + aead.encrypt(nonce, content, additional)
        return struct.pack("!BHH", content_type, TLS_1_2, len(sealed)) + sealed


@dataclass
class HandshakeResult:
    """What the client's side of a handshake knows in the end. The secrets are those of TLS 1.3."""

    suite: CipherSuite
    client_key: RecordKey
    server_key: RecordKey
    client_secret: bytes = b""
    server_secret: bytes = b""


class HandshakeEngine(Protocol):
    """A TLS library that does one client handshake in memory."""

    done: bool

    def step(self, received: bytes) -> bytes:
        """Go on after `received` has come; the bytes to send."""

    def result(self, server_hello: bytes) -> HandshakeResult:
        """Once `done`. `server_hello` is the first record that the server sent."""


class OpenSslHandshake:
    """OpenSSL by way of `ssl`. Cannot choose the cipher suite of TLS 1.3."""

    def __init__(
        self, context: ssl.SSLContext, server_name: str | None = "localhost", session: ssl.SSLSession | None = None
    ) -> None:
        self._key_log = KeyLog()
        self._key_log.attach(context)
        self._logged: dict[str, tuple[bytes, bytes]] = {}
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name, session=session)
        self.done = False

    def step(self, received: bytes) -> bytes:
        self._incoming.write(received)
        try:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                self.done = True
        finally:
            self._logged.update(self._key_log.take())
            if self.done:
                self._key_log.close()
        return self._outgoing.read()

    def result(self, server_hello: bytes) -> HandshakeResult:
        suite = SUITES[self.tls.cipher()[0]]  # type: ignore[index]
        if suite.version == TLS_1_3:
            client, server = (self._logged[label][1] for label in (CLIENT_TRAFFIC_SECRET_0, SERVER_TRAFFIC_SECRET_0))
            return _tls13_result(suite, client, server)
        client_random, master_secret = self._logged[CLIENT_RANDOM]
        return _tls12_result(suite, master_secret, client_random, server_hello)


class TlsliteHandshake:
    """tlslite-ng, in pure Python, offering one suite only."""

    def __init__(self, suite: CipherSuite) -> None:
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = (suite.version >> 8, suite.version & 0xFF)
        settings.cipherNames = [_TLSLITE_CIPHERS[suite.kind]]
        self._suite = suite
        self._socket = _MemorySocket()
        self.connection = TLSConnection(self._socket)
        self._steps = self.connection.handshakeClientCert(serverName="localhost", settings=settings, async_=True)
        self.done = False

    def step(self, received: bytes) -> bytes:
        self._socket.incoming += received
        self.done = next(self._steps, None) is None
        sent = bytes(self._socket.outgoing)
        self._socket.outgoing.clear()
        return sent

    def result(self, server_hello: bytes) -> HandshakeResult:
        session = self.connection.session
        if self._suite.version == TLS_1_3:
            return _tls13_result(self._suite, bytes(session.cl_app_secret), bytes(session.sr_app_secret))
        client_random = bytes(self.connection._clientRandom)
        return _tls12_result(self._suite, bytes(session.masterSecret), client_random, server_hello)


class _MemorySocket:
    """As much of a non-blocking socket as tlslite-ng needs."""

    def __init__(self) -> None:
        self.incoming, self.outgoing = bytearray(), bytearray()

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError(11, "nothing there")
        data = bytes(self.incoming[:size])
        del self.incoming[:size]
        return data

    def send(self, data: bytes) -> int:
        self.outgoing += data
        return len(data)

    def sendall(self, data: bytes) -> None:
        self.outgoing += data

    def close(self) -> None:
        """Called when the handshake fails."""


def _tls13_result(suite: CipherSuite, client_secret: bytes, server_secret: bytes) -> HandshakeResult:
    client_key, server_key = (tls13_record_key(suite, secret) for secret in (client_secret, server_secret))
    return HandshakeResult(suite, client_key, server_key, client_secret, server_secret)


def _tls12_result(suite: CipherSuite, master_secret: bytes, client_random: bytes, hello: bytes) -> HandshakeResult:
    # Before ServerHello.random: the record's header (5 bytes), the message's (4), the version (2).
    return HandshakeResult(suite, *tls12_record_keys(suite, Tls12Secrets(master_secret, client_random), hello[11:43]))


@dataclass
class Ending:
    """How the server ended a connection: what data came before it, the alerts, and whether it was a TCP reset."""

    data: bytes = b""
    alerts: list[tuple[int, int]] = field(default_factory=list)
    reset: bool = False


class WireClient:
    """One connection. Raises TimeoutError where the server neither answers nor closes."""

    def __init__(
        self, address: tuple[str, int], engine: HandshakeEngine, *, with_finished: Callable[[Self], bytes] | None = None
    ) -> None:
        """Do the handshake. What `with_finished` returns goes out in the very same segment as the client's Finished."""
        self.sock = socket.socket()
        self.sock.settimeout(WAIT_SECONDS)
        # Small, and set before the connection stands, so that a download is under way for as long as nobody reads.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.sock.connect(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.sock.makefile("rb")
        self.alerts: list[tuple[int, int]] = []
        self.server_key_updates: list[bool] = []
        """Of each KeyUpdate that came: whether it asked for an answer."""
        self.tickets = 0
        self._data = b""
        self._handshake(engine, with_finished)

    def _handshake(self, engine: HandshakeEngine, with_finished: Callable[[Self], bytes] | None) -> None:
        hello = b""
        flight = engine.step(b"")
        while not engine.done:
            if flight:
                self.send_raw(flight)
            record = self._read_record()
            assert record is not None, "the server closed in the middle of the handshake"
            hello = hello or record
            flight = engine.step(record)
        result = engine.result(hello)
        self.suite = result.suite
        self._client_secret, self._server_secret = result.client_secret, result.server_secret
        first = 0 if self.suite.version == TLS_1_3 else 1
        self.sealer = RecordSealer(self.suite, result.client_key, first)
        self._opener = RecordOpener(self.suite, result.server_key, first)
        self.send_raw(flight + (with_finished(self) if with_finished is not None else b""))

    # Sending

    def send_raw(self, data: bytes) -> None:
        if data:
            self.sock.sendall(data)

    def seal(self, content: bytes, content_type: int = APPLICATION_DATA, *, padding: int = 0) -> bytes:
        return self.sealer.seal(content_type, content, padding=padding)

    def send(self, content: bytes, content_type: int = APPLICATION_DATA, *, padding: int = 0) -> None:
        """One record of that type."""
        self.send_raw(self.seal(content, content_type, padding=padding))

    def sealed_key_update(self, *, requested: bool) -> bytes:
        """A KeyUpdate; what is sealed after it is sealed under the next key."""
        record = self.seal(key_update(requested=requested), HANDSHAKE)
        self.next_key()
        return record

    def next_key(self) -> None:
        """Go on to the next generation of the client's key."""
        self._client_secret = next_traffic_secret(self.suite, self._client_secret)
        self.sealer = RecordSealer(self.suite, tls13_record_key(self.suite, self._client_secret), 0)

    def send_key_update(self, *, requested: bool) -> None:
        self.send_raw(self.sealed_key_update(requested=requested))

    # Receiving

    def _read_record(self) -> bytes | None:
        """The next record as it came, None at the end of the stream. An end within a record fails the test."""
        header = self._file.read(_HEADER_BYTES)
        if not header:
            return None
        assert len(header) == _HEADER_BYTES, "the stream ended within a record's header"
        payload = self._file.read(int.from_bytes(header[3:], "big"))
        assert len(payload) == int.from_bytes(header[3:], "big"), "the stream ended within a record"
        return header + payload

    def receive_record(self) -> tuple[int, bytes] | None:
        """The next record, opened; KeyUpdates followed, alerts and tickets noted. None at the end of the stream."""
        record = self._read_record()
        if record is None:
            return None
        content_type, content = self._opener.open(record)
        assert content or content_type == APPLICATION_DATA, "an empty record that is no application data"
        if content_type == ALERT:
            level, description = content
            self.alerts.append((level, description))
        elif content_type == HANDSHAKE and content[0] == KEY_UPDATE:
            assert content in (key_update(requested=False), key_update(requested=True))
            self.server_key_updates.append(bool(content[-1]))
            self._server_secret = next_traffic_secret(self.suite, self._server_secret)
            self._opener = RecordOpener(self.suite, tls13_record_key(self.suite, self._server_secret), 0)
        elif content_type == HANDSHAKE and content[0] == NEW_SESSION_TICKET:
            self.tickets += 1
        else:
            assert content_type == APPLICATION_DATA, f"a record of type {content_type}: {content[:4].hex()}"
        return content_type, content

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes of application data."""
        while len(self._data) < size:
            self._fill()
        data, self._data = self._data[:size], self._data[size:]
        return data

    def read_head(self) -> bytes:
        """Up to the empty line that ends a response's head."""
        while (end := self._data.find(b"\r\n\r\n")) < 0:
            self._fill()
        return self.read(end + 4)

    def _fill(self) -> None:
        received = self.receive_record()
        assert received is not None, "the stream ended within a response"
        content_type, content = received
        assert content_type != ALERT, f"alert {content.hex()} within a response"
        if content_type == APPLICATION_DATA:
            self._data += content

    def answer(self) -> Answer:
        """The next response, whole."""
        status_line, *lines = self.read_head().decode("latin-1").rstrip("\r\n").split("\r\n")
        version, status, _reason = status_line.split(" ", 2)
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return Answer(int(status), version, headers, self.read(int(headers["content-length"])))

    def get(self, path: str, *fields: str) -> Answer:
        """One request, sent as one record, and its answer."""
        self.send(get_request(path, *fields))
        return self.answer()

    def ending(self) -> Ending:
        """Read until the server has closed."""
        ending = Ending(self._data)
        self._data = b""
        try:
            while (received := self.receive_record()) is not None:
                if received[0] == APPLICATION_DATA:
                    ending.data += received[1]
        except ConnectionResetError:
            ending.reset = True
        ending.alerts = self.alerts
        return ending

    # Leaving

    def reset(self) -> None:
        """Cut the connection with a TCP reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._file.close()
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def get_request(path: str, *fields: str) -> bytes:
    """A request head."""
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: localhost", *fields, "", "")).encode("latin-1")
