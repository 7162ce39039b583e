"""Which transport a connection gets: the kernel's where it can have it, userspace's where not, one by one."""

from __future__ import annotations

import errno
import logging
import sys
from collections import Counter
from dataclasses import dataclass

from ..errors import KernelTlsUnavailable
from ..handshake.session import Session
from ..kernel.probe import KernelTls
from ..keys.suites import CipherKind
from ..net.channel import Channel
from .interface import Transport
from .kernel import KernelTransmitter
from .keyed import KeyedTransport
from .openssl import OpenSslTransport
from .receiving import KernelReceiver, OpenSslReceiver, Receiver
from .userspace import UserspaceTransmitter

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TransportPolicy:
    """What the operator wants and the kernel can. `transmit` and `receive`: may the kernel do that half at all."""

    kernel: KernelTls
    transmit: bool
    receive: bool
    record_limit: int

    def offloads_receive(self, session: Session) -> bool:
        """TLS_RX only on kernels that can rekey (Linux 6.14 and later), for TLS 1.2 too.

        A client may send a KeyUpdate at any time, which only those can follow. And on older ones (seen on 6.1) poll calls
        a socket readable while part of a record is there: a client that sends no more would have the loop spin.
        """
        return self.receive and self.kernel.rekey and session.suite is not None and self.kernel.receive(session.suite)


def establish(
    channel: Channel, session: Session, policy: TransportPolicy, key_updates: Counter[str] | None = None
) -> Transport:
    """The transport of a connection whose handshake is complete.

    `key_updates` counts what becomes of the keys, as `KeyedTransport` says.
    """
    # ChaCha20-Poly1305 has no limit that 2^64 records would reach (RFC 9846 section 5.5).
    limited = session.suite is None or session.suite.kind is not CipherKind.CHACHA20_POLY1305
    record_limit = policy.record_limit if limited else sys.maxsize
    if not session.secrets or not session.suite:
        return OpenSslTransport(channel, session, record_limit)
    if policy.transmit and policy.kernel.transmit(session.suite):
        try:
            transmitter = KernelTransmitter(channel, session, can_rekey=policy.kernel.rekey)
        except KernelTlsUnavailable as refusal:
            # The socket is as good as before: with the ULP attached and no key it sends what it is given.
            level = logging.DEBUG if _client_has_ended(refusal) else logging.WARNING
            _log.log(level, "userspace TLS for a connection: %s", refusal)
        else:
            return KeyedTransport(transmitter, _receiver(channel, session, policy), record_limit, key_updates)
    return KeyedTransport(
        UserspaceTransmitter(channel, session), OpenSslReceiver(channel, session), record_limit, key_updates
    )


def _client_has_ended(refusal: KernelTlsUnavailable) -> bool:
    """Whether the client closed or reset the connection meanwhile, which is no fault of the kernel's: ENOTCONN."""
    return isinstance(refusal.__cause__, OSError) and refusal.__cause__.errno == errno.ENOTCONN


def _receiver(channel: Channel, session: Session, policy: TransportPolicy) -> Receiver:
    if policy.offloads_receive(session):
        try:
            return KernelReceiver(channel, session)
        except KernelTlsUnavailable as refusal:
            _log.warning("OpenSSL decrypts for a connection: %s", refusal)
    return OpenSslReceiver(channel, session)
