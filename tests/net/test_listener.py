"""The accept loop: shortages pause it, a stop lets in what the kernel has completed, nothing is accepted after that."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator

import pytest

from ktls_server.net import listener as listener_module
from ktls_server.net import listening
from ktls_server.net.listener import ACCEPTS_PER_WAKE_UP, Listener
from tests.waiting import eventually_async


class FailingSocket:
    """A listening socket whose next accepts fail."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.failures: list[int] = []
        self.accepts = 0

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        self.accepts += 1
        if self.failures:
            code = self.failures.pop(0)
            raise OSError(code, os.strerror(code))
        return self._sock.accept()

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()


class House:
    """A listener and those who are let in."""

    def __init__(self) -> None:
        (sock,) = listening.bind("127.0.0.1", 0)
        self.address = sock.getsockname()
        self.sock = FailingSocket(sock)
        self.room = 1000
        self.accepted: list[socket.socket] = []
        self.addresses: list[str] = []
        self.shortages = self.pauses = 0
        self.clients: list[socket.socket] = []
        self.listener = Listener(
            [self.sock],  # type: ignore[list-item]
            asyncio.get_running_loop(),
            self._welcome,
            self._has_room,
            self._on_shortage,
            self._on_pause,
        )

    def _welcome(self, sock: socket.socket, address: str) -> None:
        self.accepted.append(sock)
        self.addresses.append(address)

    def _has_room(self) -> bool:
        return len(self.accepted) < self.room

    def _on_shortage(self) -> None:
        self.shortages += 1

    def _on_pause(self) -> None:
        self.pauses += 1

    def knock(self) -> None:
        """A client whose connection the kernel completes."""
        self.clients.append(socket.create_connection(self.address, timeout=10))

    async def expect(self, count: int) -> None:
        await eventually_async(lambda: len(self.accepted) == count, f"{count} are let in")

    def close(self) -> None:
        for sock in (*self.accepted, *self.clients):
            sock.close()
        self.listener.stop()


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(listener_module, "PAUSE_SECONDS", 0.01)
    house = House()
    yield house
    house.close()


async def test_accepted_sockets_do_not_block_and_do_not_wait_for_more(house: House) -> None:
    house.listener.start()
    house.knock()
    await house.expect(1)
    assert house.accepted[0].getblocking() is False
    assert house.accepted[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    assert house.addresses == ["127.0.0.1"]


async def test_an_ipv4_client_of_a_listener_to_both_has_its_ipv4_address(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    real = house.sock.accept

    def accept() -> tuple[socket.socket, tuple[str, int]]:
        sock, (address, port) = real()
        return sock, (f"::ffff:{address}", port)

    monkeypatch.setattr(house.sock, "accept", accept)
    house.listener.start()
    house.knock()
    await house.expect(1)
    assert house.addresses == ["127.0.0.1"]
    house.close()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_a_shortage_pauses_and_then_all_are_let_in(
    house: House, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    house.sock.failures = [code] * 3
    for _ in range(3):
        house.knock()
    house.listener.start()
    await house.expect(3)
    assert house.shortages == house.pauses == 3
    (line,) = caplog.messages
    assert "ulimit -n" in line


async def test_a_shortage_asks_for_room_and_stops_asking_the_socket_meanwhile(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "PAUSE_SECONDS", 1000)
    house.sock.failures = [errno.EMFILE] * 1000
    house.listener.start()
    house.knock()
    await eventually_async(lambda: house.pauses == 1, "a pause")
    for _ in range(20):
        await asyncio.sleep(0)
    assert house.sock.accepts == 1


async def test_another_error_is_logged_and_ends_nothing(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.sock.failures = [errno.EPERM, errno.EPERM]
    house.listener.start()
    house.knock()
    await house.expect(1)
    assert house.shortages == house.pauses == 0
    (line,) = caplog.messages
    assert "ulimit" not in line


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EAGAIN, errno.EINTR])
async def test_a_client_that_left_again_is_nobodys_fault(
    house: House, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    house.sock.failures = [code]
    house.listener.start()
    house.knock()
    await house.expect(1)
    assert house.pauses == 0
    assert caplog.messages == []


async def test_without_room_nothing_is_accepted_until_there_is(house: House) -> None:
    house.room = 2
    for _ in range(4):
        house.knock()
    house.listener.start()
    await eventually_async(lambda: house.pauses >= 2, "it asks again")
    assert len(house.accepted) == 2
    house.room = 4
    await house.expect(4)


async def test_the_others_get_their_turn_between_many(house: House) -> None:
    for _ in range(3 * ACCEPTS_PER_WAKE_UP):
        house.knock()
    counts: list[int] = []
    house.listener.start()
    while len(house.accepted) < 3 * ACCEPTS_PER_WAKE_UP:
        await asyncio.sleep(0)
        counts.append(len(house.accepted))
    assert {ACCEPTS_PER_WAKE_UP, 2 * ACCEPTS_PER_WAKE_UP} <= set(counts)


async def test_a_stop_lets_in_what_the_kernel_has_completed(house: House) -> None:
    """However many they are, started or not: their clients believe that they are connected."""
    for _ in range(2 * ACCEPTS_PER_WAKE_UP):
        house.knock()
    house.listener.stop()
    assert len(house.accepted) == 2 * ACCEPTS_PER_WAKE_UP


async def test_nothing_is_accepted_after_a_stop(house: House) -> None:
    house.listener.start()
    house.listener.stop()
    with socket.socket() as late:
        assert late.connect_ex(house.address) == errno.ECONNREFUSED
    house.listener.start()
    await asyncio.sleep(0.05)
    assert house.accepted == []


async def test_a_pause_that_a_stop_meets_does_not_start_again(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.room = 0
    house.listener.start()
    house.knock()
    await eventually_async(lambda: house.pauses >= 1, "a pause")
    house.listener.stop()
    pauses, accepts = house.pauses, house.sock.accepts
    await asyncio.sleep(0.05)
    assert (house.pauses, house.sock.accepts) == (pauses, accepts)
    assert house.accepted == []
    assert caplog.messages == [], "a loop that calls into a closed listener would say so"


def test_a_descriptor_of_a_listener_is_given_back() -> None:
    async def run() -> int:
        house = House()
        descriptor = house.sock.fileno()
        house.listener.start()
        house.close()
        return descriptor

    descriptor = asyncio.run(run())
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
