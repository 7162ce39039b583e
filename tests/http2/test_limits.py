"""Attacks: each ends its connection with ENHANCE_YOUR_CALM and a label, what is ordinary does not, and nothing grows."""

from collections.abc import Callable

import pytest

from ktls_server.http2 import limits
from ktls_server.http2.endpoint import Endpoint
from ktls_server.http2.events import ConnectionFailed
from ktls_server.http2.faults import ConnectionFault
from ktls_server.http2.limits import Budget, Budgets
from tests.http2 import wire

POST = wire.POST


def streams(number: int) -> int:
    return 2 * number + 1


def rapid_reset(number: int) -> bytes:
    """CVE-2023-44487."""
    return wire.headers(streams(number)) + wire.rst_stream(streams(number))


def made_you_reset(number: int) -> bytes:
    """CVE-2025-8671: a frame that makes the server reset a stream that it works for."""
    return wire.headers(streams(number)) + wire.window_update(streams(number), 0)


def malformed(number: int) -> bytes:
    return wire.headers(streams(number), [])


def closed_data(number: int) -> bytes:
    """Data on streams that ended."""
    return wire.headers(streams(number)) + wire.rst_stream(streams(number)) + wire.data(streams(number))


def pings(number: int) -> bytes:
    return wire.ping()


def settings(number: int) -> bytes:
    return wire.settings()


def empty_data(number: int) -> bytes:
    """CVE-2019-9518."""
    return wire.data(1, b"") if number else wire.headers(1, POST, end=False)


def padding(number: int) -> bytes:
    return wire.data(1, b"", pad=20) if number else wire.headers(1, POST, end=False)


def window_updates(number: int) -> bytes:
    return wire.window_update(0, 1)


def closed_window_updates(number: int) -> bytes:
    return wire.window_update(1, 1) if number else wire.headers(1) + wire.rst_stream(1)


def priorities(number: int) -> bytes:
    return wire.priority(streams(number))


def priority_updates(number: int) -> bytes:
    """Churn of one stream's priority."""
    return wire.priority_update(1, b"u=%d" % (number % 8)) if number else wire.headers(1)


def unknown(number: int) -> bytes:
    return wire.frame(77, 0, 0)


def goaways(number: int) -> bytes:
    return wire.goaway()


def closed_resets(number: int) -> bytes:
    return wire.rst_stream(1)


FLOODS: list[tuple[Callable[[int], bytes], Budget]] = [
    (rapid_reset, limits.RESETS),
    (made_you_reset, limits.FORCED_RESETS),
    (malformed, limits.FORCED_RESETS),
    (closed_data, limits.RESETS),
    (pings, limits.PINGS),
    (settings, limits.SETTINGS),
    (empty_data, limits.EMPTY_DATA),
    (padding, limits.EMPTY_DATA),
    (window_updates, limits.WINDOW_UPDATES),
    (closed_window_updates, limits.WINDOW_UPDATES),
    (priorities, limits.PRIORITIES),
    (priority_updates, limits.PRIORITIES),
    (unknown, limits.IGNORED),
    (goaways, limits.IGNORED),
    (closed_resets, limits.RESETS),
]


def failure(endpoint: Endpoint, data: bytes, now: float = 0.0) -> ConnectionFailed | None:
    events = endpoint.receive(data, now)
    endpoint.take_output()
    return events[-1] if events and isinstance(events[-1], ConnectionFailed) else None


