"""What a look at the time limits decides, for one connection whose clock is the test's."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from ktls_server.accesslog import LoggedConnection
from ktls_server.connection import Connection
from ktls_server.counters import Counters
from ktls_server.exchange import LINGER_SECONDS, HttpVersion, Service, Stage
from ktls_server.net.channel import Channel
from ktls_server.net.deadlines import BUCKET_SECONDS
from ktls_server.operation.client_counts import ClientCounts
from ktls_server.operation.connections import Connections
from ktls_server.operation.plain import refuse, text
from ktls_server.settings import Settings
from ktls_server.transport.interface import Transport
from tests.waiting import eventually_async

SECONDS = 30
RATE = 500


class Clock:
    """Stands for `time.monotonic`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The server's modules read this clock; the event loop goes on with its own."""
    clock = Clock()
    stand_in = SimpleNamespace(monotonic=clock, perf_counter=time.perf_counter)
    for module in ("connection", "exchange", "operation.connections"):
        monkeypatch.setattr(f"ktls_server.{module}.time", stand_in)
    return clock


class Client:
    """A connection in one stage, the client at its other end, and the time."""

    def __init__(self, near: socket.socket, far: socket.socket, clock: Clock, min_rate: int) -> None:
        loop = asyncio.get_running_loop()
        self.service = Service(
            settings=Settings(send_timeout=SECONDS, min_rate=min_rate, keepalive_timeout=SECONDS, head_timeout=SECONDS),
            handler=lambda _request, _client: text(200, b""),
            refuse=refuse,
            counters=Counters(),
            responses=Counter(),
            body_bytes=Counter(),
            access_log=None,
        )
        self._near, self.far = near, far
        self._clock = clock
        self._all = Connections(self.service, self._never_begin, [], loop, ClientCounts(workers=1))
        self.connection = Connection(self.service, self._never_begin, near, "192.0.2.1", loop)
        self.timeouts = self.service.counters.timeouts

    async def _never_begin(self, _address: str, _channel: Channel) -> tuple[Transport, LoggedConnection, HttpVersion]:
        raise AssertionError("this connection is driven by hand")

    def enters(self, *stages: Stage) -> None:
        for stage in stages:
            self.connection.enter(stage)

    async def takes(self, count: int) -> None:
        """`count` more bytes are sent, and acknowledged."""
        channel = self.connection._channel
        expected = channel.bytes_acknowledged() + count
        self._near.sendall(bytes(count))
        await eventually_async(lambda: channel.bytes_acknowledged() == expected, "the acknowledgement")

    async def says(self, data: bytes) -> None:
        """`data` has come, and nobody has read it."""
        self.far.sendall(data)
        await eventually_async(self.connection._channel.has_unread_bytes, "the bytes")

    def look(self, seconds: float) -> bool:
        """Look at the time limits after so many seconds; whether the connection still stands.

        The clock stands at the beginning of a bucket: what is over after full seconds is seen one bucket later.
        """
        self._clock.now += seconds
        self._all.check_deadlines()
        return not self.connection._channel.closed

    def is_interrupted(self) -> bool:
        return self.connection._channel.interrupted


@pytest.fixture(params=[RATE])
async def client(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Client]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _address = listener.accept()
    near.setblocking(False)
    made = Client(near, far, clock, request.param)
    yield made
    made.connection.release()
    far.close()


@pytest.fixture
def download(client: Client) -> Client:
    """A client in the middle of a response."""
    client.enters(Stage.IDLE, Stage.RESPONSE)
    return client


async def test_whoever_takes_the_minimum_rate_is_never_cut(download: Client) -> None:
    for _ in range(5):
        await download.takes(RATE * SECONDS)
        assert download.look(SECONDS + BUCKET_SECONDS)
    assert not download.timeouts


