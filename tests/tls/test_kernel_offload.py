"""Who encrypts and who decrypts, by the kernel's own count, for every cipher that it is asked for."""

from collections.abc import Callable

import pytest

from ktls_server.kernel.probe import KernelTls, statistics
from tests.kernels.matrix import MARKER
from tests.server.running import Server
from tests.server.site import content
from tests.tls.conftest import Connect
from tests.tls.wire_client import TLS12_SUITES, TLS13_SUITES

each_suite = pytest.mark.parametrize("suite", [*TLS12_SUITES, *TLS13_SUITES])

RecordProperty = Callable[[str, object], None]


@pytest.mark.kernel_matrix("sendfile, {suite}")
@each_suite
def test_a_file_goes_out_by_sendfile(connect: Connect, server: Server, suite: str) -> None:
    keyed = statistics().get("TlsTxSw", 0)
    assert connect(suite).get("/1048576.bin").body == content(1 << 20)
    assert statistics().get("TlsTxSw", 0) - keyed == (1 if server.variant.path == "kernel" else 0)


@pytest.mark.kernel_matrix("requests decrypted by, {suite}")
@each_suite
def test_requests_are_decrypted_by_the_kernel_where_it_can_rekey(
    connect: Connect, server: Server, kernel_tls: KernelTls, record_property: RecordProperty, suite: str
) -> None:
    keyed = statistics().get("TlsRxSw", 0)
    client = connect(suite)
    for size in (1, 16384):
        assert client.get(f"/{size}.bin").body == content(size)
    offloaded = server.variant.path == "kernel" and kernel_tls.rekey and "off" not in server.variant.options
    assert statistics().get("TlsRxSw", 0) - keyed == offloaded
    if "off" not in server.variant.options:
        record_property(MARKER, "kernel" if offloaded else "OpenSSL")
