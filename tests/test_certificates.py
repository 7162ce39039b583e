"""The development certificate: accepted by strict clients, made once, never readable by others."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ktls_server import certificates
from ktls_server.certificates import (
    Authority,
    CertificatePair,
    Validity,
    ValidityWatch,
    authority_in,
    certificate_in,
    development_certificate,
    is_good_authority,
    is_issued,
    make_authority,
    names_in,
    remove_authority,
    validity_of,
)
from ktls_server.errors import ConfigurationError, SystemRefusal


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def loaded(pair: CertificatePair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.cert.read_bytes())


def strict_context(pair: CertificatePair) -> ssl.SSLContext:
    """A client that trusts the certificate alone, with Python 3.13's checks on every Python."""
    context = ssl.create_default_context(cafile=pair.cert)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def handshake_in_memory(pair: CertificatePair, client_context: ssl.SSLContext, name: str) -> str | None:
    """The TLS version that client and server agree on. Raises ssl.SSLError where the client refuses."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(pair.cert, pair.key)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return client.version()


@contextmanager
def listening(pair: CertificatePair) -> Iterator[int]:
    """A thread that answers one request; yields the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            accepted, _ = listener.accept()
            with context.wrap_socket(accepted, server_side=True) as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nyes")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_a_strict_client_that_trusts_it_accepts_it_for_every_local_name(tmp_path: Path, name: str) -> None:
    pair = development_certificate(tmp_path)
    assert handshake_in_memory(pair, strict_context(pair), name) == "TLSv1.3"


def test_a_client_refuses_it_for_another_name_and_without_trust(tmp_path: Path) -> None:
    pair = development_certificate(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake_in_memory(pair, strict_context(pair), "example.org")
    with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
        handshake_in_memory(pair, ssl.create_default_context(), "localhost")


def test_curl_accepts_it_with_cacert(tmp_path: Path) -> None:
    pair = development_certificate(tmp_path)
    with listening(pair) as port:
        command = ["curl", "-sS", "--noproxy", "*", "--cacert", str(pair.cert), f"https://127.0.0.1:{port}/"]
        assert subprocess.run(command, check=True, capture_output=True, timeout=20).stdout == b"yes"


def test_openssl_verifies_it_with_strict_checks(tmp_path: Path) -> None:
    pair = development_certificate(tmp_path)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "localhost"]
    command += ["-CAfile", str(pair.cert), str(pair.cert)]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
    assert run.stdout == f"{pair.cert}: OK\n", run.stderr


def test_it_is_what_browsers_take_and_no_authority(tmp_path: Path) -> None:
    certificate = loaded(development_certificate(tmp_path))
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= timedelta(days=398)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    extensions = certificate.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is False
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]


