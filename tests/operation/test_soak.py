"""A few seconds of `make soak`, and that it would notice."""

import dataclasses

from tests.operation.running import Place, metric, running, scrape
from tests.operation.soak import Sample, growth, soak
from tests.waiting import eventually_async

IDLE, BUSY = 40, 8


async def test_nothing_grows_while_connections_come_and_go(place: Place) -> None:
    with running(place, "--metrics-port", "0") as server:
        samples = await soak(server, seconds=3, idle=IDLE, busy=BUSY, interval=0.6)
        assert samples[-1].responses > samples[0].responses + 50
        assert all(sample.tasks >= IDLE for sample in samples)
        assert growth(samples, IDLE + BUSY) == []

        def tasks() -> float:
            return metric(scrape(server.metrics_port)[1], "ktls_worker_connection_tasks")

        await eventually_async(lambda: tasks() == 0, "the end of all tasks")
        server.stop()


def test_growth_is_noticed() -> None:
    flat = [Sample(float(second), 50e6, 130, 48, 48, 100.0 * second) for second in range(9)]
    assert growth(flat, 48) == []
    assert [
        line.split(":")[0] for line in growth([dataclasses.replace(s, memory=50e6 + 3e6 * s.seconds) for s in flat], 48)
    ] == ["memory"]
    leaking = [dataclasses.replace(s, tasks=48 + 100 * s.seconds, descriptors=130 + 100 * s.seconds) for s in flat]
    assert [line.split(":")[0] for line in growth(leaking, 48)] == ["tasks", "descriptors"]