@pytest.mark.parametrize(("flood", "budget"), FLOODS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_flood_ends_the_connection(flood: Callable[[int], bytes], budget: Budget) -> None:
    endpoint = wire.connected()
    if flood is closed_resets:
        budget = limits.IGNORED
        endpoint.receive(wire.headers(1) + wire.rst_stream(1), 0.0)
    for number in range(2 * budget.burst):
        failed = failure(endpoint, flood(number))
        if failed is not None:
            break
    assert failed is not None
    assert (wire.CODES[failed.code], failed.label) == ("ENHANCE_YOUR_CALM", budget.label)
    assert budget.burst - 1 <= number <= budget.burst + 1
    assert endpoint.open_streams <= 1


@pytest.mark.parametrize(("flood", "budget"), FLOODS, ids=lambda value: getattr(value, "__name__", ""))
def test_as_much_as_the_budget_has_is_taken_for_ever(flood: Callable[[int], bytes], budget: Budget) -> None:
    endpoint = wire.connected()
    if flood is closed_resets:
        endpoint.receive(wire.headers(1) + wire.rst_stream(1), 0.0)
    for number in range(2 * budget.burst):
        now = number / budget.per_second
        if flood in (empty_data, padding) and number:
            endpoint.give_back(1, 0)
        assert failure(endpoint, flood(number), now) is None
    assert len(endpoint._closed) <= limits.MAX_CLOSED_STREAMS


def test_ordinary_requests_cost_no_budget() -> None:
    endpoint = wire.connected()
    for number in range(5000):
        stream = streams(number)
        assert failure(endpoint, wire.headers(stream)) is None
        endpoint.send_headers(stream, b"\x88", end_stream=False)
        endpoint.data_header(stream, 0, end_stream=True)
    assert set(endpoint._budgets._levels) == {limits.SETTINGS.label}
    assert endpoint.open_streams == 0
    assert len(endpoint._closed) == limits.MAX_CLOSED_STREAMS


def test_window_updates_are_earned_by_data_and_by_requests() -> None:
    endpoint = wire.connected()
    failure(endpoint, wire.headers(1) + wire.window_update(0, 2**30) + wire.window_update(1, 2**30))
    endpoint.send_headers(1, b"\x88", end_stream=False)
    for _ in range(5000):
        endpoint.data_header(1, 4096, end_stream=False)
        assert failure(endpoint, wire.window_update(0, 4096) + wire.window_update(1, 4096)) is None
    for number in range(1, 12_000):
        stream = streams(number)
        updates = wire.window_update(stream, 1) + wire.window_update(0, 1)
        assert failure(endpoint, wire.headers(stream) + updates) is None
        endpoint.send_headers(stream, b"\x88", end_stream=True)


def test_continuation_flood_by_frames() -> None:
    """CVE-2024-27316: a field block that never ends."""
    endpoint = wire.connected()
    assert failure(endpoint, wire.headers(1, end_headers=False)) is None
    for _ in range(limits.MAX_CONTINUATIONS):
        assert failure(endpoint, wire.continuation(1, end_headers=False)) is None
    failed = failure(endpoint, wire.continuation(1, end_headers=False))
    assert failed is not None
    assert (wire.CODES[failed.code], failed.label) == ("ENHANCE_YOUR_CALM", "continuation")


def test_each_block_has_its_own_continuations() -> None:
    endpoint = wire.connected()
    for stream in (1, 3):
        block = wire.headers(stream, end_headers=False)
        block += wire.continuation(stream, end_headers=False) * (limits.MAX_CONTINUATIONS - 1) + wire.continuation(
            stream
        )
        events = endpoint.receive(block, 0.0)
        assert [wire.event_in_words(event) for event in events] == [f"request {stream} GET end"]


def test_continuation_flood_by_bytes() -> None:
    endpoint = wire.connected(max_header_list_bytes=1024)
    assert failure(endpoint, wire.headers(1, end_headers=False)) is None
    assert failure(endpoint, wire.continuation(1, bytes(16384), end_headers=False)) is None
    failed = failure(endpoint, wire.continuation(1, bytes(16384), end_headers=False))
    assert failed is not None
    assert failed.label == "continuation"


def test_a_block_of_the_largest_size_fits_into_the_continuations() -> None:
    endpoint = wire.connected(max_header_list_bytes=32768)
    fields = [*wire.GET, *[(b"name-%d" % number, b"x" * 900) for number in range(30)]]
    encoded = wire.block(fields)
    pieces = [encoded[at : at + 16384] for at in range(0, len(encoded), 16384)]
    frames = [wire.frame(wire.HEADERS, 1, 1, pieces[0])]
    frames += [wire.continuation(1, piece, end_headers=piece is pieces[-1]) for piece in pieces[1:]]
    (event,) = endpoint.receive(b"".join(frames), 0.0)
    assert wire.event_in_words(event) == "request 1 GET end"


def test_hpack_bomb() -> None:
    """One byte for each copy of a field of 4,000 bytes."""
    endpoint = wire.connected()
    bomb = b"\x40" + wire.block(((b"a", b"x" * 3900),))[1:] + b"\xbe" * 4000
    failed = failure(endpoint, wire.frame(wire.HEADERS, 5, 1, bomb))
    assert failed is not None
    assert (wire.CODES[failed.code], failed.label) == ("ENHANCE_YOUR_CALM", "header list size")


def test_trailers_over_the_limit() -> None:
    endpoint = wire.connected(max_header_list_bytes=1024)
    endpoint.receive(wire.headers(1, POST, end=False), 0.0)
    events = endpoint.receive(wire.headers(1, ((b"a", b"x" * 1000),)), 0.0)
    assert [wire.event_in_words(event) for event in events] == ["we reset 1 ENHANCE_YOUR_CALM"]


def test_too_many_settings_in_one_frame() -> None:
    endpoint = wire.connected()
    assert failure(endpoint, wire.settings(*[(4, 1)] * limits.MAX_SETTINGS)) is None
    failed = failure(endpoint, wire.settings(*[(4, 1)] * (limits.MAX_SETTINGS + 1)))
    assert failed is not None
    assert failed.label == "settings"


def test_answers_that_nobody_reads_are_bounded() -> None:
    endpoint = wire.connected()
    for number in range(limits.MAX_QUEUED_BYTES // 17 + 2):
        events = endpoint.receive(wire.ping(), number / limits.PINGS.per_second)
    (failed,) = events
    assert isinstance(failed, ConnectionFailed)
    assert (wire.CODES[failed.code], failed.label) == ("ENHANCE_YOUR_CALM", "queued answers")
    assert len(endpoint.take_output()) <= limits.MAX_QUEUED_BYTES + 17 + 17


def test_thousands_of_idle_streams_take_no_memory() -> None:
    endpoint = wire.connected()
    for number in range(5000):
        assert failure(endpoint, wire.priority(streams(number)), float(number)) is None
    assert (endpoint.open_streams, endpoint._closed, endpoint._idle_priorities) == (0, {}, {})


def test_priorities_of_streams_that_were_skipped_are_dropped() -> None:
    endpoint = wire.connected()
    for number in range(50):
        endpoint.receive(wire.priority_update(streams(number), b"u=0, i"), 0.0)
    endpoint.receive(wire.headers(streams(40)), 0.0)
    assert sorted(endpoint._idle_priorities) == [streams(number) for number in range(41, 50)]
    assert endpoint._streams[streams(40)].priority == (0, True)


def test_priorities_of_idle_streams_count_with_the_open_ones() -> None:
    endpoint = wire.connected()
    for number in range(50):
        endpoint.receive(wire.headers(streams(number)), 0.0)
    for number in range(50, 100):
        assert failure(endpoint, wire.priority_update(streams(number), b"u=1")) is None
    assert failure(endpoint, wire.priority_update(streams(99), b"u=2")) is None, "which is known already"
    failed = failure(endpoint, wire.priority_update(streams(100), b"u=1"))
    assert failed is not None
    assert (wire.CODES[failed.code], failed.label) == ("PROTOCOL_ERROR", "priorities of idle streams")


def test_a_budget() -> None:
    budgets, budget = Budgets(), Budget("test", 2, 0.5)
    budgets.earn(budget, 100)
    for now in (10.0, 10.0, 12.0, 14.0, 100.0, 100.0):
        budgets.spend(budget, now)
    with pytest.raises(ConnectionFault, match="test"):
        budgets.spend(budget, 101.9)
    budgets.earn(budget, 0.1)
    budgets.spend(budget, 101.9)
