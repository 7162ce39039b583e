"""Servers and clients for TLS below HTTP: every way that a connection's records can be handled, one server each.

The servers are those of tests/server, in variants that differ in who encrypts and who decrypts. Each runs on another
event loop, so that both loops meet both.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ktls_server.kernel.probe import KernelTls
from ktls_server.keys.suites import SUITES
from tests.kernels.matrix import MARKER
from tests.server.clients import TLS_1_2, TLS_1_3, client_context
from tests.server.conftest import cache, kernel_tls, paths_to_test, servers, site, start_server
from tests.server.running import Server, Variant
from tests.server.site import content
from tests.tls.wire_client import OpenSslHandshake, TlsliteHandshake, WireClient

__all__ = ["cache", "kernel_tls", "servers", "site", "start_server"]

VARIANTS = {
    "kernel": (
        Variant("kernel", "uvloop", ("--ktls-rx", "on")),
        Variant("kernel", "asyncio"),
    ),
    "userspace": (Variant("userspace", "uvloop"), Variant("userspace", "asyncio")),
}
"""Where the kernel can rekey, the two of the kernel differ in who decrypts."""

VERSIONS = {"TLSv1.2": TLS_1_2, "TLSv1.3": TLS_1_3}

BIG = 6 << 20
"""Bytes of /big.bin: more than the socket buffers of both ends hold, so that the server is still sending after the head."""

Connect = Callable[..., WireClient]
ConnectTo = Callable[..., WireClient]


def paths(config: pytest.Config) -> tuple[str, ...]:
    """Under --ktls-kernel the kernel's path only: userspace was tested where computing is native."""
    return ("kernel",) if config.getoption("--ktls-kernel") else paths_to_test(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "variant" in metafunc.fixturenames:
        variants = [variant for path in paths(metafunc.config) for variant in VARIANTS[path]]
        metafunc.parametrize("variant", variants, ids=str, scope="session")


@pytest.fixture
def server(servers: Callable[[Variant], Server], variant: Variant) -> Iterator[Server]:
    """The server of this variant, unharmed before and after."""
    server = servers(variant)
    yield server
    server.assert_unharmed()


@pytest.fixture(scope="session")
def big(site: Path) -> bytes:
    """What /big.bin holds."""
    data = content(BIG)
    (site / "big.bin").write_bytes(data)
    return data


@pytest.fixture
def follows_key_updates(server: Server, kernel_tls: KernelTls, record_property: Callable[[str, object], None]) -> bool:
    """Whether the server can change its own key: not where a kernel before 6.14 encrypts."""
    follows = server.variant.path == "userspace" or kernel_tls.rekey
    if not follows:
        record_property(MARKER, "closed in order")
    return follows


@pytest.fixture
def connect_to() -> Iterator[ConnectTo]:
    """Connects a WireClient: `suite` by name, or "TLSv1.2" and "TLSv1.3" for whatever OpenSSL chooses."""
    clients: list[WireClient] = []

    def connect_to(server: Server, suite: str = "TLSv1.3", **options: Any) -> WireClient:
        engine = (
            TlsliteHandshake(SUITES[suite])
            if suite in SUITES
            else OpenSslHandshake(client_context(server, VERSIONS[suite]))
        )
        clients.append(WireClient(("127.0.0.1", server.port), engine, **options))
        return clients[-1]

    yield connect_to
    for client in clients:
        client.close()


@pytest.fixture
def connect(server: Server, connect_to: ConnectTo) -> Connect:
    """`connect_to` with `server`."""
    return functools.partial(connect_to, server)
