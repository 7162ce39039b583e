"""What a completed handshake leaves behind: the `SSLObject`, its BIOs, and the secrets of this one connection.

Nothing in here touches a socket.
"""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass, field

from ..keys.keylog import Tls12Secrets, Tls13Secrets
from ..keys.schedule import RecordKey, TrafficSecret, tls12_record_keys, tls13_record_key
from ..keys.suites import CipherSuite
from .client_hello import ClientHello, read_client_hello
from .records import MAX_PLAINTEXT_BYTES


@dataclass(slots=True)
class Session:
    """One established TLS connection, as userspace sees it. Its `repr` holds no secret.

    `transmit_sequence` is the number of the next record that the server sends under its application key,
    `transmit_explicit_nonce` the nonce_explicit that it has to carry in TLS 1.2 with AES-GCM (RFC 5288 section 3; None
    elsewhere), `receive_sequence` that of the client's first record after its Finished.

    `secrets` are None where no key log was kept.

    `max_plaintext_bytes` is the most content that the server may put into one record: less than 2^14 where the client
    asked for a max_fragment_length (RFC 6066 section 4). `hello_untrusted` is what the client sent before
    the server's first word: its ClientHello. `client_certificate` is DER.
    """

    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO = field(repr=False)
    outgoing: ssl.MemoryBIO = field(repr=False)
    version: str
    cipher: str
    suite: CipherSuite | None
    secrets: Tls12Secrets | Tls13Secrets | None = field(repr=False)
    server_random: bytes = field(repr=False)
    transmit_sequence: int = 0
    receive_sequence: int = 0
    transmit_explicit_nonce: bytes | None = field(default=None, repr=False)
    max_plaintext_bytes: int = MAX_PLAINTEXT_BYTES
    hello_untrusted: bytes = field(default=b"", repr=False)
    alpn_protocol: str | None = None
    resumed: bool = False
    client_certificate: bytes | None = field(default=None, repr=False)

    def server_key(self) -> RecordKey:
        """The first key of the server's records. Needs `suite` and `secrets`, as all of these do."""
        return self._record_key(of_server=True)

    def client_key(self) -> RecordKey:
        """The first key of the client's records."""
        return self._record_key(of_server=False)

    def server_secret(self) -> TrafficSecret | None:
        """What the server's later keys come from; None in TLS 1.2, where there are none."""
        assert self.suite is not None
        return TrafficSecret(self.suite, self.secrets.server) if isinstance(self.secrets, Tls13Secrets) else None

    def client_secret(self) -> TrafficSecret | None:
        """What the client's later keys come from; None in TLS 1.2."""
        assert self.suite is not None
        return TrafficSecret(self.suite, self.secrets.client) if isinstance(self.secrets, Tls13Secrets) else None

    def _record_key(self, *, of_server: bool) -> RecordKey:
        assert self.suite is not None
        assert self.secrets is not None
        if isinstance(self.secrets, Tls13Secrets):
            return tls13_record_key(self.suite, self.secrets.server if of_server else self.secrets.client)
        client_key, server_key = tls12_record_keys(self.suite, self.secrets, self.server_random)
        return server_key if of_server else client_key

    def take_early_data(self) -> bytes:
        """What was read from the socket after the client's Finished: records that OpenSSL has not looked at, still sealed."""
        return self.incoming.read()

    def client_hello(self) -> ClientHello | None:
        """What the client asked for: names, protocols, groups; None where it cannot be read."""
        return read_client_hello(self.hello_untrusted)

    def release(self) -> None:
        """Let go of OpenSSL's objects: from here on the keys are used by whoever seals and opens.

        OpenSSL forgets a TLS 1.2 session whose connection was not shut down: it would never be resumed by its session ID. So
        it is shut down here. The close_notify that OpenSSL writes is thrown away, because its nonce will be used for another
        record.
        """
        if self.version == "TLSv1.2":
            with contextlib.suppress(ssl.SSLError):
                self.tls.unwrap()
        del self.tls, self.incoming, self.outgoing
        self.hello_untrusted = b""
