"""Who encrypts and who decrypts, by the kernel's own count, for every cipher that it is asked for; what it saves."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import pytest

from ktls_server.bench.processes import resident_bytes
from ktls_server.kernel.probe import KernelTls, tls_stat
from tests.kernels.matrix import MARKER
from tests.server.clients import Client, client_context
from tests.server.running import Server, Variant
from tests.server.site import SMALL, content
from tests.tls.conftest import Connect
from tests.tls.wire_client import TLS12_SUITES, TLS13_SUITES

each_suite = pytest.mark.parametrize("suite", [*TLS12_SUITES, *TLS13_SUITES])

RecordProperty = Callable[[str, object], None]

IDLE_CONNECTIONS = 200


@pytest.mark.kernel_matrix("sendfile, {suite}")
@each_suite
def test_a_file_goes_out_by_sendfile(connect: Connect, server: Server, suite: str) -> None:
    keyed = tls_stat().get("TlsTxSw", 0)
    assert connect(suite).get("/1048576.bin").body == content(1 << 20)
    assert tls_stat().get("TlsTxSw", 0) - keyed == (1 if server.variant.path == "kernel" else 0)


@pytest.mark.kernel_matrix("requests decrypted by, {suite}")
@each_suite
def test_requests_are_decrypted_by_the_kernel_where_it_can_rekey(
    connect: Connect, server: Server, kernel_tls: KernelTls, record_property: RecordProperty, suite: str
) -> None:
    keyed = tls_stat().get("TlsRxSw", 0)
    client = connect(suite)
    for size in (1, 16384):
        assert client.get(f"/{size}.bin").body == content(size)
    offloaded = server.variant.path == "kernel" and kernel_tls.rekey and "on" in server.variant.options
    assert tls_stat().get("TlsRxSw", 0) - keyed == offloaded
    if "on" in server.variant.options:
        record_property(MARKER, "kernel" if offloaded else "userspace")


@pytest.mark.kernel_matrix("memory of an idle connection")
def test_an_idle_connection_costs_little(
    start_server: Callable[[Variant], Server], variant: Variant, record_property: RecordProperty
) -> None:
    """Nothing of OpenSSL's is kept. The first connections make room that the others need not make again."""
    server = start_server(replace(variant, options=(*variant.options, "--max-connections-per-address", "1000")))
    context = client_context(server)
    # asyncio's selector holds a key and a handle for each connection, which uvloop has no objects for.
    most_kib = (9 if variant.loop == "uvloop" else 10) if variant.path == "kernel" else 12
    with ExitStack() as stack:

        def connect(count: int) -> int:
            for _ in range(count):
                client = stack.enter_context(Client(server, context=context))
                assert client.get("/small.txt").body == SMALL
            return resident_bytes(server.pid)

        before = connect(50)
        after = connect(IDLE_CONNECTIONS)
    assert (after - before) / 1024 / IDLE_CONNECTIONS <= most_kib
    if "on" in variant.options:
        record_property(MARKER, f"under {most_kib} KiB")
