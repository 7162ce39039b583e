"""What decides whether kernel TLS can be used here, looked up on the running system: the facts behind `doctor`.

Gathering is apart from printing, so that the table and the JSON say the same. Nothing is changed, nothing needs
privileges, and what cannot be read is said to be unknown. Paths under /proc and /sys are those of proc(5).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import resource
import ssl
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from .. import __version__, certificates
from ..errors import ConfigurationError
from ..kernel.configuration import built_with_tls
from ..kernel.probe import Ability, KernelTls
from ..keys.suites import TLS_1_2, TLS_1_3, CipherKind
from ..settings import OPTIONS, Settings, Sources, load

_TLS_VERSIONS = {TLS_1_2: "TLS 1.2", TLS_1_3: "TLS 1.3"}
_CONTAINER_FILES = {Path("/.dockerenv"): "Docker", Path("/run/.containerenv"): "Podman"}

# Each connection needs a descriptor, each response in flight one more; some are for listeners, logs and libraries.
_DESCRIPTORS_BESIDE_CONNECTIONS = 100


class State(StrEnum):
    """`MISSING` is what stops or slows kernel TLS; `NOTE` is worth knowing; `FACT` is neither good nor bad."""

    OK = "ok"
    MISSING = "missing"
    NOTE = "note"
    FACT = "fact"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `cure` is the one line that mends it, where something can be mended."""

    topic: str
    name: str
    state: State
    value: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The whole report."""

    kernel_tls: bool
    summary: str
    findings: tuple[Finding, ...]
    counters: dict[str, int]

    def as_dict(self) -> dict[str, object]:
        """For JSON; the keys are stable."""
        return {"ktls_server": __version__, **asdict(self)}


def diagnose(kernel: KernelTls, counters: dict[str, int]) -> Diagnosis:
    """Everything that a bug report needs, given what the kernel was found to do and what it had counted before.

    They come from `kernel.probe`: `tls_stat()` first, since `probe()` keys some sockets itself.
    """
    findings = (*_system(), *_kernel_tls(kernel), *_offload(counters), *_certificates(), *_libraries(), *_limits())
    return Diagnosis(kernel.available, kernel.describe(), findings, counters)


def _system() -> Iterator[Finding]:
    yield Finding("System", "ktls-server", State.FACT, __version__)
    yield Finding("System", "kernel", State.FACT, f"{platform.system()} {platform.release()} {platform.machine()}")
    container = container_kind()
    yield Finding("System", "container", State.FACT, container or "no")
    built = built_with_tls()
    yield Finding("System", "CONFIG_TLS", State.FACT, "not set" if built == "no" else built or "unknown")
    flags = _cpu_flags()
    if flags:
        fast = bool(flags & {"aes", "asimd_aes"})
        yield Finding(
            "System",
            "AES instructions",
            State.OK if fast else State.NOTE,
            "yes" if fast else "no: AES is slow here, for the kernel and for OpenSSL",
        )


def container_kind(root: Path = Path("/")) -> str | None:
    """What kind of container this process runs in, or None. `root` stands for / in tests."""
    for marker, kind in _CONTAINER_FILES.items():
        if (root / marker.relative_to("/")).exists():
            return kind
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "Kubernetes"
    control_groups = _read(root / "proc/1/cgroup") or ""
    for word, kind in (("kubepods", "Kubernetes"), ("docker", "Docker"), ("libpod", "Podman"), ("lxc", "LXC")):
        if word in control_groups:
            return kind
    return None


def _cpu_flags() -> frozenset[str]:
    """The first processor's; x86 calls the line `flags`, ARM `Features`."""
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _kernel_tls(kernel: KernelTls) -> Iterator[Finding]:
    topic = "Kernel TLS"
    protocols = _read(Path("/proc/sys/net/ipv4/tcp_available_ulp"))
    loaded = protocols is not None and "tls" in protocols.split()
    if kernel.available:
        yield Finding(topic, "tls module", State.OK, "loaded" if loaded else "works")
    else:
        yield Finding(topic, "tls module", State.MISSING, kernel.reason, kernel.cure)
        return
    for direction, abilities, cure in (
        (
            "send",
            kernel.transmit_abilities,
            "such connections are served from userspace; a newer kernel has the cipher",
        ),
        ("receive", kernel.receive_abilities, "OpenSSL decrypts such requests, at a little more memory per connection"),
    ):
        for kind in CipherKind:
            yield _ability(topic, direction, kind, abilities, cure)
    yield Finding(
        topic,
        "key update",
        State.OK if kernel.rekey else State.NOTE,
        "in place" if kernel.rekey else "not by this kernel",
        ""
        if kernel.rekey
        else "Linux 6.14 or later; until then a connection is closed cleanly when its key must change",
    )


