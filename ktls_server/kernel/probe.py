"""What the running kernel can do, asked once at start-up by doing it.

Version numbers lie (vendors backport, containers forbid, modules are missing), so each cipher is installed on a
connected loopback pair, in each direction and TLS version. The answer is a value to decide by, connection after
connection, and to print. `tls_stat()` reads the kernel's own counters: the proof of what it did.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import KernelTlsUnavailable
from ..keys.schedule import RecordKey
from ..keys.suites import SUITES, TLS_1_2, TLS_1_3, CipherKind, CipherSuite
from . import crypto_info, sockets, uapi
from .configuration import built_with_tls

Ability = tuple[CipherKind, int]
"""A cipher and the TLS version that it is used in."""

_LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))

_SHORT_NAME = {
    CipherKind.AES_128_GCM: "AES-128-GCM",
    CipherKind.AES_256_GCM: "AES-256-GCM",
    CipherKind.CHACHA20_POLY1305: "ChaCha20",
}
_VERSION_NAME = {TLS_1_2: "TLS 1.2", TLS_1_3: "TLS 1.3"}


@dataclass(frozen=True, slots=True)
class KernelTls:
    """The kernel's abilities. `reason` and `cure` are empty unless it can send with no cipher at all.

    `rekey`: whether the key of a TLS 1.3 connection can be changed (Linux 6.14 and later). `payload_limit`: whether its
    records can be made shorter (Linux 6.19 and later).
    """

    transmit_abilities: frozenset[Ability] = frozenset()
    receive_abilities: frozenset[Ability] = frozenset()
    rekey: bool = False
    payload_limit: bool = False
    reason: str = ""
    cure: str = ""

    @property
    def available(self) -> bool:
        """Whether the kernel can encrypt for at least one cipher."""
        return bool(self.transmit_abilities)

    def transmit(self, suite: CipherSuite) -> bool:
        """Whether TLS_TX takes this suite."""
        return (suite.kind, suite.version) in self.transmit_abilities

    def receive(self, suite: CipherSuite) -> bool:
        """Whether TLS_RX takes this suite."""
        return (suite.kind, suite.version) in self.receive_abilities

    def describe(self) -> str:
        """One line for people: the path that new connections get, and why."""
        if not self.available:
            return f"userspace: {self.reason}" + (f"; {self.cure}" if self.cure else "")
        return "kernel TLS: " + ", ".join(self._describe_ciphers())

    def _describe_ciphers(self) -> Iterator[str]:
        for kind, name in _SHORT_NAME.items():
            versions = [version for version in _VERSION_NAME if (kind, version) in self.transmit_abilities]
            if len(versions) == len(_VERSION_NAME):
                yield name
            elif versions:
                yield f"{name} ({_VERSION_NAME[versions[0]]} only)"


def probe() -> KernelTls:
    """Ask the kernel. Takes a few milliseconds, leaves no socket behind, raises nothing."""
    transmit: set[Ability] = set()
    receive: set[Ability] = set()
    refusals: list[KernelTlsUnavailable] = []
    for suite in _one_suite_per_ability():
        ability = suite.kind, suite.version
        for direction, abilities in ((uapi.TLS_TX, transmit), (uapi.TLS_RX, receive)):
            try:
                _try_to_install(direction, suite)
                abilities.add(ability)
            except KernelTlsUnavailable as refusal:
                refusals.append(refusal)
    if not transmit:
        return KernelTls(reason=refusals[0].reason, cure=_cure(refusals[0]))
    return KernelTls(frozenset(transmit), frozenset(receive), _can_rekey(), _can_limit_payload())


def _cure(refusal: KernelTlsUnavailable) -> str:
    """The refusal's own, unless the kernel was built without TLS: then no module can be loaded."""
    if isinstance(refusal.__cause__, OSError) and refusal.__cause__.errno == errno.ENOENT and built_with_tls() == "no":
        return "it was built without (CONFIG_TLS is not set), so no module can be loaded: run another kernel"
    return refusal.cure


def _one_suite_per_ability() -> list[CipherSuite]:
    return list({(suite.kind, suite.version): suite for suite in SUITES.values()}.values())


def _try_to_install(direction: int, suite: CipherSuite, *, times: int = 1) -> None:
    """Key a connected socket in one direction, `times` times over. Raises `KernelTlsUnavailable`."""
    install = sockets.install_transmit if direction == uapi.TLS_TX else sockets.install_receive
    with _connected_pair() as sock:
        sockets.attach(sock)
        for generation in range(times):
            key = RecordKey(bytes((generation,)) * suite.key_length, bytes(suite.iv_length))
            install(sock, crypto_info.pack(suite, key, 0))


def _can_rekey() -> bool:
    try:
        _try_to_install(uapi.TLS_TX, SUITES["TLS_AES_128_GCM_SHA256"], times=2)
    except KernelTlsUnavailable:
        return False
    return True


def _can_limit_payload() -> bool:
    suite = SUITES["TLS_AES_128_GCM_SHA256"]
    with contextlib.suppress(KernelTlsUnavailable), _connected_pair() as sock:
        sockets.attach(sock)
        key = RecordKey(bytes(suite.key_length), bytes(suite.iv_length))
        sockets.install_transmit(sock, crypto_info.pack(suite, key, 0))
        sockets.limit_payload(sock, 512)
        return True
    return False


@contextlib.contextmanager
def _connected_pair() -> Iterator[socket.socket]:
    """One end of a TCP connection to ourselves; the other one stays open as long. Raises `KernelTlsUnavailable`."""
    with contextlib.ExitStack() as stack:
        for family, address in _LOOPBACK:
            try:
                listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                listener.bind((address, 0))
                listener.listen(1)
                near = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                near.connect(listener.getsockname())
                stack.enter_context(listener.accept()[0])
            except OSError as error:
                failure = error
                continue
            yield near
            return
        raise KernelTlsUnavailable(
            f"no loopback connection to try it on ({failure.strerror})", "bring the interface `lo` up"
        ) from failure


def tls_stat() -> dict[str, int]:
    """`/proc/net/tls_stat`: the counters of this network namespace (`TlsTxSw`, `TlsTxDevice`, ...), or {} without kTLS.

    `TlsTxSw` and `TlsRxSw` count connections keyed since boot, `TlsCurrTxSw` those that stand now, `TlsTxDevice` those
    that the network card encrypts. The table of names is in `Documentation/networking/tls.rst`.
    """
    try:
        with open(uapi.PROC_NET_TLS_STAT, encoding="ascii") as lines:
            return {name: int(value) for name, value in (line.split() for line in lines)}
    except FileNotFoundError:
        return {}
