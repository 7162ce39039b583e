"""Which certificate a client gets, whose certificates the server takes, and how both are replaced under way."""

import contextlib
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from ktls_server.kernel.probe import tls_stat
from tests.server.running import Server, Variant
from tests.server.site import SMALL
from tests.tls.conftest import paths
from tests.tls.wire_client import OpenSslHandshake, WireClient, get_request
from tests.waiting import WAIT_SECONDS, eventually

ECDSA, RSA = trustme.KeyType.ECDSA, trustme.KeyType.RSA
each_version = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", paths(metafunc.config), scope="session")


class Pair:
    """A certificate and its key, as files."""

    def __init__(self, authority: trustme.CA, folder: Path, *names: str, key_type: trustme.KeyType = ECDSA) -> None:
        folder.mkdir(exist_ok=True)
        self._authority = authority
        self.names, self.key_type = names, key_type
        stem = f"{names[0].replace('*', 'any')}-{key_type.name}"
        self.certificate_path, self.key_path = folder / f"{stem}.pem", folder / f"{stem}.key"
        self.der = b""
        self.renew()

    def renew(self, key_type: trustme.KeyType | None = None) -> None:
        """Replace both files, as certbot and its like do it: one after the other."""
        leaf = self._authority.issue_cert(*self.names, key_type=key_type or self.key_type)
        self.der = ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())
        write_anew(self.key_path, leaf.private_key_pem.bytes())
        write_anew(self.certificate_path, b"".join(pem.bytes() for pem in leaf.cert_chain_pems))

    def options(self) -> tuple[str, ...]:
        # A reload that goes well is worth a line to an operator; here only what goes wrong is.
        return "--log-level", "warning", "--cert", str(self.certificate_path), "--key", str(self.key_path)


