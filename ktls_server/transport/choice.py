"""Which transport a connection gets: the kernel's where it can have it, userspace's where not, one by one."""

from __future__ import annotations

import errno
import logging
import sys
from collections import Counter
from dataclasses import dataclass, field

from ..errors import KernelTlsUnavailable
from ..handshake.records import MAX_PLAINTEXT_BYTES
from ..handshake.session import Session
from ..kernel.probe import KernelTls
from ..keys.suites import CipherKind
from ..net.channel import Channel
from .interface import Sealer, Transport
from .kernel import KernelOpener, KernelSealer
from .openssl import OpenSslReader, OpenSslSealer
from .reading import KeyedReader, Opener
from .userspace import Buffers, UserspaceOpener, UserspaceSealer
from .writer import Writer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TransportPolicy:
    """What the operator wants and the kernel can. `transmit` and `receive`: may the kernel do that half at all.

    `buffers` are those of the event loop that the connections run on.
    """

    kernel: KernelTls
    transmit: bool
    receive: bool
    record_limit: int
    buffers: Buffers = field(default_factory=Buffers)

    def offloads_transmit(self, session: Session) -> bool:
        """TLS_TX where the kernel takes the suite, and can send records as short as the client asked for."""
        if not self.transmit or session.suite is None or not self.kernel.transmit(session.suite):
            return False
        return session.max_plaintext_bytes == MAX_PLAINTEXT_BYTES or self.kernel.payload_limit

    def offloads_receive(self, session: Session) -> bool:
        """TLS_RX only on kernels that can rekey (Linux 6.14 and later), for TLS 1.2 too.

        A client may send a KeyUpdate at any time, which only those can follow. And on older ones (seen on 6.1) poll calls
        a socket readable while part of a record is there: a client that sends no more would have the loop spin.
        """
        return self.receive and self.kernel.rekey and session.suite is not None and self.kernel.receive(session.suite)


def establish(
    channel: Channel, session: Session, policy: TransportPolicy, key_updates: Counter[str] | None = None
) -> Transport:
    """The transport of a connection whose handshake is complete. `key_updates` is counted in as `Writer` says.

    OpenSSL's part ends here wherever the keys are ours: `session` is released.
    """
    # ChaCha20-Poly1305 has no limit that 2^64 records would reach (RFC 9846 section 5.5).
    limited = session.suite is None or session.suite.kind is not CipherKind.CHACHA20_POLY1305
    record_limit = policy.record_limit if limited else sys.maxsize
    if not session.secrets or not session.suite:
        writer = Writer(channel, OpenSslSealer(channel, session), record_limit, key_updates)
        return Transport(channel, OpenSslReader(channel, session, writer, policy.buffers), writer)
    sealer = _sealer(channel, session, policy)
    writer = Writer(channel, sealer, record_limit, key_updates, session.max_plaintext_bytes)
    early = UserspaceOpener(channel, session, policy.buffers, session.take_early_data())
    opener: Opener = early
    if sealer.path == "kernel" and policy.offloads_receive(session):
        try:
            opener = KernelOpener(channel, session, early)
        except KernelTlsUnavailable as refusal:
            _log.warning("this process decrypts for a connection: %s", refusal)
    transport = Transport(channel, KeyedReader(opener, writer, session.client_secret(), key_updates), writer)
    session.release()
    return transport


def _sealer(channel: Channel, session: Session, policy: TransportPolicy) -> Sealer:
    if policy.offloads_transmit(session):
        try:
            return KernelSealer(channel, session, can_rekey=policy.kernel.rekey)
        except KernelTlsUnavailable as refusal:
            # The socket is as good as before: with the ULP attached and no key it sends what it is given.
            level = logging.DEBUG if _client_has_ended(refusal) else logging.WARNING
            _log.log(level, "userspace TLS for a connection: %s", refusal)
    return UserspaceSealer(channel, session, policy.buffers)


def _client_has_ended(refusal: KernelTlsUnavailable) -> bool:
    """Whether the client closed or reset the connection meanwhile, which is no fault of the kernel's: ENOTCONN."""
    return isinstance(refusal.__cause__, OSError) and refusal.__cause__.errno == errno.ENOTCONN
