"""Where clients on this machine keep the authorities that they trust: the system, browsers (NSS), Java.

Each store can be asked whether it holds an authority, and can add or remove it. A store that was met but cannot be changed
is a `ClosedStore`: it says why and what mends it. Nothing here is changed but by `add` and `remove`, and each of them adds
or removes this one certificate only.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sqlite3
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..certificates import Authority
from ..errors import SystemRefusal

_TIMEOUT_SECONDS = 60
_SYSTEM_PATHS = ("/usr/sbin", "/sbin")
"""Where update-ca-certificates is; a user's PATH often lacks them."""

_JAVA_PASSWORD = "changeit"
"""The password of every cacerts file that a JDK comes with; it keeps nothing secret (keytool's manual)."""


class Store(Protocol):
    """One place that clients read."""

    @property
    def label(self) -> str:
        """Whose store, and where it is."""

    def holds(self, authority: Authority) -> bool:
        """Whether clients of this store trust the authority."""

    def add(self, authority: Authority) -> bool:
        """Make them trust it; whether that changed the store. Raises SystemRefusal, with the command that mends it."""

    def remove(self, authority: Authority) -> bool:
        """Make them forget it; whether that changed the store. Raises SystemRefusal, with the command that mends it."""


@dataclass(frozen=True, slots=True)
class ClosedStore:
    """A store that this program does not change: `reason`, and the commands that do it by hand or open the store."""

    label: str
    reason: str
    to_add: str
    to_remove: str
    look: Callable[[Authority], bool]
    """Whether it holds the authority."""

    def holds(self, authority: Authority) -> bool:
        """Whether somebody has added it by hand."""
        return self.look(authority)

    def add(self, authority: Authority) -> bool:
        """Refused, if it is not there."""
        return self._refuse(self.to_add, authority, needed=not self.holds(authority))

    def remove(self, authority: Authority) -> bool:
        """Refused, if it is there."""
        return self._refuse(self.to_remove, authority, needed=self.holds(authority))

    def _refuse(self, cure: str, authority: Authority, *, needed: bool) -> bool:
        if needed:
            raise SystemRefusal(f"{self.reason}; {_filled(cure, authority)}")
        return False


@dataclass(frozen=True, slots=True)
class SystemStore:
    """Debian's layout: a folder of local authorities, and a command that makes a bundle of them and of all others."""

    folder: Path
    bundle: Path
    """What curl and OpenSSL read."""
    update: tuple[str, ...]

    @property
    def label(self) -> str:
        """Whose store, and where it is."""
        return f"system ({self.folder})"

    def path(self, authority: Authority) -> Path:
        """The authority's own file in it."""
        return self.folder / f"{_name(authority)}.crt"

    def holds(self, authority: Authority) -> bool:
        """Whether the bundle has it."""
        return self.path(authority).exists() and self._bundle_has(authority)

    def _bundle_has(self, authority: Authority) -> bool:
        try:
            return _pem(authority.certificate) in self.bundle.read_text(encoding="ascii", errors="replace")
        except OSError:
            return False

    def add(self, authority: Authority) -> bool:
        """Copy the certificate into the folder, and update the bundle."""
        if self.holds(authority):
            return False
        path = self.path(authority)
        command = f"install -m 644 {_quoted(authority.path)} {_quoted(path)} && {shlex.join(self.update)}"
        cure = f"sudo sh -c {shlex.quote(command)}"
        try:
            path.write_text(_pem(authority.certificate), encoding="ascii")
            path.chmod(0o644)
        except OSError as error:
            raise SystemRefusal(f"{path} cannot be written ({error.strerror}); {cure}") from error
        return _run_or(cure, self.update)

    def remove(self, authority: Authority) -> bool:
        """Delete the file, and update the bundle."""
        path = self.path(authority)
        if not path.exists() and not self._bundle_has(authority):
            return False
        link = self.bundle.with_name(f"{_name(authority)}.pem")
        command = f"rm -f {_quoted(path)} {_quoted(link)} && {shlex.join(self.update)}"
        cure = f"sudo sh -c {shlex.quote(command)}"
        try:
            path.unlink(missing_ok=True)
            # The command leaves links to what is gone, but with --fresh, which would add the authorities of others to Java.
            for each in self.bundle.parent.iterdir():
                if each == link or (each.is_symlink() and os.readlink(each) == link.name):
                    each.unlink(missing_ok=True)
        except OSError as error:
            raise SystemRefusal(f"{path} cannot be deleted ({error.strerror}); {cure}") from error
        return _run_or(cure, self.update)


