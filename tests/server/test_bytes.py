"""Every byte arrives as it is on disk: each path, loop, TLS version, cipher and client."""

import ssl
from pathlib import Path

import httpx
import pytest

from tests.server.clients import (
    TLS_1_2,
    TLS_1_3,
    VERSION_NAMES,
    VERSIONS_AND_CIPHERS,
    client_context,
    curl_download,
    curl_tls_options,
    request,
    s_client,
    split_answers,
)
from tests.server.running import KeyedSockets, Server
from tests.server.site import SIZES, content

each_cipher = pytest.mark.parametrize(("version", "cipher"), VERSIONS_AND_CIPHERS, ids=str)


@each_cipher
def test_curl_gets_every_size_over_one_connection(
    server: Server, version: ssl.TLSVersion, cipher: str, tmp_path: Path
) -> None:
    keyed = KeyedSockets()
    paths = [f"/{size}.bin?curl-{cipher}" for size in SIZES]
    assert curl_download(server, paths, tmp_path, *curl_tls_options(version, cipher)) == [content(n) for n in SIZES]
    keyed.expect_transmit(server, 1)
    (line,) = server.logged(paths[-1])
    assert (line["tls_version"], line["cipher"]) == (VERSION_NAMES[version], cipher)
    assert (line["status"], line["bytes"], line["tx"]) == (200, SIZES[-1], server.variant.path)


@each_cipher
def test_openssl_s_client_gets_every_size_over_one_connection(
    server: Server, version: ssl.TLSVersion, cipher: str
) -> None:
    keyed = KeyedSockets()
    *first, last = [f"/{size}.bin?s_client-{cipher}" for size in SIZES]
    sent = b"".join(request(path) for path in first) + request(last, "Connection: close")
    answers = split_answers(s_client(server, version, cipher, sent))
    assert [answer.body for answer in answers] == [content(size) for size in SIZES]
    keyed.expect_transmit(server, 1)
    (line,) = server.logged(last)
    assert (line["tls_version"], line["cipher"], line["tx"]) == (VERSION_NAMES[version], cipher, server.variant.path)


@pytest.mark.parametrize(
    ("version", "cipher"), [*((v, c) for v, c in VERSIONS_AND_CIPHERS if v == TLS_1_2), (TLS_1_3, None)]
)
def test_httpx_gets_every_size_over_one_connection(server: Server, version: ssl.TLSVersion, cipher: str | None) -> None:
    keyed = KeyedSockets()
    with httpx.Client(verify=client_context(server, version, cipher), trust_env=False) as client:
        for size in SIZES:
            assert client.get(server.url(f"/{size}.bin")).raise_for_status().content == content(size)
    keyed.expect_transmit(server, 1)