def write_anew(path: Path, data: bytes) -> None:
    """As a new file in place of the old one."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.rename(path)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def context_for(authority: trustme.CA) -> Callable[..., ssl.SSLContext]:
    def context_for(version: ssl.TLSVersion | None = None, ciphers: str | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(context)
        context.check_hostname = False  # What comes is looked at byte by byte.
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if ciphers is not None:
            context.set_ciphers(ciphers)
        return context

    return context_for


ContextFor = Callable[..., ssl.SSLContext]


@contextlib.contextmanager
def tls(
    server: Server, context: ssl.SSLContext, name: str | None, session: ssl.SSLSession | None = None
) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_SECONDS) as tcp,
        context.wrap_socket(tcp, server_hostname=name, session=session) as client,
    ):
        yield client


def certificate_for(server: Server, context: ssl.SSLContext, name: str | None) -> bytes | None:
    with tls(server, context, name) as client:
        return client.getpeercert(binary_form=True)


def get_small_over_a_new_connection(server: Server, context: ssl.SSLContext, name: str) -> None:
    with tls(server, context, name) as client:
        get_small(client)


def get_small(client: ssl.SSLSocket) -> None:
    """One request, its answer and the proof that it is whole."""
    client.sendall(get_request("/small.txt", "Connection: close"))
    received = b""
    while data := client.recv(65536):
        received += data
    assert received.endswith(b"\r\n\r\n" + SMALL)


@pytest.fixture(scope="module")
def pairs(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    folder = tmp_path_factory.mktemp("pairs")
    return {
        "default": Pair(authority, folder, "default.example", "127.0.0.1", "::1"),
        "ecdsa": Pair(authority, folder, "both.example"),
        "rsa": Pair(authority, folder, "both.example", key_type=RSA),
        "wildcard": Pair(authority, folder, "*.wild.example", "wild.example"),
        "exact": Pair(authority, folder, "exact.wild.example", key_type=RSA),
    }


@pytest.fixture(scope="module")
def many_options(pairs: dict[str, Pair]) -> tuple[str, ...]:
    return tuple(option for pair in pairs.values() for option in pair.options())


@pytest.fixture
def many(servers: Callable[[Variant], Server], path: str, many_options: tuple[str, ...]) -> Iterator[Server]:
    """A server with five certificates."""
    server = servers(Variant(path, "uvloop", many_options))
    yield server
    server.assert_unharmed()


@pytest.mark.kernel_matrix("certificates by name (SNI)")
@each_version
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("default.example", "default"),
        ("unknown.example", "default"),
        ("localhost", "default"),
        ("both.example", "ecdsa"),
        ("BOTH.example", "ecdsa"),
        ("wild.example", "wildcard"),
        ("one.wild.example", "wildcard"),
        ("exact.wild.example", "exact"),
        ("two.labels.wild.example", "default"),
        (None, "default"),
        ("127.0.0.1", "default"),
        ("::1", "default"),
    ],
)
def test_the_name_chooses_the_certificate(
    many: Server,
    context_for: ContextFor,
    pairs: dict[str, Pair],
    version: ssl.TLSVersion,
    name: str | None,
    expected: str,
) -> None:
    assert certificate_for(many, context_for(version), name) == pairs[expected].der


@pytest.mark.parametrize(
    "name_untrusted", [b"caf\xc3\xa9.example", b"\xff" * 12, b"\x01\x02.", b"*.wild.example", b"." * 9]
)
def test_a_name_that_is_none_harms_nobody(many: Server, context_for: ContextFor, name_untrusted: bytes) -> None:
    """Alert, certificate, or nothing: but no word of it in the log, in which a client could write what it likes."""
    placeholder = "x" * len(name_untrusted)
    hello = OpenSslHandshake(context_for(), placeholder).step(b"").replace(placeholder.encode(), name_untrusted)
    assert name_untrusted in hello
    with socket.create_connection(("127.0.0.1", many.port), timeout=WAIT_SECONDS) as sock:
        sock.sendall(hello)
        assert sock.recv(1) in (b"\x15", b"\x16")
    many.assert_unharmed()


@pytest.mark.kernel_matrix("ECDSA and RSA for one name")
@pytest.mark.parametrize(("ciphers", "expected"), [("ECDHE+aECDSA", "ecdsa"), ("ECDHE+aRSA", "rsa")])
def test_the_clients_ciphers_choose_between_ecdsa_and_rsa(
    many: Server, context_for: ContextFor, pairs: dict[str, Pair], ciphers: str, expected: str
) -> None:
    context = context_for(ssl.TLSVersion.TLSv1_2, ciphers)
    assert certificate_for(many, context, "both.example") == pairs[expected].der


@pytest.mark.kernel_matrix("keys of contexts that SNI switched to")
@each_version
@pytest.mark.parametrize("name", ["default.example", "both.example", "one.wild.example", "exact.wild.example", None])
def test_keys_are_right_whatever_context_the_name_switched_to(
    many: Server, context_for: ContextFor, version: ssl.TLSVersion, name: str | None
) -> None:
    """The kernel got the keys of this very handshake: every record of the answer opens."""
    keyed = tls_stat().get("TlsTxSw", 0)
    engine = OpenSslHandshake(context_for(version), name)
    with WireClient(("127.0.0.1", many.port), engine) as client:
        for _ in range(3):
            assert client.get("/small.txt").body == SMALL
    assert tls_stat().get("TlsTxSw", 0) - keyed == (1 if many.variant.path == "kernel" else 0)


def test_handshakes_leave_no_secret_in_the_key_log(many: Server, context_for: ContextFor) -> None:
    for name in ("default.example", "both.example", "one.wild.example"):
        with tls(many, context_for(), name) as client:
            get_small(client)
    logs = []
    for entry in Path(f"/proc/{many.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a connection's, closed meanwhile
            if "key log" in os.readlink(entry):  # memfd:ktls_server key log
                logs.append(entry)
    assert logs, "nothing to look at"
    for log in logs:
        assert not log.read_bytes().strip(b"\x00")


@pytest.mark.kernel_matrix("sessions resumed")
@each_version
def test_sessions_are_resumed_under_every_name(many: Server, context_for: ContextFor, version: ssl.TLSVersion) -> None:
    for name in ("default.example", "both.example", "one.wild.example"):
        context = context_for(version)
        with tls(many, context, name) as client:
            get_small(client)
            session = client.session
        with tls(many, context, name, session) as client:
            assert client.session_reused
            get_small(client)


@pytest.fixture(scope="module")
def client_authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def client_ca(client_authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("client-ca") / "authority.pem"
    client_authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def guarded(
    servers: Callable[[Variant], Server], path: str, pairs: dict[str, Pair], client_ca: Path
) -> Iterator[Callable[[str], Server]]:
    """A server that asks for client certificates, which are "required" or "optional"."""
    asked: list[Server] = []

    def guarded(client_auth: str) -> Server:
        options = ("--client-ca", str(client_ca), "--client-auth", client_auth)
        variant = Variant(path, "uvloop", (*pairs["default"].options(), *pairs["ecdsa"].options(), *options))
        asked.append(servers(variant))
        return asked[-1]

    yield guarded
    for server in asked:
        server.assert_unharmed()


each_client_auth = pytest.mark.parametrize("client_auth", ["required", "optional"])
either_context = pytest.mark.parametrize("name", ["default.example", "both.example"])


@pytest.mark.kernel_matrix("client certificates")
@each_version
@either_context
@each_client_auth
def test_a_client_with_a_certificate(
    guarded: Callable[[str], Server],
    context_for: ContextFor,
    client_authority: trustme.CA,
    version: ssl.TLSVersion,
    name: str,
    client_auth: str,
) -> None:
    context = context_for(version)
    client_authority.issue_cert("client@example.org").configure_cert(context)
    with tls(guarded(client_auth), context, name) as client:
        get_small(client)


@pytest.mark.kernel_matrix("client certificates")
@each_version
@either_context
def test_a_client_without_a_certificate_where_it_is_optional(
    guarded: Callable[[str], Server], context_for: ContextFor, version: ssl.TLSVersion, name: str
) -> None:
    with tls(guarded("optional"), context_for(version), name) as client:
        get_small(client)


@pytest.mark.kernel_matrix("client certificates")
@each_version
@either_context
def test_a_client_without_a_certificate_where_it_is_required_is_told(
    guarded: Callable[[str], Server], context_for: ContextFor, version: ssl.TLSVersion, name: str
) -> None:
    """In TLS 1.3 the client is done before the server is: the alert comes instead of the answer."""
    server = guarded("required")
    with pytest.raises(ssl.SSLError, match=r"alert (certificate required|handshake failure)"):
        get_small_over_a_new_connection(server, context_for(version), name)


@each_version
@each_client_auth
def test_a_client_with_a_certificate_of_another_authority_is_told(
    guarded: Callable[[str], Server], context_for: ContextFor, version: ssl.TLSVersion, client_auth: str
) -> None:
    context = context_for(version)
    trustme.CA().issue_cert("client@example.org").configure_cert(context)
    server = guarded(client_auth)
    with pytest.raises(ssl.SSLError, match="alert unknown ca"):
        get_small_over_a_new_connection(server, context, "default.example")


@pytest.fixture
def pair(authority: trustme.CA, tmp_path: Path) -> Pair:
    """A pair that may be replaced."""
    return Pair(authority, tmp_path, "replaced.example")


@pytest.fixture
def server(start_server: Callable[[Variant], Server], path: str, pair: Pair) -> Server:
    """A server of this test's own, with that pair."""
    return start_server(Variant(path, "uvloop", pair.options()))