@dataclass(frozen=True, slots=True)
class NssStore:
    """A database of Mozilla's NSS library: each profile of Firefox has one, all Chromiums of a user share one."""

    owner: str
    folder: Path
    certutil: str

    @property
    def label(self) -> str:
        """Whose store, and where it is."""
        return f"{self.owner} ({self.folder})"

    def holds(self, authority: Authority) -> bool:
        """Whether a certificate of the authority's name in it is the authority."""
        if not (self.folder / "cert9.db").exists():
            return False
        with contextlib.suppress(SystemRefusal):
            found = _run((self.certutil, *self._arguments("-L", "-n", _name(authority), "-a")))
            return _is_in(authority.certificate, found)
        return False

    def add(self, authority: Authority) -> bool:
        """As an authority for servers ("C", and nothing for mail and code)."""
        if self.holds(authority):
            return False
        if not (self.folder / "cert9.db").exists():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._change("-N", "--empty-password")
        return self._change("-A", "-t", "C,,", "-n", _name(authority), "-i", str(authority.path))

    def remove(self, authority: Authority) -> bool:
        """Delete it by its name."""
        return self.holds(authority) and self._change("-D", "-n", _name(authority))

    def _change(self, *arguments: str) -> bool:
        words = self._arguments(*arguments)
        return _run_or(f"close {self.owner}, then: {shlex.join(['certutil', *words])}", (self.certutil, *words))

    def _arguments(self, *arguments: str) -> list[str]:
        return [arguments[0], "-d", f"sql:{self.folder}", *arguments[1:]]


@dataclass(frozen=True, slots=True)
class JavaStore:
    """The `cacerts` file of one JDK or JRE.

    Debian's, which update-ca-certificates fills, has aliases of its own form. That command never takes out of it what was
    deleted from the folder of local authorities: it has to be done here.
    """

    cacerts: Path
    keytool: str
    alias: str = "{name}"

    @property
    def label(self) -> str:
        """Whose store, and where it is."""
        return f"Java ({self.cacerts})"

    def holds(self, authority: Authority) -> bool:
        """Whether a certificate of the authority's name in it is the authority."""
        with contextlib.suppress(SystemRefusal):
            found = _run((self.keytool, *self._arguments("-exportcert", authority), "-rfc"))
            return _is_in(authority.certificate, found)
        return False

    def add(self, authority: Authority) -> bool:
        """Import it, as trusted."""
        if self.holds(authority):
            return False
        return self._change("-importcert", authority, "-noprompt", "-trustcacerts", "-file", str(authority.path))

    def remove(self, authority: Authority) -> bool:
        """Delete it by its name."""
        return self.holds(authority) and self._change("-delete", authority)

    def _change(self, action: str, authority: Authority, *arguments: str) -> bool:
        words = (self.keytool, *self._arguments(action, authority), *arguments)
        filled_by_system = self.alias != "{name}" and action == "-importcert"
        cure = "the command that mends the system's store fills it" if filled_by_system else f"sudo {shlex.join(words)}"
        return _run_or(cure, words)

    def _arguments(self, action: str, authority: Authority) -> list[str]:
        alias = _filled(self.alias, authority)
        return [action, "-alias", alias, "-keystore", str(self.cacerts), "-storepass", _JAVA_PASSWORD]


# Other distributions, from the manuals of their commands: named to the user, not changed.
_OTHER_LAYOUTS = (
    ("/etc/pki/ca-trust/source/anchors", ".pem", "update-ca-trust"),  # Fedora, RHEL
    ("/etc/ca-certificates/trust-source/anchors", ".crt", "update-ca-trust"),  # Arch
    ("/etc/pki/trust/anchors", ".pem", "update-ca-certificates"),  # openSUSE
)


def find_stores(home: Path, root: Path = Path("/")) -> list[Store]:
    """Every store of this user and this machine that was met. `root` stands for / in tests."""
    return [*_system_stores(root), *_nss_stores(home), *_java_stores()]


def _system_stores(root: Path) -> Iterator[Store]:
    folder = root / "usr/local/share/ca-certificates"
    command = _program("update-ca-certificates")
    if folder.is_dir() and command:
        certs = root / "etc/ssl/certs"
        elsewhere: tuple[str, ...] = ()
        if root != Path("/"):
            settings = root / "etc/ca-certificates"
            elsewhere = ("--localcertsdir", str(folder), "--etccertsdir", str(certs))
            elsewhere += ("--hooksdir", f"{settings}/update.d", "--certsconf", f"{settings}.conf")
        yield SystemStore(folder, certs / "ca-certificates.crt", (command, *elsewhere))
        return
    for name, suffix, update in _OTHER_LAYOUTS:
        anchors = root / name.lstrip("/")
        if anchors.is_dir():
            file = f"{anchors}/{{name}}{suffix}"
            yield ClosedStore(
                f"system ({anchors})",
                "this program changes the system's store on Debian and its relatives only",
                f"sudo sh -c 'install -m 644 {{path}} {file} && {update}'",
                f"sudo sh -c 'rm -f {file} && {update}'",
                lambda authority, file=file: Path(_filled(file, authority)).exists(),  # type: ignore[misc]
            )
            return
    cure = "sudo apt-get install ca-certificates, then this command again"
    reason = "there is no store in a place that this program knows"
    yield ClosedStore("system", reason, cure, cure, lambda _: False)


