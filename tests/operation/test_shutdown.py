"""The end: what has begun is finished, what was asked for is answered, and nobody waits longer than allowed."""

import asyncio
import contextlib
import random
import signal
import socket
import ssl
import time
from functools import partial
from pathlib import Path

import httpx
import pytest

from ktls_server.accesslog import CLOSE_SECONDS
from ktls_server.exchange import DRAIN_SECONDS
from ktls_server.operation.supervisor import ABORT_SECONDS, STOP_MARGIN_SECONDS
from ktls_server.operation.worker import TICK_SECONDS
from tests.operation.running import Connection, Place, Running, connect, metric, running, scrape
from tests.waiting import WAIT_SECONDS, eventually, eventually_async

ESTABLISHED = 1

CLIENTS = 24
ENOUGH_RESPONSES = 1000


class Tally:
    """What all clients got."""

    def __init__(self) -> None:
        self.answered = 0
        self.told_to_close = 0
        self.closed_while_idle = 0
        self.stopped_at = float("inf")

    def count(self, body: bytes, expected: bytes) -> None:
        assert body == expected
        self.answered += 1


async def keep_asking(server: Running, tally: Tally, think_seconds: float) -> None:
    """Ask on one connection until the server says that it closes; an answer that is cut fails the test.

    On a machine so busy that a client thinks for longer than it wants to, the server may close meanwhile, in its time.
    """
    chance = random.Random(think_seconds)
    expected = (server.place.site / "middle.bin").read_bytes()
    connection = await connect(server)
    while True:
        if connection.reader.at_eof():
            assert time.monotonic() > tally.stopped_at + DRAIN_SECONDS - TICK_SECONDS
            tally.closed_while_idle += 1
            connection.abort()
            return
        status, body, closes = await connection.get("/middle.bin")
        assert status == 200
        tally.count(body, expected)
        if closes:
            tally.told_to_close += 1
            connection.abort()
            return
        await asyncio.sleep(chance.uniform(0, think_seconds))


async def keep_asking_by_httpx(server: Running, tally: Tally) -> None:
    """The same by a client that opens connections as it likes: only those may be refused, once the end has begun."""
    expected = (server.place.site / "middle.bin").read_bytes()
    async with httpx.AsyncClient(verify=server.context, base_url=f"https://localhost:{server.port}") as client:
        while True:
            try:
                response = await client.get("/middle.bin")
            except httpx.ConnectError:
                assert time.monotonic() > tally.stopped_at, "refused although nobody asked the server to stop"
                return
            tally.count(response.content, expected)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_no_response_is_cut_when_the_server_is_stopped_under_load(place: Place, loop: str, workers: str) -> None:
    with running(place, "--loop", loop, "--workers", workers) as server:
        tally = Tally()
        # From clients that never pause to those that pause for half of the time that an idle connection is left.
        clients = [keep_asking(server, tally, 0.5 * number / CLIENTS) for number in range(CLIENTS)]
        clients += [keep_asking_by_httpx(server, tally) for _ in range(4)]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client)
            await eventually_async(lambda: tally.answered >= ENOUGH_RESPONSES, f"{ENOUGH_RESPONSES} responses")
            tally.stopped_at = time.monotonic()
            server.signal(signal.SIGTERM)
        assert tally.told_to_close + tally.closed_while_idle == CLIENTS
        assert await asyncio.to_thread(server.wait) == 0, server.errors()
        assert server.errors() == ""


async def begin_large_download(server: Running) -> Connection:
    connection = await connect(server)
    connection.ask("/large.bin")
    assert await connection.reader.readexactly(12) == b"HTTP/1.1 200"
    return connection


