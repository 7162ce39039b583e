"""Certificates and TLS policy, as `SSLContext`s: one for each set of certificates that some name needs.

Every handshake starts with a context that has no certificate (`TlsContexts.tickets` says which). Its SNI callback, which
OpenSSL calls with or without a name, switches to the context that has. OpenSSL takes the session ticket keys from the
first one all the same. That one lives for a generation of ticket keys, or until the client authorities change: tickets
that were given out under authorities that may be gone have to be worth nothing. The others are made anew at each reload:
a certificate that was replaced is gone for good, whatever the type of its key, and one that is broken changes nothing.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from ..errors import ConfigurationError
from ..keys.keylog import KeyLog
from ..settings import Settings
from .tickets import TicketGenerations

GENERATIONS_AHEAD: Final = 60
"""Ticket keys that workers share, twelve hours each: a month. After that each worker has keys of its own."""

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

_OPENSSL_NAME_OF_GROUP: Final = {
    **dict.fromkeys(("p-256", "secp256r1"), "prime256v1"),
    "p-384": "secp384r1",
    "p-521": "secp521r1",
    "x25519": "X25519",
    "x448": "X448",
}
"""By the other names that people know: NIST's, as in nginx's documentation, and those of RFC 8446 (lower case here). CPython
looks a group up by OpenSSL's short name only."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A certificate chain and its key, read and found to belong together."""

    certificate: Path
    key: Path
    names: frozenset[str]