def test_it_is_made_once(tmp_path: Path) -> None:
    first = development_certificate(tmp_path)
    again = development_certificate(tmp_path)
    assert (first.created, again.created) == (True, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cert.pem", "key.pem"]


def test_key_and_folder_are_private_whatever_the_umask(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "cache"
    old = os.umask(0)
    try:
        pair = development_certificate(folder)
    finally:
        os.umask(old)
    assert mode_of(pair.key) == 0o600
    assert mode_of(folder) == 0o700


def test_a_cache_folder_that_others_could_enter_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    development_certificate(tmp_path)
    assert mode_of(tmp_path) == 0o700


def test_more_names_make_a_new_one_that_keeps_the_old_names(tmp_path: Path) -> None:
    development_certificate(tmp_path, ["one.test"])
    pair = development_certificate(tmp_path, ["192.0.2.7", "zwölf.test"])
    assert pair.created
    for name in ("localhost", "one.test", "192.0.2.7", "zwölf.test"):
        assert handshake_in_memory(pair, strict_context(pair), name) == "TLSv1.3"
    assert not development_certificate(tmp_path, ["one.test"]).created


def test_a_link_local_address_with_its_zone_does_not_make_a_new_one_each_time(tmp_path: Path) -> None:
    assert development_certificate(tmp_path, ["fe80::1%eth0"]).created
    assert not development_certificate(tmp_path, ["fe80::1%eth0"]).created


@pytest.mark.parametrize(
    "name",
    [
        *("a" * 64 + "ö", "a" * 64, ("a." * 127) + "aa", "", " "),
        *(
            "bad name!",
            "one.test/",
            "https://one.test",
            "one..test",
            ".test",
            "-one.test",
            "one-.test",
            "one.*.test",
            "*",
        ),
        *("one.test:8443", "192.0.2.300", "192.0.2", "a\nb", "one.test\n"),
    ],
)
def test_a_name_that_no_certificate_can_hold_is_refused_and_changes_nothing(tmp_path: Path, name: str) -> None:
    pair = development_certificate(tmp_path)
    before = pair.cert.read_bytes()
    with pytest.raises(ConfigurationError, match="neither a host name nor an address"):
        development_certificate(tmp_path, [name])
    assert pair.cert.read_bytes() == before


@pytest.mark.parametrize(
    "name", ["one", "a.b-c.test", "*.one.test", "xn--bcher-kva.test", "büro.test", "db_1.test", "3com.com"]
)
def test_names_that_hosts_have_are_taken(tmp_path: Path, name: str) -> None:
    assert development_certificate(tmp_path, [name]).created


@pytest.mark.parametrize(
    ("days_from_now", "renewed"), [(0, False), (300, False), (370, True), (400, True), (-30, True)]
)
def test_it_is_renewed_when_its_end_is_near_or_it_is_not_valid_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days_from_now: int, renewed: bool
) -> None:
    development_certificate(tmp_path)

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=days_from_now)

    monkeypatch.setattr(certificates, "datetime", Later)
    assert development_certificate(tmp_path).created is renewed


@pytest.mark.parametrize("damage", ["", "garbage", "other key"])
@pytest.mark.parametrize("name", ["cert.pem", "key.pem"])
def test_what_is_damaged_in_the_cache_is_made_anew(tmp_path: Path, name: str, damage: str) -> None:
    pair = development_certificate(tmp_path / "cache")
    if damage == "other key":
        other = development_certificate(tmp_path / "other")
        shutil.copy(other.cert.with_name(name), pair.cert.with_name(name))
    else:
        pair.cert.with_name(name).write_text(damage)
    renewed = development_certificate(tmp_path / "cache")
    assert renewed.created
    assert handshake_in_memory(renewed, strict_context(renewed), "localhost") == "TLSv1.3"


def test_what_a_crash_left_behind_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".key.pem.new").write_text("half a key")
    (tmp_path / ".key.pem.new").chmod(0o644)
    pair = development_certificate(tmp_path)
    assert mode_of(pair.key) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cert.pem", "key.pem"]


def _make_and_hash(folder: str) -> tuple[bool, bytes, bytes]:
    pair = development_certificate(Path(folder))
    return pair.created, pair.cert.read_bytes(), pair.key.read_bytes()


def test_processes_that_start_at_once_get_the_same_one(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        results = pool.map(_make_and_hash, [str(tmp_path / "cache")] * 8, chunksize=1)
    assert [created for created, _, _ in results].count(True) == 1
    assert len({(cert, key) for _, cert, key in results}) == 1


def test_a_folder_that_cannot_be_used_is_a_refusal_that_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SystemRefusal, match="set XDG_CACHE_HOME"):
        development_certificate(file / "cache")


