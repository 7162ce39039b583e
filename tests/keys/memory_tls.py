"""Real handshakes in memory, with all that key derivation needs to be checked against other implementations.

The server is OpenSSL, by `ssl.SSLObject`, with a `KeyLog`. The client is tlslite-ng, because `ssl` has no way to choose
a TLS 1.3 cipher suite, or OpenSSL again where sessions are resumed.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from ktls_server.keys.keylog import (
    CLIENT_RANDOM,
    CLIENT_TRAFFIC_SECRET_0,
    SERVER_TRAFFIC_SECRET_0,
    KeyLog,
    Tls12Secrets,
)
from ktls_server.keys.schedule import RecordKey, tls12_record_keys, tls13_record_key
from ktls_server.keys.suites import TLS_1_2, TLS_1_3, CipherKind, CipherSuite

with warnings.catch_warnings():  # It imports asyncore, deprecated in Python 3.11.
    warnings.simplefilter("ignore", DeprecationWarning)
    from tlslite.api import HandshakeSettings, TLSConnection

HOST = "localhost"

_VERSIONS = {TLS_1_2: ssl.TLSVersion.TLSv1_2, TLS_1_3: ssl.TLSVersion.TLSv1_3}

_TLSLITE_CIPHERS = {
    CipherKind.AES_128_GCM: "aes128gcm",
    CipherKind.AES_256_GCM: "aes256gcm",
    CipherKind.CHACHA20_POLY1305: "chacha20-poly1305",
}

# The group ffdhe2048 of RFC 7919: `openssl genpkey -genparam -algorithm DH -pkeyopt group:ffdhe2048`.
_FFDHE2048 = """\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


@functools.cache
def _authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def _certificate(key_type: trustme.KeyType) -> trustme.LeafCert:
    return _authority().issue_cert(HOST, key_type=key_type)


@functools.cache
def server_context(suite: CipherSuite) -> ssl.SSLContext:
    """A server that can only agree on that version, and with TLS 1.2 only on that suite."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = _VERSIONS[suite.version]
    _certificate(trustme.KeyType.ECDSA if "ECDSA" in suite.name else trustme.KeyType.RSA).configure_cert(context)
    if suite.version == TLS_1_2:
        context.set_ciphers(suite.name)
        with TemporaryDirectory() as folder:
            parameters = Path(folder, "ffdhe2048.pem")
            parameters.write_text(_FFDHE2048)
            context.load_dh_params(str(parameters))
    return context


@functools.cache
def client_context() -> ssl.SSLContext:
    """A client that trusts the test authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _authority().configure_trust(context)
    return context


def split_records(stream: bytes) -> list[bytes]:
    """Whole TLS records, headers included."""
    records = []
    while stream:
        end = 5 + int.from_bytes(stream[3:5], "big")
        records.append(stream[:end])
        stream = stream[end:]
    return records


def seal(
    suite: CipherSuite, record_key: RecordKey, sequence: int, content_type: int, content: bytes, *, padding: int = 0
) -> bytes:
    """A record as RFC 8446 section 5.2 or RFC 5246 section 6.2.3.3 want it: the reverse of `RecordOpener.open()`."""
    aead: AESGCM | ChaCha20Poly1305 = (
        ChaCha20Poly1305(record_key.key) if "CHACHA20" in suite.name else AESGCM(record_key.key)
    )
    number = sequence.to_bytes(8, "big")
    nonce = bytes(a ^ b for a, b in zip(record_key.iv, number.rjust(12, b"\x00"), strict=False))
    if suite.version == TLS_1_3:
        inner = content + bytes((content_type,)) + bytes(padding)
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        return header + aead.encrypt(nonce, inner, header)
    explicit = b""
    if suite.has_explicit_nonce:
        explicit, nonce = number, record_key.iv + number
    head = bytes((content_type, 3, 3))
    sealed = aead.encrypt(nonce, content, number + head + len(content).to_bytes(2, "big"))
    return head + (len(explicit) + len(sealed)).to_bytes(2, "big") + explicit + sealed