class TlsContexts:
    """All contexts of a server. Handshakes start with `first`; its SNI callback switches to the right one."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError where a certificate, a key, a cipher list or a group is not usable."""
        self._settings = settings
        self._key_log: KeyLog | None = None
        self._authorities = self._read_authorities()
        self.tickets = self._new_tickets()
        self._default, self._by_name = self._build()

    def attach(self, key_log: KeyLog) -> None:
        """Send the secrets of every context's handshakes to `key_log`: once, in the process that does the handshakes.

        Raises OSError where /proc is not mounted.
        """
        for context in {*self.tickets.in_use(), self._default, *self._by_name.values()}:
            key_log.attach(context)
        self._key_log = key_log

    def reload(self) -> None:
        """Read certificates, keys and client authorities again. Raises ConfigurationError, and all stays as it was.

        Connections that stand are not touched; those in the middle of a handshake get the one or the other.
        """
        # Read before the contexts are made: what is replaced in between counts as changed at the next reload.
        authorities = self._read_authorities()
        default, by_name = self._build()
        if authorities != self._authorities:
            # Tickets that were given out under authorities that may be gone have to be worth nothing.
            self.tickets = self._new_tickets()
            self._authorities = authorities
        self._default, self._by_name = default, by_name

    def _read_authorities(self) -> bytes:
        path = self._settings.client_ca
        try:
            return b"" if path is None else path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"client_ca: {path} cannot be read: {_why(error)}") from None

    @property
    def first(self) -> ssl.SSLContext:
        """What handshakes of clients without a ticket start with."""
        return self.tickets.current

    def rotate_ticket_keys(self, now: float) -> None:
        """Go on to the ticket keys that the wall clock says."""
        self.tickets.rotate(now)
        current = self.tickets.current
        if self._key_log is not None and getattr(current, "keylog_filename", None) is None:  # made before the fork
            self._key_log.attach(current)

    def _new_tickets(self) -> TicketGenerations:
        # One process alone makes a context when its time has come.
        ahead = GENERATIONS_AHEAD if self._settings.workers > 1 else 0
        return TicketGenerations(self._new_first, time.time(), ahead)

    def _new_first(self) -> ssl.SSLContext:
        """A context that handshakes start with. It has ticket keys of its own."""
        context = self._new_context()
        context.sni_callback = self._switch
        return context

    def _build(self) -> tuple[ssl.SSLContext, dict[str, ssl.SSLContext]]:
        """The context for a client that names nothing we know, and those for the names that we do."""
        pairs = [self._read(certificate, key) for certificate, key in self._files()]
        contexts: dict[tuple[Path, ...], ssl.SSLContext] = {}

        def context_for(chosen: list[_Pair]) -> ssl.SSLContext:
            certificates = tuple(pair.certificate for pair in chosen)
            if certificates not in contexts:
                context = contexts[certificates] = self._new_context()
                for pair in chosen:
                    _load(context, pair.certificate, pair.key)
            return contexts[certificates]

        # The default is the first certificate, with those for the very same names: ECDSA and RSA.
        default = context_for([pair for pair in pairs if pair.names == pairs[0].names])
        by_name = {
            name: context_for([pair for pair in pairs if name in pair.names])
            for name in sorted(frozenset().union(*(pair.names for pair in pairs)))
        }
        return default, by_name

    def _files(self) -> Iterable[tuple[Path, Path]]:
        certificates, keys = self._settings.cert, self._settings.key
        if keys and len(keys) != len(certificates):
            raise ConfigurationError(
                f"--key: {len(keys)} keys for {len(certificates)} certificates; give one for each, in the same order"
            )
        return zip(certificates, keys or certificates, strict=True)

    def _read(self, certificate: Path, key: Path) -> _Pair:
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)
        leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
        try:
            subject = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names = frozenset(name.lower() for name in subject.get_values_for_type(x509.DNSName))
        except x509.ExtensionNotFound:
            names = frozenset()
        return _Pair(certificate, key, names)

    def _new_context(self) -> ssl.SSLContext:
        settings = self._settings
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = _VERSIONS[settings.tls_min]
        # A client may ask for a new TLS 1.2 handshake at any time, at our cost; TLS 1.3 has no such thing.
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        # A client resumes one connection with a ticket. OpenSSL's two cost each full handshake a tenth more work.
        context.num_tickets = 1
        # Mozilla's intermediate profile: all suites in it are good, so the client, who knows its hardware, chooses.
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        context.set_alpn_protocols(["h2", "http/1.1"] if settings.http2 else ["http/1.1"])
        try:
            context.set_ciphers(settings.ciphers)
        except ssl.SSLError:
            raise ConfigurationError(
                f"ciphers: OpenSSL knows no suite of {settings.ciphers!r}; `openssl ciphers -v` lists what it knows"
            ) from None
        if settings.groups is not None:
            _set_groups(context, settings.groups)
        if settings.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED if settings.client_auth == "required" else ssl.CERT_OPTIONAL
            try:
                context.load_verify_locations(settings.client_ca)
            except (OSError, ssl.SSLError) as error:
                raise ConfigurationError(f"client_ca: {settings.client_ca} cannot be read: {_why(error)}") from None
        if self._key_log is not None:
            self._key_log.attach(context)
        return context

    def _switch(self, tls: ssl.SSLObject, server_name_untrusted: str | None, _context: ssl.SSLContext) -> None:
        """RFC 6066 section 3: an exact name first, then a wildcard for its first label (RFC 6125 section 6.4.3)."""
        name = (server_name_untrusted or "").lower()
        tls.context = self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2]) or self._default


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    def refuse_password() -> str:
        raise ConfigurationError(f"key: {key} is encrypted; write it without: openssl pkey -in {key} -out PLAIN.key")

    try:
        context.load_cert_chain(certificate, key, password=refuse_password)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"cert: {certificate} with key {key} is not usable: {_why(error)}") from None


def _set_groups(context: ssl.SSLContext, groups: str) -> None:
    names = [_OPENSSL_NAME_OF_GROUP.get(name.lower(), name) for name in groups.split(":")]
    set_groups = getattr(context, "set_groups", None)  # Python 3.15
    try:
        if set_groups is not None:
            set_groups(":".join(names))
        elif len(names) == 1:
            context.set_ecdh_curve(names[0])
        else:
            raise ConfigurationError(f"groups: {groups!r} names {len(names)} groups; this Python can set only one")
    except (ValueError, ssl.SSLError):
        raise ConfigurationError(f"groups: OpenSSL does not know {groups!r}; try X25519 or P-256") from None


def _why(error: OSError) -> str:
    return (error.reason or str(error)) if isinstance(error, ssl.SSLError) else (error.strerror or str(error))