def _ability(topic: str, direction: str, kind: CipherKind, abilities: frozenset[Ability], cure: str) -> Finding:
    versions = [name for version, name in _TLS_VERSIONS.items() if (kind, version) in abilities]
    complete = len(versions) == len(_TLS_VERSIONS)
    return Finding(
        topic,
        f"{direction} {kind}",
        State.OK if complete else State.NOTE,
        ", ".join(versions) or "no",
        "" if complete else cure,
    )


def _offload(counters: dict[str, int]) -> Iterator[Finding]:
    """Connections since boot, from /proc/net/tls_stat (Documentation/networking/tls.rst)."""
    if not counters:
        return
    for name, words in (("Tx", "sent"), ("Rx", "received")):
        software, device = counters.get(f"Tls{name}Sw", 0), counters.get(f"Tls{name}Device", 0)
        yield Finding(
            "Counters",
            f"connections {words}",
            State.FACT,
            f"{software} by the kernel, {device} by a network card (hardware offload)",
        )
    errors = {name: count for name, count in counters.items() if "Error" in name and count}
    if errors:
        yield Finding("Counters", "errors", State.NOTE, ", ".join(f"{name} {count}" for name, count in errors.items()))


def _certificates() -> Iterator[Finding]:
    """Those that a server with this environment would use: --cert by its variable or file, or the development one."""
    topic = "Certificates"
    # Where no variable is set this folder need not be the one to serve: what lies in it is no fault.
    environment = {name: value for name, value in os.environ.items() if name.startswith("KTLS_SERVER_")}
    try:
        settings = load(Sources({}, environment)) if environment else Settings()
    except ConfigurationError as error:
        yield Finding(
            topic, "settings", State.NOTE, str(error), "mend the environment variable or the file of --config"
        )
        return
    for path in settings.cert or (certificates.cache_folder() / "cert.pem",):
        validity = certificates.validity_of(path)
        if validity is not None:
            complaint = validity.complaint()
            yield Finding(
                topic,
                str(path),
                State.MISSING if complaint else State.OK,
                f"valid until {validity.end:%Y-%m-%d} ({validity.days_left():.0f} days)",
                complaint,
            )


def _libraries() -> Iterator[Finding]:
    topic = "Python"
    yield Finding(topic, "Python", State.FACT, f"{platform.python_implementation()} {platform.python_version()}")
    yield Finding(topic, "OpenSSL", State.FACT, f"{ssl.OPENSSL_VERSION}, {_openssl_linkage()}")
    constant = "there" if hasattr(ssl, "OP_ENABLE_KTLS") else "not there"
    yield Finding(topic, "ssl.OP_ENABLE_KTLS", State.FACT, f"{constant}; not needed: the keys are installed directly")
    for distribution in ("uvloop", "cryptography", "h11"):
        try:
            yield Finding(topic, distribution, State.OK, importlib.metadata.version(distribution))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(topic, distribution, State.MISSING, "not installed", f"pip install {distribution}")


def _openssl_linkage() -> str:
    """Whether OpenSSL is inside the interpreter, inside the `_ssl` module, or a shared library of the system."""
    specification = importlib.util.find_spec("_ssl")
    if specification is None or specification.origin in (None, "built-in"):
        return f"built into {Path(sys.executable).name}"
    maps = _read(Path("/proc/self/maps")) or ""
    shared = {line.split(maxsplit=5)[5] for line in maps.splitlines() if "/libssl" in line}
    return f"shared: {', '.join(sorted(shared))}" if shared else "linked into the _ssl module"


def _limits() -> Iterator[Finding]:
    topic = "Limits"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = next(option.default for option in OPTIONS if option.name == "max_connections")
    assert isinstance(connections, int)
    wanted = connections + _DESCRIPTORS_BESIDE_CONNECTIONS
    enough = hard == resource.RLIM_INFINITY or hard >= wanted
    yield Finding(
        topic,
        "open files",
        State.OK if enough else State.NOTE,
        f"{_number(soft)} (may be raised to {_number(hard)})",
        ""
        if enough
        else f"LimitNOFILE={wanted} (systemd), --ulimit nofile={wanted} (Docker), or a smaller --max-connections",
    )
    for name in ("net.core.somaxconn", "net.ipv4.tcp_wmem", "net.ipv4.tcp_rmem"):
        value = _read(Path("/proc/sys") / name.replace(".", "/"))
        yield Finding(topic, name, State.FACT, " ".join(value.split()) if value else "unknown")


def _number(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