async def test_whoever_takes_a_byte_less_than_the_minimum_rate_is_cut(download: Client) -> None:
    await download.takes(RATE * SECONDS)
    assert download.look(SECONDS + BUCKET_SECONDS)
    await download.takes(RATE * SECONDS - 1)
    assert download.look(SECONDS - 1), "its time is not over"
    assert not download.look(1 + BUCKET_SECONDS)
    assert download.timeouts == {"response": 1}


@pytest.mark.parametrize("client", [0], indirect=True)
async def test_without_a_minimum_rate_only_silence_is_cut(download: Client) -> None:
    await download.takes(1)
    assert download.look(SECONDS + BUCKET_SECONDS)
    assert not download.look(SECONDS + BUCKET_SECONDS)
    assert download.timeouts == {"response": 1}


async def test_progress_of_a_response_is_counted_from_its_own_beginning(download: Client) -> None:
    """What the client took of the response before buys it no time."""
    await download.takes(RATE * SECONDS)
    download.enters(Stage.IDLE, Stage.RESPONSE)
    assert download.look(SECONDS - 1)
    assert not download.look(1 + BUCKET_SECONDS)
    assert download.timeouts == {"response": 1}


async def test_an_idle_connection_is_interrupted_at_its_deadline_and_not_before(client: Client) -> None:
    client.enters(Stage.IDLE)
    assert client.look(SECONDS - 0.01)
    assert not client.is_interrupted()
    assert client.look(0.01 + BUCKET_SECONDS)
    assert client.is_interrupted()
    assert client.timeouts == {"idle": 1}


async def test_an_idle_connection_with_an_unread_request_gets_a_moment_and_no_more(client: Client) -> None:
    client.enters(Stage.IDLE)
    await client.says(b"GET / HTTP/1.1\r\n")
    client.look(SECONDS + BUCKET_SECONDS)
    assert not client.is_interrupted()
    assert not client.timeouts
    client.look(2)
    assert client.is_interrupted()
    assert client.timeouts == {"idle": 1}


async def test_a_head_that_takes_too_long_is_interrupted_however_much_of_it_comes(client: Client) -> None:
    client.enters(Stage.IDLE, Stage.REQUEST)
    await client.says(b"GET / HTTP/1.1\r\n")
    client.look(SECONDS + BUCKET_SECONDS)
    assert client.is_interrupted()
    assert client.timeouts == {"request": 1}


async def test_what_was_interrupted_and_does_not_end_is_reset_and_counted_once(client: Client) -> None:
    client.enters(Stage.IDLE)
    client.look(SECONDS + BUCKET_SECONDS)
    assert not client.look(2)
    assert client.timeouts == {"idle": 1}


async def test_after_a_stall_the_time_of_a_stage_counts_from_its_beginning(client: Client, clock: Clock) -> None:
    """The loop was held for longer than the limit: what begins then has all of its time."""
    client.enters(Stage.IDLE)
    clock.now += 10 * SECONDS
    client.enters(Stage.CLOSING)
    client.look(LINGER_SECONDS - 0.01)
    assert not client.timeouts
    client.look(0.01 + BUCKET_SECONDS)
    assert client.timeouts == {"closing": 1}


async def test_a_client_that_does_not_read_what_it_made_us_say_has_the_time_of_a_response(client: Client) -> None:
    client.enters(Stage.IDLE)
    client.connection._on_blocked(True)
    assert client.look(SECONDS / 2)
    client.connection.deadline += 10 * SECONDS  # requests go on
    assert client.look(SECONDS / 2 - 0.01)
    assert not client.look(0.01 + BUCKET_SECONDS)
    assert client.timeouts == {"posts": 1}
    client.connection.release()
    assert len(client.service.blocked) == 0


async def test_a_client_that_reads_in_time_is_watched_no_longer(client: Client) -> None:
    client.enters(Stage.IDLE)
    client.connection._on_blocked(True)
    client.look(SECONDS - 1)
    client.connection._on_blocked(False)
    client.connection.deadline += 10 * SECONDS
    assert client.look(SECONDS)
    assert not client.timeouts
