"""A connected TCP pair, and the kernel's abilities for the tests that need them."""

import socket
from collections.abc import Iterator

import pytest

from ktls_server.kernel.probe import KernelTls, probe

SocketPair = tuple[socket.socket, socket.socket]


@pytest.fixture
def tcp_pair() -> Iterator[SocketPair]:
    """Two ends of a loopback connection, with a time-out so that a lost record fails the test at once."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname(), timeout=10) as near,
        listener.accept()[0] as far,
    ):
        far.settimeout(10)
        yield near, far


@pytest.fixture(scope="session")
def kernel_tls(kernel_tls_required: bool) -> KernelTls:
    """What the kernel can; skips, or fails under --ktls-kernel, where it cannot anything."""
    abilities = probe()
    if not abilities.available:
        if kernel_tls_required:
            pytest.fail(f"--ktls-kernel was given, but {abilities.describe()}")
        pytest.skip(f"{abilities.describe()}; covered by `python -m tests.kernels uml`")
    return abilities