@pytest.mark.parametrize(("loop", "workers"), [("asyncio", "1"), ("uvloop", "2")])
async def test_a_download_goes_on_to_its_end_while_newcomers_are_refused(place: Place, loop: str, workers: str) -> None:
    with running(place, "--loop", loop, "--workers", workers, "--grace", "60") as server:
        download = await begin_large_download(server)
        server.signal(signal.SIGTERM)

        async def refused() -> None:
            while True:
                with contextlib.suppress(ssl.SSLError, ConnectionResetError):
                    (await connect(server)).abort()
                await asyncio.sleep(0.02)

        with pytest.raises(ConnectionRefusedError):
            await asyncio.wait_for(refused(), 30)
        received = len(await download.reader.read())
        assert received > (place.site / "large.bin").stat().st_size
        download.abort()
        assert await asyncio.to_thread(server.wait) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_download_is_cut_when_the_grace_period_is_over(place: Place, workers: str) -> None:
    with running(place, "--workers", workers, "--grace", "0.5") as server:
        download = await begin_large_download(server)
        server.signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.wait) == 0
        assert server.errors() == ""
        download.abort()


@pytest.mark.parametrize(("workers", "number"), [("1", signal.SIGINT), ("2", signal.SIGTERM)])
async def test_a_second_signal_ends_the_server_at_once(place: Place, workers: str, number: signal.Signals) -> None:
    # Without it the download would hold the server for an hour.
    with running(place, "--workers", workers, "--grace", "3600") as server:
        download = await begin_large_download(server)
        idle = await connect(server)
        server.signal(number)
        assert await idle.closed()
        assert server.process.poll() is None
        server.signal(number)
        assert await asyncio.to_thread(server.wait) == 0
        assert server.errors() == ""
        download.abort()


async def test_an_idle_connection_may_still_ask_once_after_the_signal(place: Place, loop: str) -> None:
    asked_in_time = False
    while not asked_in_time:  # again where this machine was too busy to ask within the second that there is
        with running(place, "--loop", loop) as server:
            connection = await connect(server)
            assert (await connection.get("/hello.txt"))[1:] == (b"hello", False)
            signalled = time.monotonic()
            server.signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            connection.ask("/hello.txt")
            asked_in_time = time.monotonic() - signalled < DRAIN_SECONDS / 2
            if asked_in_time:
                assert (await connection.answer())[1:] == (b"hello", True)
            assert await connection.closed()
            connection.abort()
            assert await asyncio.to_thread(server.wait) == 0


def test_closing_the_log_fits_into_the_patience_of_the_supervisor() -> None:
    """Whose reader takes nothing must not look like a worker that hangs."""
    assert CLOSE_SECONDS < ABORT_SECONDS < STOP_MARGIN_SECONDS


def tcp_state(server: Running, client_port: int) -> int:
    """Of the server's end of a connection, as /proc/net/tcp has it (the kernel's net/tcp_states.h); 0 where it is gone."""
    wanted = f":{server.port:04X}", f":{client_port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _number, local, remote, state, *_rest = line.split()
        if (local[8:], remote[8:]) == wanted:
            return int(state, 16)
    return 0


def test_what_the_client_has_not_read_yet_survives_that_it_sends_more(place: Place, loop: str) -> None:
    """A client that pipelines: its second request comes when the server has closed, and the first answer is on its way."""
    with running(place, "--loop", loop, "--metrics-port", "0") as server, socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that the server's send buffer holds the rest
        plain.settimeout(WAIT_SECONDS)
        plain.connect(("127.0.0.1", server.port))
        with server.context.wrap_socket(plain, server_hostname="localhost") as client:
            request = b"GET /middle.bin HTTP/1.1\r\nHost: localhost\r\n\r\n"
            client.sendall(request)
            client_port = client.getsockname()[1]
            responses = partial(metric, name="ktls_responses_total", status="200")
            eventually(lambda: responses(scrape(server.metrics_port)[1]) == 1, "all of it in the send buffer")
            server.signal(signal.SIGTERM)
            eventually(lambda: tcp_state(server, client_port) != ESTABLISHED, "the end of the connection")
            client.sendall(request)
            received = b""
            while data := client.recv(65536):
                received += data
        assert received.partition(b"\r\n\r\n")[2] == (place.site / "middle.bin").read_bytes()
        assert server.wait() == 0, server.errors()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_signals_until_the_very_end_do_not_change_the_exit_status(place: Place, loop: str, workers: str) -> None:
    with running(place, "--workers", workers, "--loop", loop) as server:
        while server.process.poll() is None:
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.001)
        assert server.process.returncode == 0
        assert "Traceback" not in server.errors()
