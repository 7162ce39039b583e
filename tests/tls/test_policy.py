"""What the server agrees to in a handshake: the Mozilla intermediate profile, and what its options make of it."""

import contextlib
import ssl
import warnings
from pathlib import Path

import pytest
import trustme

from ktls_server.errors import ConfigurationError
from ktls_server.handshake.context import TlsContexts
from ktls_server.settings import Settings

MOZILLA_INTERMEDIATE = {
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
}
"""https://ssl-config.mozilla.org, without the DHE suites; the suites of TLS 1.3 are beside them."""

AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """An ECDSA and an RSA certificate for the same name, each with its key in the same file."""
    folder = tmp_path_factory.mktemp("policy")
    paths = []
    for key_type in (trustme.KeyType.ECDSA, trustme.KeyType.RSA):
        path = folder / f"{key_type.name}.pem"
        AUTHORITY.issue_cert("localhost", key_type=key_type).private_key_and_cert_chain_pem.write_to_path(str(path))
        paths.append(path)
    return tuple(paths)


def client_context(ciphers: str | None = None, group: str | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    if ciphers is not None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    if group is not None:
        context.set_ecdh_curve(group)
    return context


def agreed(server: ssl.SSLContext, client: ssl.SSLContext) -> str | None:
    """The suite that the two agree on in a handshake in memory; None where they do not."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    far = server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for side in (near, far, near, far, near):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLError:
        return None
    cipher = far.cipher()
    assert cipher is not None
    assert cipher == near.cipher()
    return cipher[0]


def suites_before_tls_1_3() -> list[str]:
    """All that this OpenSSL can do with a certificate, weak ones too."""
    everything = client_context("ALL:@SECLEVEL=0:!aNULL:!PSK:!SRP").get_ciphers()
    return [cipher["name"] for cipher in everything if cipher["protocol"] != "TLSv1.3"]


def test_by_default_the_suites_of_tls_12_are_mozillas_intermediate_profile(certificates: tuple[Path, ...]) -> None:
    server = TlsContexts(Settings(cert=certificates)).first
    offered = suites_before_tls_1_3()
    assert set(offered) > MOZILLA_INTERMEDIATE
    accepted = {agreed(server, client_context(f"{suite}:@SECLEVEL=0")) for suite in offered} - {None}
    assert accepted == MOZILLA_INTERMEDIATE


def test_the_client_chooses_among_the_suites(certificates: tuple[Path, ...]) -> None:
    """As the profile has it: who has no AES instructions asks for ChaCha20 first."""
    server = TlsContexts(Settings(cert=certificates)).first
    for suite in sorted(MOZILLA_INTERMEDIATE):
        others = ":".join(sorted(MOZILLA_INTERMEDIATE - {suite}))
        assert agreed(server, client_context(f"{suite}:{others}")) == suite


@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_older_versions_are_refused(certificates: tuple[Path, ...], version: str) -> None:
    client = client_context("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():  # The versions are deprecated, which is the point.
        warnings.simplefilter("ignore", DeprecationWarning)
        client.minimum_version = client.maximum_version = ssl.TLSVersion[version]
    assert agreed(TlsContexts(Settings(cert=certificates)).first, client) is None


@pytest.mark.parametrize("group", ["X25519", "prime256v1", "secp384r1"])
def test_by_default_the_groups_of_the_profile_are_taken(certificates: tuple[Path, ...], group: str) -> None:
    assert agreed(TlsContexts(Settings(cert=certificates)).first, client_context(group=group)) is not None


@pytest.mark.parametrize(
    ("named", "openssl_name"),
    [
        ("X25519", "X25519"),
        ("x25519", "X25519"),
        ("P-256", "prime256v1"),
        ("secp256r1", "prime256v1"),
        ("prime256v1", "prime256v1"),
        ("P-384", "secp384r1"),
        ("secp384r1", "secp384r1"),
        ("P-521", "secp521r1"),
    ],
)
def test_a_group_by_any_of_its_names_is_the_only_one(
    certificates: tuple[Path, ...], named: str, openssl_name: str
) -> None:
    server = TlsContexts(Settings(cert=certificates, groups=named)).first
    for group in ("X25519", "prime256v1", "secp384r1", "secp521r1"):
        assert (agreed(server, client_context(group=group)) is not None) == (group == openssl_name), group


def test_a_group_that_openssl_does_not_know_is_named_in_the_refusal(certificates: tuple[Path, ...]) -> None:
    with pytest.raises(ConfigurationError, match="groups: OpenSSL does not know 'P-255'"):
        TlsContexts(Settings(cert=certificates, groups="P-255"))


@pytest.mark.skipif(hasattr(ssl.SSLContext, "set_groups"), reason="this Python can set several")
def test_several_groups_are_refused_where_python_cannot_set_them(certificates: tuple[Path, ...]) -> None:
    with pytest.raises(ConfigurationError, match="names 2 groups; this Python can set only one"):
        TlsContexts(Settings(cert=certificates, groups="X25519:P-256"))


def test_a_cipher_list_without_a_known_suite_is_refused(certificates: tuple[Path, ...]) -> None:
    with pytest.raises(ConfigurationError, match="ciphers: OpenSSL knows no suite of 'ROT13'"):
        TlsContexts(Settings(cert=certificates, ciphers="ROT13"))
