"""Connections opened and cut at random points leave descriptors and memory where they were.

Some hundreds in every run; as many as one likes, and the figures, with

    KTLS_TEST_CUTS=10000 python -m pytest -s tests/tls/test_cuts.py -k random
"""

import os
import random
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from ktls_server.kernel.probe import tls_stat
from tests.server.clients import TLS_1_2, TLS_1_3, client_context
from tests.server.running import Server, Variant
from tests.server.site import SMALL
from tests.tls.conftest import ConnectTo
from tests.tls.wire_client import OpenSslHandshake, get_request
from tests.waiting import WAIT_SECONDS, eventually

CUTS = int(os.environ.get("KTLS_TEST_CUTS", "300"))
ROUNDS = 3
MEMORY_SLACK_KIB = 4096
"""What the process may grow by between two rounds of the same: allocators settle; a leak of a session (30 KiB and more) in each
connection would be far more."""


def resident_kib(pid: int) -> int:
    """VmRSS of /proc/PID/status."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1])


class CuttingClient:
    """Goes through a connection's life and leaves after so many bytes sent, or received, with a FIN or a reset."""

    def __init__(self, port: int, contexts: list[ssl.SSLContext], chance: random.Random) -> None:
        self._port, self._contexts, self._chance = port, contexts, chance

    def cut(self) -> None:
        chance = self._chance
        with socket.create_connection(("127.0.0.1", self._port), timeout=WAIT_SECONDS) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A handshake is about 600 bytes of the client's, a request 100: half of the cuts fall into the handshake.
            self._live(sock, chance.randrange(1200), chance.randrange(6000))
            if chance.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _live(self, sock: socket.socket, may_send: int, may_receive: int) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = self._chance.choice(self._contexts)
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        connected = False
        while True:
            try:
                if not connected:
                    tls.do_handshake()
                    connected = True
                    path = self._chance.choice(["/small.txt", "/big.bin"])
                    tls.write(get_request(path) * 2 + get_request(path, "Connection: close"))
                else:
                    tls.read(65536)
            except ssl.SSLWantReadError:
                pass
            flight = outgoing.read()[:may_send]
            may_send -= len(flight)
            sock.sendall(flight)
            if may_send <= 0 or may_receive <= 0:
                return
            data = sock.recv(min(may_receive, 16384))
            if not data:
                return
            may_receive -= len(data)
            incoming.write(data)


@pytest.mark.kernel_matrix("connections cut at random leave nothing")
def test_cuts_at_random_points_leave_nothing_behind(
    servers: Callable[[Variant], Server], variant: Variant, big: bytes, connect_to: ConnectTo
) -> None:
    server = servers(variant)
    contexts = [client_context(server, version) for version in (TLS_1_2, TLS_1_3)]
    client = CuttingClient(server.port, contexts, random.Random(CUTS))
    before = len(server.descriptors()), resident_kib(server.pid)
    memory = []
    for _ in range(ROUNDS):
        for _ in range(CUTS // ROUNDS):
            client.cut()
        server.assert_unharmed()
        memory.append(resident_kib(server.pid))
    print(f"\n{variant}: {CUTS} cut; descriptors {before[0]}, then {len(server.descriptors())};", end=" ")
    print(f"VmRSS {before[1]} KiB, after each third {memory}")
    assert max(memory[1:]) - memory[0] <= MEMORY_SLACK_KIB, memory
    eventually(
        lambda: tls_stat().get("TlsCurrTxSw", 0) == tls_stat().get("TlsCurrRxSw", 0) == 0,
        "the kernel keeps no keys of connections that are gone",
    )
    assert connect_to(server).get("/small.txt").body == SMALL


@pytest.mark.parametrize("cut_after", [1, 5, 6, 100])
def test_a_handshake_that_stops(servers: Callable[[Variant], Server], variant: Variant, cut_after: int) -> None:
    """Within the record's header, at its end, and in the middle of ClientHello."""
    server = servers(variant)
    hello = OpenSslHandshake(client_context(server)).step(b"")
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_SECONDS) as sock:
        sock.sendall(hello[:cut_after])
    server.assert_unharmed()
