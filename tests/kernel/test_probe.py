"""What `probe()` says, on kernels of every kind: the real one, and ones whose refusals are scripted."""

import errno
import gzip
import os
import socket
from pathlib import Path

import pytest

from ktls_server.kernel import probe as probe_module
from ktls_server.kernel import uapi
from ktls_server.kernel.configuration import built_with_tls
from ktls_server.kernel.probe import KernelTls, probe, tls_stat
from ktls_server.keys.suites import SUITES, TLS_1_2, TLS_1_3, CipherKind

AES_128_BOTH = frozenset({(CipherKind.AES_128_GCM, TLS_1_2), (CipherKind.AES_128_GCM, TLS_1_3)})
EVERYTHING = frozenset((kind, version) for kind in CipherKind for version in (TLS_1_2, TLS_1_3))


@pytest.mark.parametrize(
    ("abilities", "line"),
    [
        (KernelTls(EVERYTHING, EVERYTHING), "kernel TLS: AES-128-GCM, AES-256-GCM, ChaCha20"),
        (KernelTls(AES_128_BOTH), "kernel TLS: AES-128-GCM"),
        (
            KernelTls(AES_128_BOTH | {(CipherKind.CHACHA20_POLY1305, TLS_1_2)}),
            "kernel TLS: AES-128-GCM, ChaCha20 (TLS 1.2 only)",
        ),
        (
            KernelTls(reason="the kernel has no tls module (ENOENT)", cure="load it"),
            "userspace: the kernel has no tls module (ENOENT); load it",
        ),
        (KernelTls(reason="switched off (--ktls off)"), "userspace: switched off (--ktls off)"),
    ],
)
def test_the_line_for_people(abilities: KernelTls, line: str) -> None:
    assert abilities.describe() == line


def test_abilities_are_asked_by_suite() -> None:
    abilities = KernelTls(AES_128_BOTH, frozenset({(CipherKind.AES_128_GCM, TLS_1_2)}))
    assert abilities.transmit(SUITES["TLS_AES_128_GCM_SHA256"])
    assert not abilities.receive(SUITES["TLS_AES_128_GCM_SHA256"])
    assert abilities.receive(SUITES["AES128-GCM-SHA256"])
    assert not abilities.transmit(SUITES["TLS_AES_256_GCM_SHA384"])


class ScriptedSocket(socket.socket):
    """A socket of a kernel with the refusals in `refuse`: (level, option) or (level, option, cipher type) -> errno.

    Its TLS_TX can be set once only, as before Linux 6.14.
    """

    refuse: dict[tuple[int, ...], int]  # set by the fixture, on a class of its own

    def setsockopt(self, level: int, option: int, value: bytes, *_: object) -> None:  # type: ignore[override]
        cipher = int.from_bytes(value[2:4], "little")
        error = self.refuse.get((level, option)) or self.refuse.get((level, option, cipher))
        if level == uapi.SOL_TLS and option == uapi.TLS_TX and not error:
            error = errno.EBUSY if getattr(self, "keyed", False) else None
            self.keyed = True
        if error:
            raise OSError(error, os.strerror(error))


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, ...], int]:
    """The scripted kernel's refusals, to be filled in."""
    refusals: dict[tuple[int, ...], int] = {}
    kind = type("ScriptedSocket", (ScriptedSocket,), {"refuse": refusals})
    monkeypatch.setattr(socket, "socket", kind)
    return refusals


@pytest.mark.parametrize("built", ["m", "y", None])
def test_a_kernel_without_the_module_is_named_with_its_cure(
    refuse: dict[tuple[int, ...], int], monkeypatch: pytest.MonkeyPatch, built: str | None
) -> None:
    monkeypatch.setattr(probe_module, "built_with_tls", lambda: built)
    refuse[socket.IPPROTO_TCP, uapi.TCP_ULP] = errno.ENOENT
    abilities = probe()
    assert abilities.describe().startswith("userspace: the kernel has no tls module (ENOENT); run `modprobe tls`")
    assert "modprobe tls" in abilities.cure
    assert not abilities.available
    assert not abilities.rekey


