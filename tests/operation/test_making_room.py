"""Places: who goes for whom, and that a place that was given away counts once."""

import asyncio

from tests.operation.test_plain_http import GET, exchange, serving
from tests.waiting import eventually_async


async def test_places_stay_as_many_however_often_somebody_made_room() -> None:
    """What was evicted is forgotten with its end: else each one that ever went would make the house larger."""
    async with serving(connections=4) as server:
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
        await eventually_async(lambda: server.counters.accepted == 20, "all were let in")
        await eventually_async(lambda: server.all.tasks <= 5, "the others had to go")
        assert server.counters.refused["idle_evicted"] >= 15
        for _ in range(20):
            assert (await exchange(server, GET)).endswith(b"hello")
            assert server.all.tasks <= 6
        for _reader, writer in silent:
            writer.transport.abort()