@pytest.mark.kernel_matrix("certificates reloaded under way")
@pytest.mark.parametrize("how", ["SIGHUP", "file change"])
def test_a_new_pair_is_used_and_no_connection_is_dropped(
    server: Server, context_for: ContextFor, pair: Pair, how: str
) -> None:
    with tls(server, context_for(), "replaced.example") as standing:
        standing.sendall(get_request("/small.txt"))
        assert standing.recv(1)
        pair.renew()
        if how == "SIGHUP":
            os.kill(server.pid, signal.SIGHUP)
        expect_certificate(server, context_for(), pair)
        get_small(standing)


def test_another_type_of_key_replaces_the_old_certificate_altogether(
    server: Server, context_for: ContextFor, pair: Pair
) -> None:
    """OpenSSL keeps one certificate for each type of key: the old one must not be served beside the new one."""
    pair.renew(RSA)
    os.kill(server.pid, signal.SIGHUP)
    expect_certificate(server, context_for(), pair)
    with pytest.raises(ssl.SSLError, match="alert handshake failure"):
        certificate_for(server, context_for(ssl.TLSVersion.TLSv1_2, "ECDHE+aECDSA"), "replaced.example")


@pytest.mark.parametrize("how", ["SIGHUP", "file change"])
def test_other_authorities_of_clients_replace_the_old_ones(
    start_server: Callable[[Variant], Server], path: str, context_for: ContextFor, pair: Pair, tmp_path: Path, how: str
) -> None:
    old, new = trustme.CA(), trustme.CA()
    client_ca = tmp_path / "clients.pem"
    write_anew(client_ca, old.cert_pem.bytes())
    server = start_server(Variant(path, "uvloop", (*pair.options(), "--client-ca", str(client_ca))))

    def is_let_in(authority: trustme.CA) -> bool:
        context = context_for()
        authority.issue_cert("client@example.org").configure_cert(context)
        try:
            get_small_over_a_new_connection(server, context, "replaced.example")
        except ssl.SSLError as error:
            assert "alert unknown ca" in str(error)  # noqa: PT017 - the other outcome is as good
            return False
        return True

    assert (is_let_in(old), is_let_in(new)) == (True, False)
    write_anew(client_ca, new.cert_pem.bytes())
    if how == "SIGHUP":
        os.kill(server.pid, signal.SIGHUP)
    eventually(lambda: is_let_in(new), "the new authority's clients are let in")
    assert not is_let_in(old)