def _nss_stores(home: Path) -> Iterator[Store]:
    folders = [("Chromium", folder) for folder in _chromium_databases(home)]
    folders += [("Firefox", folder) for folder in _firefox_profiles(home)]
    certutil = _program("certutil")
    for owner, folder in folders:
        if certutil:
            yield NssStore(owner, folder, certutil)
        else:
            cure = "sudo apt-get install libnss3-tools, then this command again"
            label = f"{owner} ({folder})"
            yield ClosedStore(label, "certutil is missing", cure, cure, partial(_database_has, folder / "cert9.db"))


def _database_has(database: Path, authority: Authority) -> bool:
    """Asks SQLite, where certutil is missing. NSS keeps the value of an object, CKA_VALUE (0x11), in the column a11."""
    value = authority.certificate.public_bytes(Encoding.DER)
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT 1 FROM nssPublic WHERE a11 = ?", (value,)).fetchone() is not None
    except sqlite3.Error:
        return False


def _chromium_databases(home: Path) -> Iterator[Path]:
    own = home / ".pki/nssdb"
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge", "brave-browser")
    if own.is_dir() or any(shutil.which(name) for name in names):
        yield own
    yield from (folder for folder in (home / "snap/chromium/current/.pki/nssdb",) if folder.is_dir())


def _firefox_profiles(home: Path) -> Iterator[Path]:
    """Debian's, the one of the XDG folders (Firefox 147 and later), snap's and Flatpak's."""
    for base in (
        ".mozilla/firefox",
        ".config/mozilla/firefox",
        "snap/firefox/common/.mozilla/firefox",
        ".var/app/org.mozilla.firefox/.mozilla/firefox",
    ):
        yield from sorted(path.parent for path in (home / base).glob("*/cert9.db"))


def _java_stores() -> Iterator[Store]:
    """The Java of JAVA_HOME and of PATH. Fedora's is a part of the system's store."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    if on_path := shutil.which("keytool"):
        homes.append(Path(on_path).resolve().parents[1])
    seen = set()
    for home in homes:
        cacerts, keytool = home / "lib/security/cacerts", home / "bin/keytool"
        if not cacerts.is_file() or not keytool.is_file():
            continue
        real = cacerts.resolve()
        if real not in seen and not real.is_relative_to("/etc/pki"):
            seen.add(real)
            is_debian = real.is_relative_to("/etc/ssl/certs")
            yield JavaStore(real, str(keytool), "debian:{name}.pem" if is_debian else "{name}")


def _name(authority: Authority) -> str:
    return f"ktls-server-{authority.identifier}"


def _filled(command: str, authority: Authority) -> str:
    return command.replace("{name}", _name(authority)).replace("{path}", _quoted(authority.path))


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def _is_in(certificate: x509.Certificate, text: str) -> bool:
    """NSS and Java fold the lines of PEM in their own ways."""
    begin, end = text.find("-----BEGIN"), text.find("-----END CERTIFICATE-----")
    if begin < 0 or end < 0:
        return False
    with contextlib.suppress(ValueError):
        found = ssl.PEM_cert_to_DER_cert(text[begin:end] + "-----END CERTIFICATE-----")
        return found == certificate.public_bytes(Encoding.DER)
    return False


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_PATHS]))


def _run_or(cure: str, words: Sequence[str]) -> bool:
    try:
        _run(words)
    except SystemRefusal as error:
        raise SystemRefusal(f"{error}; {cure}") from error
    return True


def _run(words: Sequence[str]) -> str:
    """What the program printed. Raises SystemRefusal with its last words where it fails; it may ask for nothing."""
    name = os.path.basename(words[0])
    try:
        run = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT_SECONDS,
        )
    except OSError as error:
        raise SystemRefusal(f"{name} cannot be run ({error.strerror})") from error
    except subprocess.TimeoutExpired as error:
        raise SystemRefusal(f"{name} did not end in {_TIMEOUT_SECONDS} seconds") from error
    if run.returncode:
        said = (run.stderr.strip() or run.stdout.strip() or f"exit status {run.returncode}").splitlines()[-1]
        raise SystemRefusal(f"{name} failed ({said.strip()})")
    return run.stdout
