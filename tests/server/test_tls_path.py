"""Who encrypts, seen from outside: the kernel's own counters, the access log, the memory of the server process."""

import os
import select
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ktls_server.kernel.probe import KernelTls
from ktls_server.keys.suites import CipherKind
from tests.server.clients import TLS_1_2, TLS_1_3, VERSION_NAMES, Client, client_context, connected, request
from tests.server.running import KeyedSockets, Server, Variant
from tests.server.site import SMALL, content
from tests.waiting import WAIT_SECONDS

MEBIBYTE = 1 << 20
AES_128, CCM, CBC = "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-CCM", "ECDHE-ECDSA-AES128-SHA256"

each_version = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=VERSION_NAMES.get)


def test_the_kernel_has_every_cipher_or_none(kernel_tls: KernelTls) -> None:
    """A kernel to test on has to take all three: else the kernel path of the other tests would not be the kernel's."""
    ciphers = {kind for kind, _version in kernel_tls.transmit_abilities}
    assert ciphers == (set(CipherKind) if kernel_tls.available else set())


def test_the_announcement_tells_the_path_and_why(server: Server, kernel_tls: KernelTls) -> None:
    if server.variant.path == "kernel":
        assert server.facts["tls"] == kernel_tls.describe()
        assert server.facts["tls"].startswith("kernel TLS: AES-128-GCM")
    else:
        assert server.facts["tls"] == "userspace: switched off (--ktls off)"


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_cipher_that_the_kernel_lacks_falls_back_while_its_neighbours_stay_in_the_kernel(
    start_server: Callable[[Variant], Server], path: str, loop: str
) -> None:
    server = start_server(Variant(path, loop, ("--ciphers", f"{AES_128}:{CCM}:{CBC}")))
    keyed = KeyedSockets()
    expected = {AES_128: path, CCM: "userspace", CBC: "userspace"}
    with ExitStack() as stack:
        clients = {name: stack.enter_context(connected(server, TLS_1_2, name)) for name in expected}
        for _ in range(2):
            for name, client in clients.items():
                client.send(request(f"/1048576.bin?{name}"))
            for client in clients.values():
                assert client.answer().body == content(MEBIBYTE)
    keyed.expect_transmit(server, 1)
    for name, tx in expected.items():
        assert [(line["cipher"], line["tx"]) for line in server.logged(f"/1048576.bin?{name}", 2)] == [(name, tx)] * 2


@each_version
def test_a_session_is_resumed_and_byte_exact(server: Server, version: ssl.TLSVersion) -> None:
    context = client_context(server, version)
    keyed = KeyedSockets()
    with Client(server, context=context) as first:
        assert not first.tls.session_reused
        assert first.get("/small.txt").body == SMALL
        session = first.tls.session  # in TLS 1.3 the ticket comes after the handshake, before the answer
    for _ in range(2):
        with Client(server, context=context, session=session) as again:
            assert again.tls.session_reused
            assert again.get("/1048576.bin").body == content(MEBIBYTE)
            assert again.get("/16385.bin").body == content(16385)
            session = again.tls.session
    keyed.expect_transmit(server, 3)


def test_tickets_do_not_wait_for_the_first_request(server: Server) -> None:
    """They carry the acknowledgement of the client's Finished, which Nagle's algorithm has it wait for."""
    with connected(server, TLS_1_3) as client:
        readable, _writable, _broken = select.select([client.tls], [], [], WAIT_SECONDS)
        assert readable == [client.tls]
        assert client.get("/small.txt").body == SMALL


@each_version
def test_requests_are_decrypted_by_the_kernel_only_where_key_updates_can_be_followed(
    server: Server, kernel_tls: KernelTls, version: ssl.TLSVersion
) -> None:
    keyed = KeyedSockets()
    with connected(server, version) as client:
        for size in (1, 16384, MEBIBYTE):
            assert client.get(f"/{size}.bin").body == content(size)
        keyed.expect_receive(int(server.variant.path == "kernel" and kernel_tls.rekey))


@each_version
def test_ktls_rx_off_leaves_requests_to_openssl(
    start_server: Callable[[Variant], Server], path: str, version: ssl.TLSVersion
) -> None:
    server = start_server(Variant(path, "uvloop", ("--ktls-rx", "off")))
    keyed = KeyedSockets()
    with connected(server, version) as client:
        client.send(b"".join(request(f"/{size}.bin") for size in (1, 16384, MEBIBYTE)))
        for size in (1, 16384, MEBIBYTE):
            assert client.answer().body == content(size)
    keyed.expect_transmit(server, 1)
    keyed.expect_receive(0)


@each_version
def test_on_the_kernel_path_no_byte_of_a_file_enters_the_process(
    server: Server, marked_file: tuple[str, bytes], version: ssl.TLSVersion
) -> None:
    """The file is one marker over and over, so whoever reads any of it, by whatever call, leaves the marker in memory.

    The download is held up half way: what is being sent is in hand then. That the marker is found on the userspace path
    shows that the search works.
    """
    path, marker = marked_file
    with Client(server, context=client_context(server, version), receive_buffer=65536) as client:
        client.send(request(path))
        head = client.answer_head()
        half = int(head.headers["content-length"]) // 2
        received = client.read(half)
        in_memory = memory_holds(server.pid, marker)
        received += client.read(half)
    assert received == marker * (2 * half // len(marker))
    assert in_memory == (server.variant.path == "userspace")
    if server.variant.path == "kernel":
        assert not memory_holds(server.pid, marker)


@pytest.fixture
def marked_file(server: Server) -> Iterator[tuple[str, bytes]]:
    """16 MiB, more than the socket buffers hold, of one random marker; its path and the marker."""
    marker = os.urandom(32)
    file = server.directory / f"marked-{marker.hex()}.bin"
    file.write_bytes(marker * (16 * MEBIBYTE // len(marker)))
    yield f"/{file.name}", marker
    file.unlink()


def memory_holds(pid: int, needle: bytes) -> bool:
    """Whether any readable memory of a process holds `needle`."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if not rights.startswith("r") or line.endswith(("[vvar]", "[vvar_vclock]", "[vsyscall]")):
                continue
            start, end = (int(address, 16) for address in span.split("-"))
            memory.seek(start)
            if needle in memory.read(end - start):
                return True
    return False