@each_version
def test_a_session_does_not_outlive_the_authority_that_let_its_client_in(
    start_server: Callable[[Variant], Server],
    path: str,
    context_for: ContextFor,
    pair: Pair,
    tmp_path: Path,
    version: ssl.TLSVersion,
) -> None:
    """A ticket says that a certificate was checked: it must not go on from ticket to ticket once the authority is gone."""
    old, new = trustme.CA(), trustme.CA()
    client_ca = tmp_path / "clients.pem"
    write_anew(client_ca, old.cert_pem.bytes())
    server = start_server(Variant(path, "uvloop", (*pair.options(), "--client-ca", str(client_ca))))
    context = context_for(version)
    old.issue_cert("client@example.org").configure_cert(context)
    with tls(server, context, "replaced.example") as client:
        get_small(client)
        session = client.session
    with tls(server, context, "replaced.example", session) as client:
        assert client.session_reused
        get_small(client)
        session = client.session
    write_anew(client_ca, new.cert_pem.bytes())
    newcomer = context_for(version)
    new.issue_cert("client@example.org").configure_cert(newcomer)

    def is_let_in() -> bool:
        with contextlib.suppress(ssl.SSLError):
            get_small_over_a_new_connection(server, newcomer, "replaced.example")
            return True
        return False

    os.kill(server.pid, signal.SIGHUP)
    eventually(is_let_in, "the new authority's clients are let in")
    with pytest.raises(ssl.SSLError), tls(server, context, "replaced.example", session) as client:
        get_small(client)


