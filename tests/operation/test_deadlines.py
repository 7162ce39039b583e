"""What a look at the time limits decides, for one connection whose clock is the test's."""

import asyncio
import socket
from collections.abc import AsyncIterator
from functools import partial
from types import SimpleNamespace
from typing import cast

import pytest

from ktls_server.connection import Connection, Service, Stage
from ktls_server.counters import Counters
from ktls_server.settings import Settings
from tests.waiting import eventually_async

SECONDS = 30
RATE = 500


class Download:
    """A connection in the middle of a response, the client that takes what comes, and the time."""

    def __init__(self, near: socket.socket, far: socket.socket, loop: asyncio.AbstractEventLoop, min_rate: int) -> None:
        service = SimpleNamespace(
            settings=Settings(send_timeout=SECONDS, min_rate=min_rate),
            now=1000.0,
            draining=False,
            counters=Counters(),
            stages={stage: {} for stage in Stage},
        )
        service.time_limit = partial(Service.time_limit, cast(Service, service))
        self.service = cast(Service, service)
        self._near, self._far = near, far
        self.connection = Connection(self.service, near, "192.0.2.1", loop)
        for stage in (Stage.IDLE, Stage.RESPONSE):
            self.connection._enter(stage)

    async def takes(self, count: int) -> None:
        """`count` more bytes are sent, and acknowledged."""
        channel = self.connection._channel
        expected = channel.bytes_acknowledged() + count
        self._near.sendall(bytes(count))
        await eventually_async(lambda: channel.bytes_acknowledged() == expected, "the acknowledgement")

    def look(self, seconds: float) -> bool:
        """Look at the time limits after so many seconds; whether the connection still stands."""
        self.service.now += seconds
        self.connection.check_deadline()
        return not self.connection._channel.closed


@pytest.fixture(params=[RATE])
async def download(request: pytest.FixtureRequest) -> AsyncIterator[Download]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _address = listener.accept()
    near.setblocking(False)
    made = Download(near, far, asyncio.get_running_loop(), request.param)
    yield made
    made.connection.release()
    far.close()


async def test_whoever_takes_the_minimum_rate_is_never_cut(download: Download) -> None:
    for _ in range(5):
        await download.takes(RATE * SECONDS)
        assert download.look(SECONDS)
    assert not download.service.counters.timeouts


async def test_whoever_takes_a_byte_less_than_the_minimum_rate_is_cut(download: Download) -> None:
    await download.takes(RATE * SECONDS)
    assert download.look(SECONDS)
    await download.takes(RATE * SECONDS - 1)
    assert download.look(SECONDS - 1), "its time is not over"
    assert not download.look(1)
    assert download.service.counters.timeouts == {"response": 1}


@pytest.mark.parametrize("download", [0], indirect=True)
async def test_without_a_minimum_rate_only_silence_is_cut(download: Download) -> None:
    await download.takes(1)
    assert download.look(SECONDS)
    assert not download.look(SECONDS)
    assert download.service.counters.timeouts == {"response": 1}