def test_a_cache_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SystemRefusal, match="belongs to another user"):
        development_certificate(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_folder_follows_the_xdg_specification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    for value, expected in (
        ("/var/cache/ann", "/var/cache/ann/ktls-server"),
        ("", "/home/ann/.cache/ktls-server"),
        ("relative", "/home/ann/.cache/ktls-server"),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert str(certificates.cache_folder()) == expected


NOW = datetime(2030, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("begin", "end", "complaint"),
    [
        (-10, 10, ""),
        (-10, -1, "was valid until 2030-05-31 12:00 UTC"),
        (-10, 0, "was valid until 2030-06-01 12:00 UTC"),
        (0, 10, ""),
        (1, 10, "is not valid before 2030-06-02 12:00 UTC"),
    ],
)
def test_a_certificate_out_of_its_time_is_named_with_its_date(begin: int, end: int, complaint: str) -> None:
    validity = Validity(Path("cert.pem"), NOW + timedelta(days=begin), NOW + timedelta(days=end))
    said = validity.complaint(NOW)
    assert complaint in said
    assert bool(said) is bool(complaint)
    assert "cert.pem" in said or not said
    assert validity.days_left(NOW) == end


def test_the_end_of_a_certificate_is_said_once_and_again_for_another_one(tmp_path: Path) -> None:
    foreign_pair(tmp_path)
    watch = ValidityWatch([tmp_path / "cert.pem", tmp_path / "missing.pem"])
    (first,) = watch.read
    assert watch.news(first.end - timedelta(seconds=1)) == []
    assert len(watch.news(first.end)) == 1
    assert watch.news(first.end + timedelta(days=1)) == []
    watch.reload()
    assert watch.news(first.end + timedelta(days=1)) == []
    foreign_pair(tmp_path, days=30)
    watch.reload()
    assert len(watch.news(first.end + timedelta(days=1))) == 1


@pytest.mark.parametrize("content", ["", "garbage", None])
def test_a_file_without_a_certificate_has_no_validity(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "cert.pem").write_text(content)
    assert validity_of(tmp_path / "cert.pem") is None


def foreign_pair(folder: Path, days: int = 90) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "example.org")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(min(now, now + timedelta(days=days - 1)))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def test_a_certificate_from_elsewhere_is_never_replaced_in_a_folder_of_the_users(tmp_path: Path) -> None:
    foreign_pair(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigurationError, match="did not make"):
        certificate_in(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_lone_key_is_never_replaced_in_a_folder_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("precious")
    with pytest.raises(ConfigurationError):
        certificate_in(tmp_path)
    assert (tmp_path / "key.pem").read_text() == "precious"


def test_a_folder_of_the_users_keeps_its_mode_and_a_good_certificate(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert certificate_in(tmp_path).created
    assert not certificate_in(tmp_path).created
    assert certificate_in(tmp_path, ["more.test"]).created
    assert mode_of(tmp_path) == 0o755


# The local authority


def openssl_verify(pair: CertificatePair, authority: Authority, *options: str) -> subprocess.CompletedProcess[str]:
    """As a client does that trusts the authority alone."""
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", *options]
    command += ["-CAfile", str(authority.path), str(pair.cert)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "a.one.test", "192.168.3.4", "fd00::7", "8.8.8.8"])
def test_a_strict_client_that_trusts_the_authority_accepts_what_it_issues(tmp_path: Path, name: str) -> None:
    authority = make_authority(tmp_path / "authority", ["*.one.test", "8.8.8.8"])
    pair = development_certificate(tmp_path / "cache", [name], authority)
    assert is_issued(pair.cert, authority)
    context = ssl.create_default_context(cafile=authority.path)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert handshake_in_memory(pair, context, name) == "TLSv1.3"
    # The file itself still is what a client may be given.
    assert handshake_in_memory(pair, strict_context(pair), name) == "TLSv1.3"
    assert openssl_verify(pair, authority).stdout == f"{pair.cert}: OK\n"


@pytest.mark.parametrize("name", ["example.org", "notlocalhost", "one.test.example.org", "8.8.8.8", "2001:db8::1"])
def test_clients_refuse_what_the_authority_may_not_sign(tmp_path: Path, name: str) -> None:
    authority = make_authority(tmp_path / "authority", ["one.test"])
    assert not authority.permits([name])
    # It signs all the same, as a thief of its key would.
    pair = CertificatePair(tmp_path / "cert.pem", tmp_path / "key.pem")
    certificates._make(pair, [certificates._general_name(name)], authority)
    run = openssl_verify(pair, authority)
    assert run.returncode != 0
    assert "permitted subtree violation" in run.stderr
    context = ssl.create_default_context(cafile=authority.path)
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        handshake_in_memory(pair, context, name)


def test_the_authority_issues_no_further_authority_and_nothing_but_servers(tmp_path: Path) -> None:
    extensions = make_authority(tmp_path).certificate.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert extensions.get_extension_for_class(x509.NameConstraints).critical
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_the_authority_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "authority"
    authority = make_authority(folder)
    assert authority.created
    assert (mode_of(folder), mode_of(folder / "key.pem")) == (0o700, 0o600)
    again = make_authority(folder, ["a.localhost"])
    assert not again.created
    assert again.certificate == authority.certificate
    assert "PRIVATE" not in repr(again)
    assert "EllipticCurve" not in repr(again)


def test_an_authority_for_more_names_is_another_one_that_keeps_the_names_of_the_first(tmp_path: Path) -> None:
    first = make_authority(tmp_path, ["one.test"])
    second = make_authority(tmp_path, ["two.test"])
    assert second.created
    assert second.permits(["one.test", "two.test", "localhost"])
    assert first.identifier != second.identifier
    assert first.certificate.subject != second.certificate.subject


def test_a_certificate_is_issued_anew_when_the_authority_comes_changes_or_goes(tmp_path: Path) -> None:
    cache, folder = tmp_path / "cache", tmp_path / "authority"
    alone = development_certificate(cache)
    assert len(x509.load_pem_x509_certificates(alone.cert.read_bytes())) == 1
    first = make_authority(folder)
    assert development_certificate(cache, (), first).created
    assert not development_certificate(cache, (), first).created
    second = make_authority(folder, ["more.test"])
    pair = development_certificate(cache, (), second)
    assert pair.created
    assert is_issued(pair.cert, second)
    assert not is_issued(pair.cert, first)
    assert development_certificate(cache, ["a.more.test"], second).created
    assert is_issued(pair.cert, second)
    again = development_certificate(cache)
    assert again.created
    assert not is_issued(again.cert, second)
    assert names_in(again.cert) == ["localhost", "127.0.0.1", "::1", "a.more.test"]


def test_names_that_the_authority_may_not_sign_are_signed_as_without_one(tmp_path: Path) -> None:
    authority = make_authority(tmp_path / "authority")
    pair = certificate_in(tmp_path / "own", ["files.test"], authority)
    assert not is_issued(pair.cert, authority)
    assert handshake_in_memory(pair, strict_context(pair), "files.test") == "TLSv1.3"
    assert not certificate_in(tmp_path / "own", ["files.test"], authority).created


@pytest.mark.parametrize("damage", ["no key", "other key", "garbage", "near its end"])
def test_an_authority_that_cannot_sign_is_passed_over_and_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    folder = tmp_path / "authority"
    authority = make_authority(folder)
    if damage == "no key":
        remove_authority(authority, keep_certificate=True)
    elif damage == "other key":
        shutil.copy(make_authority(tmp_path / "other").folder / "key.pem", folder)
    elif damage == "garbage":
        (folder / "key.pem").write_text("garbage")
    else:

        class Later(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
                return datetime.now(UTC) + timedelta(days=3640)

        monkeypatch.setattr(certificates, "datetime", Later)
    found = authority_in(folder)
    assert found is not None
    assert not is_good_authority(found)
    pair = development_certificate(tmp_path / "cache", (), found)
    assert not is_issued(pair.cert, found)
    assert make_authority(folder).created


def test_a_folder_that_holds_something_else_has_no_authority(tmp_path: Path) -> None:
    assert authority_in(tmp_path) is None
    foreign_pair(tmp_path)
    assert authority_in(tmp_path) is None


def test_an_authority_that_cannot_be_kept_is_a_refusal_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemRefusal, match="set XDG_DATA_HOME"):
        make_authority(tmp_path / "file" / "authority")


def test_the_authority_lies_in_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert str(certificates.authority_folder()) == "/home/ann/.local/share/ktls-server/authority"
    monkeypatch.setenv("XDG_DATA_HOME", "/var/lib/ann")
    assert str(certificates.authority_folder()) == "/var/lib/ann/ktls-server/authority"