@each_version
def test_sessions_outlive_a_reload(
    server: Server, context_for: ContextFor, pair: Pair, version: ssl.TLSVersion
) -> None:
    context = context_for(version)
    with tls(server, context, "replaced.example") as client:
        get_small(client)
        session = client.session
    pair.renew()
    os.kill(server.pid, signal.SIGHUP)
    expect_certificate(server, context_for(), pair)
    with tls(server, context, "replaced.example", session) as client:
        assert client.session_reused
        get_small(client)


def expect_certificate(server: Server, context: ssl.SSLContext, pair: Pair) -> None:
    """The certificate that new connections get becomes `pair`'s."""
    eventually(
        lambda: certificate_for(server, context, pair.names[0]) == pair.der,
        "the new certificate is the one that is sent",
    )


@pytest.mark.kernel_matrix("a broken pair refused, the old one kept")
@pytest.mark.parametrize("broken", ["no PEM at all", "the key of another", "missing"])
def test_a_broken_pair_is_refused_and_the_old_one_kept(
    server: Server, context_for: ContextFor, authority: trustme.CA, pair: Pair, broken: str
) -> None:
    kept = pair.der
    match broken:
        case "no PEM at all":
            write_anew(pair.certificate_path, b"no certificate")
        case "the key of another":
            write_anew(pair.key_path, authority.issue_cert("other.example").private_key_pem.bytes())
        case "missing":
            pair.certificate_path.unlink()
    os.kill(server.pid, signal.SIGHUP)
    eventually(lambda: "the certificates stay as they were" in server.errors(), "the broken pair is complained about")
    assert certificate_for(server, context_for(), "replaced.example") == kept
    pair.renew()
    os.kill(server.pid, signal.SIGHUP)
    expect_certificate(server, context_for(), pair)
    for complaint in server.complaints():
        assert "the certificates stay as they were" in complaint


@pytest.mark.parametrize(
    ("options", "version", "ciphers", "expected"),
    [
        (("--tls-min", "1.3"), ssl.TLSVersion.TLSv1_2, None, None),
        (("--tls-min", "1.3"), ssl.TLSVersion.TLSv1_3, None, "TLS_AES_256_GCM_SHA384"),
        (("--tls-min", "1.2"), ssl.TLSVersion.TLSv1_2, "AES256-GCM-SHA384", None),
        (("--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"), ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", None),
        (
            ("--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"),
            ssl.TLSVersion.TLSv1_2,
            None,
            "ECDHE-ECDSA-AES256-GCM-SHA384",
        ),
        (("--groups", "prime256v1"), ssl.TLSVersion.TLSv1_3, None, "TLS_AES_256_GCM_SHA384"),
    ],
)
def test_versions_ciphers_and_groups_that_are_offered(
    servers: Callable[[Variant], Server],
    context_for: ContextFor,
    pairs: dict[str, Pair],
    options: tuple[str, ...],
    version: ssl.TLSVersion,
    ciphers: str | None,
    expected: str | None,
) -> None:
    server = servers(Variant("userspace", "uvloop", (*pairs["default"].options(), *options)))
    context = context_for(version, ciphers)
    if expected is None:
        with pytest.raises(ssl.SSLError, match="alert"):
            certificate_for(server, context, "default.example")
        return
    with tls(server, context, "default.example") as client:
        assert client.cipher() is not None
        assert client.cipher()[0] == expected  # type: ignore[index]
        get_small(client)


def test_a_client_without_the_servers_group_is_refused(
    servers: Callable[[Variant], Server], context_for: ContextFor, pairs: dict[str, Pair]
) -> None:
    server = servers(Variant("userspace", "uvloop", (*pairs["default"].options(), "--groups", "prime256v1")))
    context = context_for()
    context.set_ecdh_curve("secp384r1")
    with pytest.raises(ssl.SSLError, match="alert handshake failure"):
        certificate_for(server, context, "default.example")