def test_a_kernel_that_was_built_without_tls_is_not_told_to_load_it(
    refuse: dict[tuple[int, ...], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "built_with_tls", lambda: "no")
    refuse[socket.IPPROTO_TCP, uapi.TCP_ULP] = errno.ENOENT
    assert "CONFIG_TLS" in probe().cure
    assert "modprobe" not in probe().cure
    # A refusal for another reason has another cure.
    refuse[socket.IPPROTO_TCP, uapi.TCP_ULP] = errno.EPERM
    assert "CONFIG_TLS" not in probe().cure


@pytest.mark.parametrize(
    ("files", "built"),
    [
        ({"proc/config.gz": "CONFIG_TLSX=y\nCONFIG_TLS=m\nCONFIG_TLS_DEVICE=y\n"}, "m"),
        ({"proc/config.gz": "CONFIG_TLS=y\n"}, "y"),
        ({"proc/config.gz": "# CONFIG_TLS is not set\n"}, "no"),
        ({"boot/config-6.1.0-test": "# CONFIG_TLS is not set\n"}, "no"),
        ({"proc/config.gz": "CONFIG_TLS=m\n", "boot/config-6.1.0-test": "# CONFIG_TLS is not set\n"}, "m"),
        ({"boot/config-5.0.0-other": "# CONFIG_TLS is not set\n"}, None),
        ({"proc/config.gz": "CONFIG_TLS_DEVICE=y\n"}, None),
        ({}, None),
    ],
)
def test_what_the_kernel_was_built_with_is_read_where_it_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], built: str | None
) -> None:
    monkeypatch.setattr("platform.release", lambda: "6.1.0-test")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert built_with_tls(tmp_path) == built


def test_a_configuration_that_is_cut_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/config.gz").write_bytes(gzip.compress(b"CONFIG_TLS=m\n" * 100)[:-9])
    assert built_with_tls(tmp_path) is None


def test_a_kernel_that_cannot_encrypt_with_any_cipher_is_not_available(refuse: dict[tuple[int, ...], int]) -> None:
    refuse[uapi.SOL_TLS, uapi.TLS_TX] = errno.ENOPROTOOPT
    abilities = probe()
    assert abilities.describe() == "userspace: setsockopt(TLS_TX) failed (ENOPROTOOPT)"
    assert not abilities.receive_abilities, "receiving alone is of no use"


def test_a_missing_cipher_and_a_missing_direction_are_only_that(refuse: dict[tuple[int, ...], int]) -> None:
    refuse[uapi.SOL_TLS, uapi.TLS_TX, uapi.TLS_CIPHER_CHACHA20_POLY1305] = errno.EINVAL
    refuse[uapi.SOL_TLS, uapi.TLS_RX, uapi.TLS_CIPHER_AES_GCM_256] = errno.ENOENT
    abilities = probe()
    assert abilities.describe() == "kernel TLS: AES-128-GCM, AES-256-GCM"
    assert abilities.receive(SUITES["TLS_CHACHA20_POLY1305_SHA256"])
    assert not abilities.receive(SUITES["TLS_AES_256_GCM_SHA384"])
    assert not abilities.rekey


def test_without_a_loopback_interface_the_reason_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))

    monkeypatch.setattr(socket, "socket", Unreachable)
    abilities = probe()
    assert abilities.reason == "no loopback connection to try it on (Cannot assign requested address)"
    assert abilities.cure


def test_ipv6_loopback_will_do(refuse: dict[tuple[int, ...], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "_LOOPBACK", ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "::1")))
    assert probe().transmit_abilities == EVERYTHING


def test_probing_leaves_no_descriptor_behind() -> None:
    before = os.listdir("/proc/self/fd")
    probe()
    assert os.listdir("/proc/self/fd") == before


def test_tls_stat_are_the_kernels_counters(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    file = os.path.join(tmp_path, "tls_stat")
    monkeypatch.setattr(uapi, "PROC_NET_TLS_STAT", file)
    assert tls_stat() == {}
    with open(file, "w", encoding="ascii") as lines:
        lines.write("TlsCurrTxSw                     \t1\nTlsTxDevice                     \t20\n")
    assert tls_stat() == {"TlsCurrTxSw": 1, "TlsTxDevice": 20}


def test_the_running_kernel_is_found_out_by_doing_it(kernel_tls: KernelTls) -> None:
    before = tls_stat()
    assert probe() == kernel_tls
    after = tls_stat()
    assert after["TlsTxSw"] - before["TlsTxSw"] >= len(kernel_tls.transmit_abilities)
    assert after["TlsRxSw"] - before["TlsRxSw"] == len(kernel_tls.receive_abilities)
    assert after["TlsCurrTxSw"] == before["TlsCurrTxSw"]
