"""`ktls-server doctor`: what it looks up, what it advises, and how it ends."""

from __future__ import annotations

import importlib.metadata
import json
import os
import resource
from pathlib import Path

import pytest

from ktls_server.certificates import development_certificate
from ktls_server.cli.diagnosis import Finding, State, container_kind, diagnose
from ktls_server.kernel.probe import Ability, KernelTls, probe
from ktls_server.keys.suites import TLS_1_2, TLS_1_3, CipherKind
from tests.cli.conftest import Command
from tests.test_certificates import foreign_pair

ALL: frozenset[Ability] = frozenset((kind, version) for kind in CipherKind for version in (TLS_1_2, TLS_1_3))
CAPABLE = KernelTls(ALL, ALL, rekey=True)
OLD = KernelTls(ALL - {(CipherKind.CHACHA20_POLY1305, TLS_1_3)}, frozenset(), rekey=False)
WITHOUT = KernelTls(reason="the kernel has no tls module (ENOENT)", cure="run `modprobe tls`")


def finding(kernel: KernelTls, name: str) -> Finding:
    (found,) = [finding for finding in diagnose(kernel, {}).findings if finding.name == name]
    return found


def with_kernel(monkeypatch: pytest.MonkeyPatch, kernel: KernelTls) -> None:
    monkeypatch.setattr("ktls_server.kernel.probe.probe", lambda: kernel)


@pytest.mark.parametrize(("kernel", "status"), [(CAPABLE, 0), (OLD, 0), (WITHOUT, 1)])
def test_the_exit_status_tells_whether_the_kernel_would_encrypt(
    command: Command, monkeypatch: pytest.MonkeyPatch, kernel: KernelTls, status: int
) -> None:
    with_kernel(monkeypatch, kernel)
    assert command("doctor").status == status
    assert command("doctor", "--json").status == status


def test_on_this_kernel_it_says_what_the_probe_says(command: Command) -> None:
    kernel = probe()
    outcome = command("doctor", "--json")
    report = json.loads(outcome.out)
    assert outcome.status == (0 if kernel.available else 1)
    assert (report["kernel_tls"], report["summary"]) == (kernel.available, kernel.describe())
    assert f"New connections get {kernel.describe()}" in command("doctor").out


