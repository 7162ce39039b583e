"""`ktls-server trust`: every store is a scratch one; this machine's own are never touched."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ktls_server import certificates
from ktls_server.certificates import Authority, authority_in, make_authority, remove_authority
from ktls_server.cli import trust_stores
from ktls_server.cli.trust_stores import ClosedStore, JavaStore, NssStore, SystemStore, find_stores
from ktls_server.errors import SystemRefusal
from tests.cli.conftest import Command

UPDATE = shutil.which("update-ca-certificates", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
CERTUTIL = shutil.which("certutil")
KEYTOOL = shutil.which("keytool")

needs_debian = pytest.mark.skipif(UPDATE is None, reason="update-ca-certificates is missing (Debian's ca-certificates)")
needs_certutil = pytest.mark.skipif(CERTUTIL is None, reason="certutil is missing: apt-get install libnss3-tools")
needs_java = pytest.mark.skipif(KEYTOOL is None, reason="keytool is missing: apt-get install default-jre-headless")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A scratch / with Debian's folders for authorities, and one authority that is not ours."""
    root = tmp_path / "root"
    for folder in ("usr/local/share/ca-certificates", "etc/ssl/certs", "etc/ca-certificates/update.d"):
        (root / folder).mkdir(parents=True)
    (root / "etc/ca-certificates.conf").touch()
    # A store is never empty, and update-ca-certificates leaves the bundle as it is where nothing is left.
    other = make_authority(tmp_path / "authority of the administrator")
    shutil.copy(other.path, root / "usr/local/share/ca-certificates/other.crt")
    return root


@pytest.fixture
def home(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scratch home. The command finds the stores in it and in the scratch /, and no Java."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(trust_stores, "_java_stores", lambda: iter(()))
    monkeypatch.setattr("ktls_server.cli.trust._stores", lambda: find_stores(home, root))
    return home


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "authority")


# The system's store


@needs_debian
def test_the_system_trusts_the_authority_until_it_is_removed(root: Path, home: Path, authority: Authority) -> None:
    (store,) = (store for store in find_stores(home, root) if isinstance(store, SystemStore))
    other = store.folder / "other.crt"
    assert not store.holds(authority)
    assert store.add(authority)
    assert store.holds(authority)
    assert not store.add(authority)
    assert store.bundle.read_text().count("BEGIN CERTIFICATE") == 2
    assert store.remove(authority)
    assert not store.holds(authority)
    assert not store.remove(authority)
    assert list(store.folder.iterdir()) == [other]
    assert store.bundle.read_text() == other.read_text()
    assert not [path for path in store.bundle.parent.iterdir() if not path.exists()]


def test_a_system_store_that_cannot_be_written_is_told_with_the_command_for_root(
    tmp_path: Path, authority: Authority
) -> None:
    store = SystemStore(tmp_path / "no folder", tmp_path / "bundle", ("update-it",))
    with pytest.raises(SystemRefusal) as refused:
        store.add(authority)
    words = str(refused.value)
    assert f"ktls-server-{authority.identifier}.crt cannot be written (No such file or directory); sudo sh -c " in words
    # The command works as printed, with sudo left out.
    (tmp_path / "no folder").mkdir()
    command = words.partition("; sudo ")[2].replace("update-it", "true")
    subprocess.run(command, shell=True, check=True)
    assert store.path(authority).read_bytes() == authority.path.read_bytes()


def test_a_command_that_fails_is_quoted_and_leaves_nothing_trusted_in_silence(
    tmp_path: Path, authority: Authority
) -> None:
    store = SystemStore(tmp_path, tmp_path / "bundle", ("sh", "-c", "echo no space >&2; exit 3", "update-it"))
    with pytest.raises(SystemRefusal, match=r"sh failed \(no space\); sudo sh -c"):
        store.add(authority)
    assert not store.holds(authority)
    # What was half done is not forgotten by a removal.
    assert SystemStore(tmp_path, tmp_path / "bundle", ("true",)).remove(authority)
    assert not store.path(authority).exists()


