"""The development certificate, made once and kept in the user's cache folder; and until when any certificate is valid.

The development certificate is good for localhost only by default. It is a leaf that is its own trust anchor, not an
authority: whoever trusts it trusts this one key for these few names, and a stolen key can sign nothing else. `cert.pem`
and `key.pem` always belong together: a lock on the folder admits one process at a time, and each file appears complete
or not at all. A key is never readable by anybody else, from its first byte.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .errors import ConfigurationError, SystemRefusal

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

# Browsers refuse a server certificate that is valid for more than 398 days (CA/Browser Forum Baseline Requirements,
# 6.3.2, until 2026). The first day lies in the past, for clients whose clock is behind.
_VALIDITY = timedelta(days=397)
_CLOCK_SKEW = timedelta(days=1)
_RENEW_BEFORE_END = timedelta(days=30)

# RFC 1123 section 2.1 and RFC 1035 section 2.3.4, with a star for the first label (RFC 6125 section 6.4.3). Underscores
# occur in names of test machines, and browsers take them. A name whose last label is a number is a mistyped address.
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$)(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")

_ORGANIZATION = "ktls-server development certificate"


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """Paths of two PEM files; `created` tells whether this call wrote them."""

    cert: Path
    key: Path
    created: bool = False


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when the first certificate of a file, the server's own, is valid."""

    path: Path
    begin: datetime
    end: datetime

    def days_left(self, now: datetime | None = None) -> float:
        """Days until the end; negative after it."""
        return (self.end - (now or datetime.now(UTC))) / timedelta(days=1)

    def complaint(self, now: datetime | None = None) -> str:
        """What is wrong with the certificate at this time, as a sentence; empty where it is valid."""
        now = now or datetime.now(UTC)
        if now >= self.end:
            return f"the certificate {self.path} was valid until {self.end:%Y-%m-%d %H:%M} UTC: clients refuse it; renew it"
        if now < self.begin:
            return (
                f"the certificate {self.path} is not valid before {self.begin:%Y-%m-%d %H:%M} UTC:"
                " clients refuse it; check this machine's clock"
            )
        return ""


def validity_of(path: Path) -> Validity | None:
    """The validity of the first certificate in the file, or None where none can be read."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None
    return Validity(path, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


class ValidityWatch:
    """Says of each certificate once that it is not valid, when that is so at the start or when it happens."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._complained: set[Validity] = set()
        self.read: tuple[Validity, ...] = ()
        self.reload()

    def reload(self) -> None:
        """Read the files again: a certificate that was replaced is another one."""
        self.read = tuple(found for path in self._paths if (found := validity_of(path)) is not None)

    def news(self, now: datetime | None = None) -> list[str]:
        """The complaints that were not made before. Cheap: it compares times."""
        found = []
        for validity in self.read:
            complaint = validity.complaint(now)
            if complaint and validity not in self._complained:
                self._complained.add(validity)
                found.append(complaint)
        return found


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/ktls-server`, by default under ~/.cache (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says to ignore a relative path.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "ktls-server"


def development_certificate(folder: Path | None = None, names: Iterable[str] = ()) -> CertificatePair:
    """The certificate in the cache folder, made or renewed where there is none that is good for `names` and localhost.

    Raises SystemRefusal where the folder cannot be used, ConfigurationError for a name that no certificate can hold.
    """
    folder = cache_folder() if folder is None else folder
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.geteuid():
            raise SystemRefusal(f"{folder} belongs to another user; set XDG_CACHE_HOME, or give --cert and --key")
        if stat.S_IMODE(status.st_mode) != 0o700:
            folder.chmod(0o700)
        return _ensure(folder, names, ours=True)
    except OSError as error:
        raise SystemRefusal(
            f"cannot keep a development certificate in {folder} ({error.strerror}); set XDG_CACHE_HOME to a folder that"
            " can be written, or give --cert and --key"
        ) from error


def certificate_in(folder: Path, names: Iterable[str] = ()) -> CertificatePair:
    """`cert.pem` and `key.pem` in a folder that the user named, made, renewed, or kept where they are good.

    Never replaces a certificate or key that did not come from here: that is a ConfigurationError. Raises SystemRefusal
    where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _ensure(folder, names, ours=False)
    except OSError as error:
        raise SystemRefusal(f"cannot write a certificate in {folder} ({error.strerror})") from error


def _ensure(folder: Path, names: Iterable[str], *, ours: bool) -> CertificatePair:
    """`ours` says that anything in the folder may be replaced."""
    pair = CertificatePair(folder / "cert.pem", folder / "key.pem")
    wanted = [_general_name(name) for name in (*LOCAL_NAMES, *names)]
    with _locked(folder):
        present = _read(pair)
        if present is None and not ours and (pair.cert.exists() or pair.key.exists()):
            raise ConfigurationError(
                f"{folder} holds a cert.pem or key.pem that this command did not make: name another"
            )
        # Names once asked for stay, so that two servers with different names do not take turns at replacing it.
        kept = [] if present is None else _subject_alternative_names(present)
        if present is not None and _is_good(present, wanted):
            return pair
        _make(pair, list(dict.fromkeys(kept + wanted)))
    return CertificatePair(pair.cert, pair.key, created=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(pair: CertificatePair) -> x509.Certificate | None:
    """The certificate, if it is one of ours and the key belongs to it."""
    try:
        certificate = x509.load_pem_x509_certificate(pair.cert.read_bytes())
        key = serialization.load_pem_private_key(pair.key.read_bytes(), password=None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    made_here = certificate.issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if not made_here or made_here[0].value != _ORGANIZATION or key.public_key() != certificate.public_key():
        return None
    return certificate


def _subject_alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


def _is_good(certificate: x509.Certificate, wanted: list[x509.GeneralName]) -> bool:
    now = datetime.now(UTC)
    in_time = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - _RENEW_BEFORE_END
    return in_time and set(wanted) <= set(_subject_alternative_names(certificate))


def _general_name(name: str) -> x509.GeneralName:
    try:
        # The zone of a link-local address (fe80::1%eth0) is of this machine only.
        return x509.IPAddress(ipaddress.ip_address(name.partition("%")[0]))
    except ValueError:
        pass
    try:
        ascii_name = name if name.isascii() else name.encode("idna").decode("ascii")
    except ValueError:
        ascii_name = ""
    if not _HOST_NAME.fullmatch(ascii_name) or ascii_name.rpartition(".")[2].isdigit():
        raise ConfigurationError(f"{name!r} is neither a host name nor an address")
    return x509.DNSName(ascii_name)


def _make(pair: CertificatePair, names: list[x509.GeneralName]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_signed(key, names)
    pem_key = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(pair.key, pem_key, 0o600)
    _write(pair.cert, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _self_signed(key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName]) -> x509.Certificate:
    """With every extension that OpenSSL's X509_V_FLAG_X509_STRICT asks for (the default from Python 3.13 on)."""
    public_key = key.public_key()
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, "localhost"),
        ]
    )
    begin = datetime.now(UTC) - _CLOCK_SKEW
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + _VALIDITY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key), critical=False)
        .sign(key, hashes.SHA256())
    )


def _write(path: Path, content: bytes, mode: int) -> None:
    """Complete or not at all, with its mode from the start; the caller holds the lock, so the name is free or stale."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