def test_what_is_missing_comes_with_the_line_that_mends_it(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with_kernel(monkeypatch, WITHOUT)
    assert (
        "  tls module: MISSING, the kernel has no tls module (ENOENT)\n    -> run `modprobe tls`\n"
        in command("doctor").out
    )
    missing = [finding for finding in diagnose(WITHOUT, {}).findings if finding.state is State.MISSING]
    assert missing
    assert all(finding.cure for finding in missing)


def test_a_capable_kernel_needs_no_advice() -> None:
    for found in diagnose(CAPABLE, {}).findings:
        if found.topic == "Kernel TLS":
            assert (found.state, found.cure) == (State.OK, ""), found


def test_each_cipher_is_told_for_each_direction_with_its_versions() -> None:
    for kind in CipherKind:
        assert finding(CAPABLE, f"send {kind}").value == "TLS 1.2, TLS 1.3"
        assert finding(CAPABLE, f"receive {kind}").value == "TLS 1.2, TLS 1.3"
        assert finding(OLD, f"receive {kind}").value == "no"
    partly = finding(OLD, "send CHACHA20-POLY1305")
    assert (partly.value, partly.state) == ("TLS 1.2", State.NOTE)
    assert "userspace" in partly.cure
    assert "6.14" in finding(OLD, "key update").cure


def test_the_json_has_stable_keys_and_every_finding(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with_kernel(monkeypatch, CAPABLE)
    monkeypatch.setattr(
        "ktls_server.kernel.probe.tls_stat", lambda: {"TlsTxSw": 7, "TlsTxDevice": 2, "TlsDecryptError": 1}
    )
    report = json.loads(command("doctor", "--json").out)
    assert set(report) == {"ktls_server", "kernel_tls", "summary", "findings", "counters"}
    assert report["counters"] == {"TlsTxSw": 7, "TlsTxDevice": 2, "TlsDecryptError": 1}
    assert all(set(entry) == {"topic", "name", "state", "value", "cure"} for entry in report["findings"])
    by_name = {entry["name"]: entry["value"] for entry in report["findings"]}
    assert by_name["connections sent"] == "7 by the kernel, 2 by a network card (hardware offload)"
    assert by_name["errors"] == "TlsDecryptError 1"
    for name in (
        "ktls-server",
        "kernel",
        "container",
        "Python",
        "OpenSSL",
        "ssl.OP_ENABLE_KTLS",
        "uvloop",
        "open files",
    ):
        assert by_name[name], name
    for name in ("net.ipv4.tcp_wmem", "net.core.somaxconn"):
        assert by_name[name] != "unknown" or not Path("/proc/sys", *name.split(".")).exists()


def test_the_terminal_shows_the_same_findings(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with_kernel(monkeypatch, WITHOUT)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    shown = command("doctor").out
    for found in diagnose(WITHOUT, {}).findings:
        assert found.name in shown
        assert f"→ {found.cure}" in shown or not found.cure


@pytest.mark.parametrize(("built", "shown"), [("m", "m"), ("y", "y"), ("no", "not set"), (None, "unknown")])
def test_how_the_kernel_was_built_is_told(monkeypatch: pytest.MonkeyPatch, built: str | None, shown: str) -> None:
    monkeypatch.setattr("ktls_server.cli.diagnosis.built_with_tls", lambda: built)
    assert finding(WITHOUT, "CONFIG_TLS").value == shown


@pytest.mark.parametrize(("days", "state"), [(-1, State.MISSING), (90, State.OK)])
def test_the_certificate_of_this_environment_is_told_with_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, days: int, state: State
) -> None:
    foreign_pair(tmp_path, days=days)
    monkeypatch.setenv("KTLS_SERVER_CERT", str(tmp_path / "cert.pem"))
    found = finding(CAPABLE, str(tmp_path / "cert.pem"))
    assert found.state is state
    assert f"({days} days)" in found.value or f"({days - 1} days)" in found.value
    assert ("renew it" in found.cure) is (state is State.MISSING)


def test_without_a_certificate_of_its_own_doctor_looks_at_the_development_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not [found for found in diagnose(CAPABLE, {}).findings if found.topic == "Certificates"]
    pair = development_certificate()
    assert finding(CAPABLE, str(pair.cert)).state is State.OK


def test_an_environment_that_no_server_would_start_with_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTLS_SERVER_PORT", "http")
    found = finding(CAPABLE, "settings")
    assert found.state is State.NOTE
    assert "KTLS_SERVER_PORT" in found.value
    assert found.cure


def test_too_few_descriptors_are_noted_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    found = finding(CAPABLE, "open files")
    assert (found.state, found.value) == (State.NOTE, "1024 (may be raised to 4096)")
    assert "LimitNOFILE=10100" in found.cure
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, resource.RLIM_INFINITY))
    assert finding(CAPABLE, "open files").cure == ""


def test_a_library_that_is_missing_comes_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "uvloop":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("importlib.metadata.version", version)
    found = finding(CAPABLE, "uvloop")
    assert (found.state, found.cure) == (State.MISSING, "pip install uvloop")


@pytest.mark.parametrize(
    ("marker", "content", "kind"),
    [
        (".dockerenv", "", "Docker"),
        ("run/.containerenv", "", "Podman"),
        ("proc/1/cgroup", "12:cpu:/kubepods/burstable/pod1\n", "Kubernetes"),
        ("proc/1/cgroup", "0::/system.slice/docker-0123.scope\n", "Docker"),
        ("proc/1/cgroup", "0::/lxc.payload.web\n", "LXC"),
        ("proc/1/cgroup", "0::/init.scope\n", None),
    ],
)
def test_a_container_is_known_by_its_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marker: str, content: str, kind: str | None
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    (tmp_path / marker).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / marker).write_text(content)
    assert container_kind(tmp_path) == kind


def test_a_pod_is_known_by_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert container_kind(tmp_path) == "Kubernetes"


def test_it_leaves_no_descriptor_behind() -> None:
    diagnose(probe(), {})
    before = os.listdir("/proc/self/fd")
    diagnose(probe(), {})
    assert len(os.listdir("/proc/self/fd")) == len(before)