@pytest.mark.parametrize(
    ("folder", "update"),
    [
        ("etc/pki/ca-trust/source/anchors", "update-ca-trust"),
        ("etc/ca-certificates/trust-source/anchors", "update-ca-trust"),
        ("etc/pki/trust/anchors", "update-ca-certificates"),
    ],
)
def test_another_layout_is_named_with_the_command_and_not_changed(
    tmp_path: Path, authority: Authority, folder: str, update: str
) -> None:
    anchors = tmp_path / folder
    anchors.mkdir(parents=True)
    (store,) = find_stores(tmp_path / "home", tmp_path)[:1]
    assert isinstance(store, ClosedStore)
    assert str(anchors) in store.label
    assert not store.holds(authority)
    assert not store.remove(authority)
    with pytest.raises(SystemRefusal, match=f"sudo sh -c .* && {update}"):
        store.add(authority)
    assert list(anchors.iterdir()) == []
    for suffix in (".pem", ".crt"):
        (anchors / f"ktls-server-{authority.identifier}{suffix}").touch()
    assert store.holds(authority)
    with pytest.raises(SystemRefusal, match="sudo sh -c 'rm -f "):
        store.remove(authority)


def test_a_machine_without_a_known_store_is_told_so(tmp_path: Path, authority: Authority) -> None:
    (store,) = find_stores(tmp_path / "home", tmp_path)[:1]
    with pytest.raises(SystemRefusal, match="no store in a place that this program knows; sudo apt-get install"):
        store.add(authority)


# NSS


def profiles(home: Path) -> list[Path]:
    folders = [
        home / ".pki/nssdb",
        home / ".mozilla/firefox/abc.default",
        home / "snap/firefox/common/.mozilla/firefox/x y",
    ]
    for folder in folders:
        folder.mkdir(parents=True)
        if CERTUTIL:
            subprocess.run([CERTUTIL, "-N", "-d", f"sql:{folder}", "--empty-password"], check=True)
        else:
            (folder / "cert9.db").touch()
    return folders


@needs_certutil
def test_browsers_trust_the_authority_until_it_is_removed(root: Path, home: Path, authority: Authority) -> None:
    folders = profiles(home)
    stores = [store for store in find_stores(home, root) if isinstance(store, NssStore)]
    assert [store.folder for store in stores] == folders
    for store in stores:
        assert not store.holds(authority)
        assert store.add(authority)
        assert store.holds(authority)
        assert trust_stores._database_has(store.folder / "cert9.db", authority)
        listed = subprocess.run(
            [store.certutil, "-L", "-d", f"sql:{store.folder}"], check=True, capture_output=True, text=True
        ).stdout
        assert f"ktls-server-{authority.identifier}" in listed
        assert "C,," in listed
        assert not store.add(authority)
        assert store.remove(authority)
        assert not store.holds(authority)
        assert not trust_stores._database_has(store.folder / "cert9.db", authority)


@needs_certutil
def test_a_database_that_chromium_has_not_made_yet_is_made(tmp_path: Path, authority: Authority) -> None:
    assert CERTUTIL is not None
    store = NssStore("Chromium", tmp_path / ".pki/nssdb", CERTUTIL)
    assert not store.holds(authority)
    assert not store.remove(authority)
    assert store.add(authority)
    assert store.holds(authority)


@needs_certutil
def test_a_damaged_database_is_told_with_the_command_to_try_by_hand(tmp_path: Path, authority: Authority) -> None:
    assert CERTUTIL is not None
    (tmp_path / "cert9.db").write_text("garbage" * 1000)
    with pytest.raises(SystemRefusal, match=r"certutil failed \(.*\); close Firefox, then: certutil -A -d "):
        NssStore("Firefox", tmp_path, CERTUTIL).add(authority)