class OpenSslSide:
    """An SSLObject with its two BIOs."""

    def __init__(self, context: ssl.SSLContext, *, server: bool, session: ssl.SSLSession | None = None) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server else HOST
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server, server_hostname=name, session=session
        )
        self.done = False

    def step(self, wire: bytes) -> bytes:
        """One `do_handshake()` call after `wire` has come; what it wants to send."""
        self.incoming.write(wire)
        try:
            self.tls.do_handshake()
            self.done = True
        except ssl.SSLWantReadError:
            pass
        return self.outgoing.read()

    def write(self, data: bytes) -> bytes:
        """The bytes on the wire for `data`."""
        self.tls.write(data)
        return self.outgoing.read()

    def read(self, wire: bytes) -> bytes:
        """What `wire` decrypts to, as far as one read goes."""
        self.incoming.write(wire)
        return self.tls.read(65536)

    def shut_down(self) -> bytes:
        """The bytes of a close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.outgoing.read()


class _MemorySocket:
    """As much of a non-blocking socket as tlslite-ng needs."""

    def __init__(self) -> None:
        self.incoming, self.outgoing = bytearray(), bytearray()

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError(errno.EAGAIN, "nothing there")
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


class TlsliteSide:
    """A tlslite-ng client that offers one suite only."""

    def __init__(self, suite: CipherSuite) -> None:
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = (suite.version >> 8, suite.version & 0xFF)
        settings.cipherNames = [_TLSLITE_CIPHERS[suite.kind]]
        self._socket = _MemorySocket()
        self._tls = TLSConnection(self._socket)
        self._handshake: Iterator[int] = self._tls.handshakeClientCert(settings=settings, async_=True)
        self.done = False

    def step(self, wire: bytes) -> bytes:
        """Go on with the handshake after `wire` has come; what it wants to send."""
        self._socket.incoming += wire
        self.done = next(self._handshake, None) is None
        return self._sent()

    def write(self, data: bytes) -> bytes:
        """The bytes on the wire for `data`."""
        for _ in self._tls.writeAsync(data):
            pass
        return self._sent()

    def _sent(self) -> bytes:
        sent = bytes(self._socket.outgoing)
        self._socket.outgoing.clear()
        return sent


@dataclass
class Connection:
    """Both ends of a handshake, and what each of the server's calls logged (`taken`) and wrote (`flights`).

    `undelivered` is what the server wrote after the client was done: the tickets of TLS 1.3.
    """

    suite: CipherSuite
    server: OpenSslSide
    client: TlsliteSide | OpenSslSide
    taken: list[dict[str, tuple[bytes, bytes]]] = field(default_factory=list)
    flights: list[bytes] = field(default_factory=list)
    undelivered: bytes = b""

    @property
    def logged(self) -> dict[str, tuple[bytes, bytes]]:
        return {label: line for lines in self.taken for label, line in lines.items()}

    @property
    def server_random(self) -> bytes:
        """From ServerHello: after the record's header (5 bytes), the message's (4) and the version (2)."""
        return self.flights[0][11:43]

    def record_keys(self) -> tuple[RecordKey, RecordKey]:
        """(the client's, the server's), by the code under test."""
        if self.suite.version == TLS_1_3:
            return (
                tls13_record_key(self.suite, self.logged[CLIENT_TRAFFIC_SECRET_0][1]),
                tls13_record_key(self.suite, self.logged[SERVER_TRAFFIC_SECRET_0][1]),
            )
        client_random, master_secret = self.logged[CLIENT_RANDOM]
        return tls12_record_keys(self.suite, Tls12Secrets(master_secret, client_random), self.server_random)

    @property
    def server_sequence(self) -> int:
        """The number of the server's next record: tickets count in TLS 1.3, Finished in TLS 1.2."""
        return len(split_records(self.flights[-1])) if self.suite.version == TLS_1_3 else 1

    @property
    def client_sequence(self) -> int:
        return 0 if self.suite.version == TLS_1_3 else 1


def connect(suite: CipherSuite, key_log: KeyLog) -> Connection:
    """A finished handshake with that suite between OpenSSL and tlslite-ng."""
    context = server_context(suite)
    key_log.attach(context)
    connection = Connection(suite, OpenSslSide(context, server=True), TlsliteSide(suite))
    for _ in handshake(connection, key_log):
        pass
    return connection


def handshake(connection: Connection, key_log: KeyLog) -> Iterator[None]:
    """Run it, stopping after each call of the server's: many can be interleaved."""
    server, client = connection.server, connection.client
    wire = client.step(b"")
    while not (server.done and client.done):
        flight = server.step(wire)
        connection.taken.append(key_log.take())
        connection.flights.append(flight)
        yield
        if client.done:
            connection.undelivered = flight
        else:
            wire = client.step(flight)
