"""The development certificate, the local authority that may issue it, and until when any certificate is valid.

The development certificate is made once and kept in the user's cache folder. It is good for localhost only by default. It
is a leaf that is its own trust anchor, not an authority: whoever trusts it trusts this one key for these few names, and a
stolen key can sign nothing else.

`ktls-server trust` makes a local authority. Where there is one, it issues the development certificates whose names it is
allowed to sign: a stolen key of the authority can sign only for this machine, private addresses, and the names that the
user gave. `cert.pem` then holds the leaf and the authority, so that `--cacert cert.pem` works either way.

`cert.pem` and `key.pem` always belong together: a lock on the folder admits one process at a time, and each file appears
complete or not at all. A key is never readable by anybody else, from its first byte.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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
_AUTHORITY_ORGANIZATION = "ktls-server local authority"

# As long as others keep such authorities (mkcert: ten years). It is renewed while every leaf can still be issued in full.
_AUTHORITY_VALIDITY = timedelta(days=3650)

# Loopback (RFC 1122, RFC 4291), private (RFC 1918, RFC 4193) and link-local addresses (RFC 3927, RFC 4291).
_PRIVATE_NETWORKS = (
    *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
    *("::1/128", "fc00::/7", "fe80::/10"),
)


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """Paths of two PEM files; `created` tells whether this call wrote them."""

    cert: Path
    key: Path
    created: bool = False


@dataclass(frozen=True, slots=True)
class Authority:
    """The local authority: its certificate, and its key where that is still there."""

    folder: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | None = field(repr=False)
    created: bool = False

    @property
    def path(self) -> Path:
        """The certificate's file."""
        return self.folder / "cert.pem"

    @property
    def identifier(self) -> str:
        """Eight hexadecimal digits that no other authority has, for names in stores that many authorities share."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()[:8]

    @property
    def end(self) -> datetime:
        """When its certificate ends."""
        return self.certificate.not_valid_after_utc

    def fingerprint(self) -> str:
        """SHA-256, as browsers and phones show it."""
        return self.certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    def names(self) -> list[str]:
        """What it may sign for: names with all that is below them, and networks."""
        return [str(subtree.value) for subtree in _permitted_subtrees(self.certificate)]

    def permits(self, names: Iterable[str]) -> bool:
        """Whether it may sign for all of them. Raises ConfigurationError for a name that no certificate can hold."""
        return _permits(self.certificate, [_general_name(name) for name in names])


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
    return _xdg_folder("XDG_CACHE_HOME", ".cache") / "ktls-server"


def authority_folder() -> Path:
    """`$XDG_DATA_HOME/ktls-server/authority`, by default under ~/.local/share: who cleans a cache must not lose it."""
    return _xdg_folder("XDG_DATA_HOME", ".local/share") / "ktls-server" / "authority"


def _xdg_folder(variable: str, default: str) -> Path:
    base = os.environ.get(variable, "")
    # The specification says to ignore a relative path.
    return Path(base) if os.path.isabs(base) else Path.home() / default


def development_certificate(
    folder: Path | None = None, names: Iterable[str] = (), authority: Authority | None = None
) -> CertificatePair:
    """The certificate in the cache folder, made or renewed where there is none that is good for `names` and localhost.

    `authority` issues it if it may sign for all of its names; one that it no longer issues is made anew.
    Raises SystemRefusal where the folder cannot be used, ConfigurationError for a name that no certificate can hold.
    """
    folder = cache_folder() if folder is None else folder
    try:
        _make_private_folder(folder, "set XDG_CACHE_HOME, or give --cert and --key")
        return _ensure(folder, names, authority, ours=True)
    except OSError as error:
        raise SystemRefusal(
            f"cannot keep a development certificate in {folder} ({error.strerror}); set XDG_CACHE_HOME to a folder that"
            " can be written, or give --cert and --key"
        ) from error


def certificate_in(folder: Path, names: Iterable[str] = (), authority: Authority | None = None) -> CertificatePair:
    """`cert.pem` and `key.pem` in a folder that the user named, made, renewed, or kept where they are good.

    `authority` is as for `development_certificate`.
    Never replaces a certificate or key that did not come from here: that is a ConfigurationError. Raises SystemRefusal
    where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _ensure(folder, names, authority, ours=False)
    except OSError as error:
        raise SystemRefusal(
            f"cannot write a certificate in {folder} ({error.strerror}); name a folder of your own"
        ) from error


