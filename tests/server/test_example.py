"""examples/embed.py, which the README shows: the handshake-and-key part used without the rest."""

import hashlib
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ktls_server import certificates
from ktls_server.kernel.probe import KernelTls, probe, tls_stat

PROJECT = Path(__file__).parents[2]
EXAMPLE = PROJECT / "examples" / "embed.py"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def connected(port: int, process: subprocess.Popen[str]) -> socket.socket:
    """Retries until it listens, for as long as it runs, at most thirty seconds."""
    for _ in range(300):
        assert process.poll() is None, "the example has ended"
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise AssertionError("the example does not listen")


def test_the_example_is_as_short_as_promised() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 40


def test_the_readme_shows_the_example_as_it_is() -> None:
    assert f"```python\n{EXAMPLE.read_text()}```\n" in (PROJECT / "README.md").read_text()


@pytest.mark.kernel_matrix("the README's example, a server of one's own")
def test_the_example_sends_a_file_by_the_kernel_where_it_can(tmp_path: Path, kernel_tls: KernelTls) -> None:
    pair = certificates.development_certificate(tmp_path)
    file = tmp_path / "file"
    content = hashlib.shake_256(b"example").digest(3_000_001)
    file.write_bytes(content)
    keyed_at_first = tls_stat().get("TlsTxSw", 0)
    probe()  # which the example does, too, and the kernel counts
    keyed_before = tls_stat().get("TlsTxSw", 0)
    port = free_port()
    command = [sys.executable, str(EXAMPLE), str(pair.cert), str(pair.key), str(file), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            context = ssl.create_default_context(cafile=pair.cert)
            with context.wrap_socket(connected(port, process), server_hostname="localhost") as client:
                received = bytearray()
                while data := client.recv(65536):
                    received += data
            assert process.stdout is not None
            description = process.stdout.readline()
        finally:
            process.terminate()
    assert received == content
    path = "kernel" if kernel_tls.available else "userspace"
    assert f"transmit_path='{path}'" in description
    if kernel_tls.available:
        keyed_by_a_probe = keyed_before - keyed_at_first
        assert tls_stat()["TlsTxSw"] - keyed_before == keyed_by_a_probe + 1