def test_without_certutil_a_browser_is_told_with_what_to_install(
    root: Path, home: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles(home)
    monkeypatch.setattr(trust_stores, "_program", lambda name: None)
    stores = find_stores(home, root)[1:]
    assert len(stores) == 3
    for store in stores:
        assert isinstance(store, ClosedStore)
        assert not store.holds(authority)
        assert not store.remove(authority)
        with pytest.raises(SystemRefusal, match="certutil is missing; sudo apt-get install libnss3-tools"):
            store.add(authority)


# Java


@needs_java
def test_java_trusts_the_authority_until_it_is_removed(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert KEYTOOL is not None
    java = tmp_path / "jdk"
    (java / "lib/security").mkdir(parents=True)
    (java / "bin").mkdir()
    (java / "bin/keytool").symlink_to(KEYTOOL)
    cacerts = java / "lib/security/cacerts"
    other = make_authority(tmp_path / "other")
    JavaStore(cacerts, KEYTOOL).add(other)
    monkeypatch.setenv("JAVA_HOME", str(java))
    (store,) = (
        store for store in find_stores(tmp_path) if isinstance(store, JavaStore) and store.cacerts.is_relative_to(java)
    )
    assert not store.holds(authority)
    assert store.add(authority)
    assert store.holds(authority)
    assert not store.add(authority)
    assert store.remove(authority)
    assert not store.remove(authority)
    assert store.holds(other)
    cacerts.write_text("garbage")
    with pytest.raises(SystemRefusal, match=r"keytool failed \(.*\); sudo "):
        store.add(authority)


# The command


@needs_debian
def test_trust_makes_an_authority_once_and_remove_undoes_everything(command: Command, home: Path, root: Path) -> None:
    profiles(home)
    browsers = "trusted" if CERTUTIL else "not trusted"
    first = command("trust", "--name", "files.test")
    authority = authority_in()
    assert authority is not None
    assert authority.key is not None
    assert stat.S_IMODE((authority.folder / "key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(authority.folder.stat().st_mode) == 0o700
    assert first.status == (0 if CERTUTIL else 1)
    assert first.out.startswith("made: a new authority\n")
    assert f"SHA-256: {authority.fingerprint()}\n" in first.out
    assert f"trusted: system ({root}/usr/local/share/ca-certificates)\n" in first.out

    again = command("trust")
    assert again.out.startswith("still good: the authority\n")
    assert "trusted already: system" in again.out
    still = authority_in()
    assert still is not None
    assert still.certificate == authority.certificate

    status = command("trust", "--status")
    assert status.status == first.status
    assert f"{browsers}: Firefox ({home}/.mozilla/firefox/abc.default)" in status.out

    removed = command("trust", "--remove")
    assert removed.status == 0
    assert authority_in() is None
    assert not authority.folder.exists()
    assert [path.name for path in (root / "usr/local/share/ca-certificates").iterdir()] == ["other.crt"]
    assert command("trust", "--remove").out == "there is no authority: nothing to remove\n"


@needs_debian
def test_a_new_name_makes_a_new_authority_and_the_old_one_is_trusted_no_more(
    command: Command, home: Path, root: Path
) -> None:
    command("trust", "--name", "one.test")
    old = authority_in()
    outcome = command("trust", "--name", "two.test")
    new = authority_in()
    assert old is not None
    assert new is not None
    assert outcome.status == 0
    assert old.identifier != new.identifier
    assert new.permits(["one.test", "a.two.test"])
    names = {path.name for path in (root / "usr/local/share/ca-certificates").iterdir()}
    assert names == {"other.crt", f"ktls-server-{new.identifier}.crt"}
    assert "removed the old one: system" in outcome.out


@pytest.mark.parametrize("spelling", ["--status", "--dry-run"])
def test_status_says_what_would_be_done_and_changes_nothing(
    command: Command, home: Path, root: Path, spelling: str
) -> None:
    before = sorted(root.rglob("*"))
    outcome = command("trust", spelling)
    assert outcome.status == 1
    assert outcome.out.startswith("authority: none; one would be made\nnot trusted: system")
    assert "it would be added" in outcome.out
    assert sorted(root.rglob("*")) == before
    assert authority_in() is None
    assert list(home.iterdir()) == []
    assert command("trust", "--remove", spelling).status == 0


def test_a_store_that_cannot_be_cleaned_costs_the_key_and_keeps_the_certificate(
    command: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = make_authority()
    store = ClosedStore("system (elsewhere)", "it is closed", "add it", "take it out", lambda _: True)
    monkeypatch.setattr("ktls_server.cli.trust._stores", lambda: [store])
    outcome = command("trust", "--remove")
    assert outcome.status == 1
    assert outcome.err == "ktls-server: system (elsewhere): it is closed; take it out\n"
    left = authority_in()
    assert left is not None
    assert (left.certificate, left.key) == (authority.certificate, None)
    # A new one is not made over it either.
    outcome = command("trust")
    assert outcome.status == 1
    assert outcome.err.endswith("the old authority was kept, for it is still trusted; mend that, then run this again\n")
    monkeypatch.setattr("ktls_server.cli.trust._stores", list)
    assert command("trust", "--remove").status == 0
    assert not authority.folder.exists()


def test_root_does_not_write_into_the_home_of_another_user(
    command: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    outcome = command("trust")
    assert outcome.status == 2
    assert "run this command without sudo" in outcome.err
    assert authority_in() is None


def test_a_name_that_no_certificate_can_hold_is_refused(command: Command, home: Path) -> None:
    assert command("trust", "--name", "bad name!").status == 2
    assert command("trust", "--remove", "--name", "a.test").status == 2
    assert authority_in() is None


# The certificates that it issues


@needs_debian
def test_serve_and_certs_are_issued_by_it_from_then_on(
    command: Command, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ktls_server.server.run", lambda settings, announce: None)
    monkeypatch.chdir(tmp_path)
    pair = Path(os.environ["XDG_CACHE_HOME"], "ktls-server", "cert.pem")
    command("serve", home)
    alone = pair.read_bytes()
    command("trust")
    authority = authority_in()
    command("serve", home)
    assert certificates.is_issued(pair, authority)
    issued = pair.read_bytes()
    command("serve", home)
    assert pair.read_bytes() == issued != alone
    outcome = command("certs", "own", "--name", "192.168.7.7")
    assert certificates.is_issued(tmp_path / "own/cert.pem", authority)
    assert "note:" not in outcome.out
    outcome = command("certs", "own", "--name", "files.test")
    assert not certificates.is_issued(tmp_path / "own/cert.pem", authority)
    assert (
        "note: your authority may not sign for files.test, so browsers warn; ktls-server trust --name files.test\n"
        in (outcome.out)
    )
    command("trust", "--remove")
    command("serve", home)
    assert not certificates.is_issued(pair, authority)


SERVE = "import sys; sys.argv[0] = 'ktls-server'; from ktls_server.__main__ import main; main(sys.argv[1:])"


@needs_debian
def test_curl_needs_no_option_against_a_running_server(command: Command, home: Path, root: Path) -> None:
    """The scratch bundle stands for the system's, by curl's own variable."""
    (home / "hello.txt").write_text("hello")
    assert command("trust").status == 0
    environment = os.environ | {"CURL_CA_BUNDLE": str(root / "etc/ssl/certs/ca-certificates.crt")}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, "serve", str(home), "--port", "0", "--access-log", "off"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().removeprefix("url: ").strip()
        curl = ["curl", "-sS", "--noproxy", "*", f"{url}hello.txt"]
        answered = subprocess.run(curl, check=False, capture_output=True, text=True, env=environment, timeout=60)
        assert (answered.stdout, answered.stderr) == ("hello", "")
        # It was the authority: without it curl refuses.
        assert command("trust", "--remove").status == 0
        answered = subprocess.run(curl, check=False, capture_output=True, text=True, env=environment, timeout=60)
        assert answered.returncode != 0
    finally:
        server.terminate()
        server.communicate(timeout=60)


def test_removing_an_authority_leaves_the_files_of_others(tmp_path: Path) -> None:
    authority = make_authority(tmp_path / "authority")
    (authority.folder / "notes.txt").write_text(json.dumps("mine"))
    remove_authority(authority, keep_certificate=False)
    assert [path.name for path in authority.folder.iterdir()] == ["notes.txt"]