def authority_in(folder: Path | None = None) -> Authority | None:
    """The authority in its folder, by default the user's; None where there is none.

    Its key is None where it is gone, as after a removal that could not clean every store.
    """
    folder = authority_folder() if folder is None else folder
    try:
        certificate = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
    except (OSError, ValueError):
        return None
    if not _is_of(certificate.subject, _AUTHORITY_ORGANIZATION):
        return None
    key = None
    with contextlib.suppress(OSError, ValueError, TypeError):
        key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        key = None
    return Authority(folder, certificate, key)


def is_good_authority(authority: Authority, names: Iterable[str] = ()) -> bool:
    """Whether it can issue for a full term, and for these names. Raises ConfigurationError for what is no name."""
    now = datetime.now(UTC)
    in_time = authority.certificate.not_valid_before_utc <= now < authority.end - _VALIDITY
    return authority.permits(names) and authority.key is not None and in_time


def make_authority(folder: Path | None = None, names: Iterable[str] = ()) -> Authority:
    """The authority in its folder, made where there is none that is good for `names`.

    A new one keeps the names of the old one. Whoever calls has to take the old one out of the stores that trust it.
    Raises SystemRefusal where the folder cannot be used, ConfigurationError for a name that no certificate can hold.
    """
    folder = authority_folder() if folder is None else folder
    wanted = [_subtree(_general_name(name)) for name in names]
    try:
        _make_private_folder(folder, "set XDG_DATA_HOME to a folder of your own")
        with _locked(folder):
            present = authority_in(folder)
            if present is not None and is_good_authority(present, names):
                return present
            kept = [] if present is None else _permitted_subtrees(present.certificate)
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _authority_certificate(key, list(dict.fromkeys([*_default_subtrees(), *kept, *wanted])))
            _write(folder / "key.pem", _pem_key(key), 0o600)
            _write(folder / "cert.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    except OSError as error:
        raise SystemRefusal(
            f"cannot keep an authority in {folder} ({error.strerror}); set XDG_DATA_HOME to a folder that can be written"
        ) from error
    return Authority(folder, certificate, key, created=True)


def remove_authority(authority: Authority, *, keep_certificate: bool) -> None:
    """Delete the key: nothing can be issued any more. The certificate may stay, for stores that still have to be cleaned."""
    try:
        (authority.folder / "key.pem").unlink(missing_ok=True)
        if not keep_certificate:
            authority.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # Somebody else's file lies in it.
                authority.folder.rmdir()
    except OSError as error:
        raise SystemRefusal(
            f"cannot delete the authority in {authority.folder} ({error.strerror}); delete that folder"
        ) from error


def is_issued(cert: Path, authority: Authority | None) -> bool:
    """Whether the first certificate of the file was issued by this authority."""
    return authority is not None and authority.certificate in _certificates_in(cert)[1:]


def names_in(cert: Path) -> list[str]:
    """The names and addresses that the first certificate of the file is for."""
    found = _certificates_in(cert)[:1]
    return [str(name.value) for certificate in found for name in _subject_alternative_names(certificate)]


def _make_private_folder(folder: Path, cure: str) -> None:
    """Only this user may look into it. Raises OSError, and SystemRefusal where it is another user's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise SystemRefusal(f"{folder} belongs to another user; {cure}")
    if stat.S_IMODE(status.st_mode) != 0o700:
        folder.chmod(0o700)


def _ensure(folder: Path, names: Iterable[str], authority: Authority | None, *, ours: bool) -> CertificatePair:
    """`ours` says that anything in the folder may be replaced."""
    pair = CertificatePair(folder / "cert.pem", folder / "key.pem")
    wanted = [_general_name(name) for name in (*LOCAL_NAMES, *names)]
    with _locked(folder):
        present = _read(pair)
        if not present and not ours and (pair.cert.exists() or pair.key.exists()):
            raise ConfigurationError(
                f"{folder} holds a cert.pem or key.pem that this command did not make: name another"
            )
        # Names once asked for stay, so that two servers with different names do not take turns at replacing it.
        kept = [] if not present else _subject_alternative_names(present[0])
        wanted = list(dict.fromkeys(kept + wanted))
        issuer = authority if authority is not None and _may_issue(authority, wanted) else None
        if present and _is_good(present, wanted, issuer):
            return pair
        _make(pair, wanted, issuer)
    return CertificatePair(pair.cert, pair.key, created=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _may_issue(authority: Authority, names: list[x509.GeneralName]) -> bool:
    """An authority that may sign for some of the names only would make clients refuse all of them."""
    in_time = datetime.now(UTC) < authority.end - _RENEW_BEFORE_END
    return authority.key is not None and in_time and _permits(authority.certificate, names)


def _read(pair: CertificatePair) -> list[x509.Certificate]:
    """The certificates of the file, if the first is one of ours and the key belongs to it; none otherwise."""
    found = _certificates_in(pair.cert)
    try:
        key = serialization.load_pem_private_key(pair.key.read_bytes(), password=None)
    except (FileNotFoundError, ValueError, TypeError):
        return []
    if not found or not _is_of(found[0].subject, _ORGANIZATION) or key.public_key() != found[0].public_key():
        return []
    return found


def _certificates_in(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return []


def _is_of(name: x509.Name, organization: str) -> bool:
    return any(each.value == organization for each in name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))


def _subject_alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


def _is_good(chain: list[x509.Certificate], wanted: list[x509.GeneralName], authority: Authority | None) -> bool:
    certificate, *issuers = chain
    now = datetime.now(UTC)
    in_time = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - _RENEW_BEFORE_END
    from_here = issuers == ([] if authority is None else [authority.certificate])
    return in_time and from_here and set(wanted) <= set(_subject_alternative_names(certificate))


def _default_subtrees() -> list[x509.GeneralName]:
    networks = [x509.IPAddress(ipaddress.ip_network(network)) for network in _PRIVATE_NETWORKS]
    return [x509.DNSName("localhost"), *networks]


def _subtree(name: x509.GeneralName) -> x509.GeneralName:
    """The constraint that permits a name, and for a host name all that is below it (RFC 5280 section 4.2.1.10)."""
    if isinstance(name, x509.IPAddress):
        return x509.IPAddress(ipaddress.ip_network(name.value))
    return x509.DNSName(name.value.removeprefix("*.").lower())


def _permitted_subtrees(certificate: x509.Certificate) -> list[x509.GeneralName]:
    constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    return list(constraints.permitted_subtrees or ())


def _permits(certificate: x509.Certificate, names: list[x509.GeneralName]) -> bool:
    subtrees = _permitted_subtrees(certificate)
    networks = [ipaddress.ip_network(each.value) for each in subtrees if isinstance(each, x509.IPAddress)]
    domains = [each.value for each in subtrees if isinstance(each, x509.DNSName)]
    return all(
        any(ipaddress.ip_address(str(name.value)) in network for network in networks)
        if isinstance(name, x509.IPAddress)
        else any(f".{_subtree(name).value}".endswith(f".{domain}") for domain in domains)
        for name in names
    )


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
        raise ConfigurationError(
            f"{name!r} is neither a host name nor an address; give one such as files.test or 192.168.1.7"
        )
    return x509.DNSName(ascii_name)


def _make(pair: CertificatePair, names: list[x509.GeneralName], authority: Authority | None) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    chain = [_leaf(key, names, authority)]
    if authority is not None:
        chain.append(authority.certificate)
    _write(pair.key, _pem_key(key), 0o600)
    _write(pair.cert, b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain), 0o644)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _leaf(
    key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName], authority: Authority | None
) -> x509.Certificate:
    """Issued by the authority, or by itself where there is none."""
    subject = _name(_ORGANIZATION, "localhost")
    issuer, issuer_key = subject, key
    begin = datetime.now(UTC) - _CLOCK_SKEW
    end = begin + _VALIDITY
    if authority is not None:
        assert authority.key is not None
        issuer, issuer_key = authority.certificate.subject, authority.key
        begin = max(begin, authority.certificate.not_valid_before_utc)
        end = min(end, authority.end)
    return (
        _certificate(key.public_key(), subject, issuer, begin, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _authority_certificate(key: ec.EllipticCurvePrivateKey, subtrees: list[x509.GeneralName]) -> x509.Certificate:
    public_key = key.public_key()
    digest = x509.SubjectKeyIdentifier.from_public_key(public_key).digest.hex()
    # Clients look for an issuer by its name first: no two may have the same.
    subject = _name(_AUTHORITY_ORGANIZATION, f"{_AUTHORITY_ORGANIZATION} {digest[:8]}")
    begin = datetime.now(UTC) - _CLOCK_SKEW
    return (
        _certificate(public_key, subject, subject, begin, begin + _AUTHORITY_VALIDITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.NameConstraints(subtrees, None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key), critical=False)
        .sign(key, hashes.SHA256())
    )


def _name(organization: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _certificate(
    public_key: ec.EllipticCurvePublicKey, subject: x509.Name, issuer: x509.Name, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    """What a leaf and an authority share. OpenSSL's X509_V_FLAG_X509_STRICT asks for the rest of the extensions, too.

    It is the default from Python 3.13 on. The extended key usage limits an authority to what it issues: servers.
    """
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
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
