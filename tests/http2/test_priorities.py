"""RFC 9218: what a Priority field says, and who sends next."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktls_server.http2.priorities import (
    DEFAULT,
    INCREMENTAL_TURN_BYTES,
    ROUND_BYTES,
    TURN_BYTES,
    Priority,
    Scheduler,
    parse_priority,
)

FRAME = 16375


@pytest.mark.parametrize(
    ("value", "urgency", "incremental"),
    [
        (b"", 3, False),
        (b"u=0", 0, False),
        (b"u=7, i", 7, True),
        (b"i,u=2", 2, True),
        (b"u=5\t ,\ti", 5, True),
        (b"  u=5  ", 5, False),
        (b"i=?1", 3, True),
        (b"i=?0", 3, False),
        (b"u=1, u=4", 4, False),
        # out of range or of another type: as if the member were not there
        (b"u=8", 3, False),
        (b"u=-1", 3, False),
        (b"u=1.0", 3, False),
        (b"u=07", 3, False),
        (b'u="1", i', 3, True),
        (b"u, i", 3, True),
        (b"i=1", 3, False),
        (b"u=1, u=9", 3, False),
        # members that nobody knows, and parameters
        (b"u=1;x=2;y, foo, i", 1, True),
        (b'u=1, a="u=2, \\"i\\"", b=(1 "2" x;y), c=:YQ==:, d=tok/en, e=-1.5, *f=?0', 1, False),
        (b"u=1, a=()", 1, False),
        # no dictionary: as if the field were not there
        (b"u=1,", 3, False),
        (b"u=1,,i", 3, False),
        (b",u=1", 3, False),
        (b"u=1 i", 3, False),
        (b"U=1", 3, False),
        (b"u=", 3, False),
        (b"u= 1", 3, False),
        (b"u=1, a=(1", 3, False),
        (b'u=1, a="b', 3, False),
        (b"u=1, \xff", 3, False),
        (b"u=1" + b" " * 300, 3, False),
    ],
)
def test_priority_field(value: bytes, urgency: int, incremental: bool) -> None:
    assert parse_priority(value) == Priority(urgency, incremental)


@settings(deadline=None)
@given(st.text(alphabet='ui=0123456789?,; ()":ab\\-.*\t', max_size=30))
def test_any_field_has_some_priority(value: str) -> None:
    urgency, incremental = parse_priority(value.encode())
    assert urgency in range(8)
    assert incremental in (False, True)


def sends(scheduler: Scheduler, bodies: dict[int, int], frames: int = 10_000) -> list[int]:
    """Send frame by frame until all of `bodies` (bytes by stream) are sent; who sent each."""
    order: list[int] = []
    while (stream := scheduler.next_stream()) is not None and len(order) < frames:
        order.append(stream)
        count = min(FRAME, bodies[stream])
        bodies[stream] -= count
        scheduler.sent(stream, count)
        if not bodies[stream]:
            scheduler.forget(stream)
    return order


def ready(*streams: tuple[int, Priority]) -> Scheduler:
    scheduler = Scheduler()
    for stream, priority in streams:
        scheduler.ready(stream, priority)
    return scheduler


def test_urgent_ones_first() -> None:
    scheduler = ready((1, Priority(5)), (3, Priority(0)), (5, Priority(7)), (7, Priority(3)))
    assert sends(scheduler, {1: 3 * FRAME, 3: 3 * FRAME, 5: 1, 7: 2 * FRAME}) == [3, 3, 3, 7, 7, 1, 1, 1, 5]


def test_one_after_the_other_in_the_order_of_streams() -> None:
    scheduler = ready((5, DEFAULT), (1, DEFAULT), (3, DEFAULT))
    assert sends(scheduler, {1: 2 * FRAME, 3: 2 * FRAME, 5: FRAME}) == [1, 1, 3, 3, 5]


def test_incremental_ones_in_turn() -> None:
    turn = INCREMENTAL_TURN_BYTES // FRAME
    scheduler = ready((1, Priority(3, True)), (3, Priority(3, True)))
    assert sends(scheduler, {1: 3 * turn * FRAME, 3: 2 * turn * FRAME}) == [
        *([1] * turn + [3] * turn) * 2,
        *[1] * turn,
    ]


def test_a_large_answer_holds_up_others_for_one_turn() -> None:
    scheduler = ready((1, DEFAULT))
    bodies = {1: 10**9, 3: FRAME, 5: FRAME}
    sends(scheduler, bodies, frames=20)
    scheduler.ready(3, DEFAULT)
    scheduler.ready(5, DEFAULT)
    order = sends(scheduler, bodies, frames=40)
    assert order.index(5) <= TURN_BYTES // FRAME + 1


def test_an_endless_row_of_small_answers_lets_a_large_one_go_on() -> None:
    scheduler = ready((1, DEFAULT))
    stream, sent = 3, {1: 0}
    for _ in range(1000):
        scheduler.ready(stream, DEFAULT)
        found = scheduler.next_stream()
        assert found is not None
        sent[found] = sent.get(found, 0) + FRAME
        scheduler.sent(found, FRAME)
        if found != 1:
            scheduler.forget(found)
            stream += 2
    assert sent[1] >= 1000 * FRAME * TURN_BYTES // (ROUND_BYTES + 2 * TURN_BYTES)


def test_an_urgent_one_gets_through_at_once() -> None:
    scheduler = ready((1, DEFAULT))
    scheduler.sent(1, FRAME)
    scheduler.ready(9, Priority(0))
    assert scheduler.next_stream() == 9


def test_blocked_and_back() -> None:
    scheduler = ready((1, DEFAULT), (3, DEFAULT))
    scheduler.blocked(1)
    scheduler.blocked(1)
    scheduler.blocked(99)
    assert scheduler.next_stream() == 3
    scheduler.ready(1, DEFAULT)
    scheduler.ready(1, DEFAULT)
    assert scheduler.next_stream() == 1
    assert 1 in scheduler
    assert 99 not in scheduler


def test_a_turn_that_ends_while_blocked() -> None:
    scheduler = ready((1, DEFAULT), (3, DEFAULT))
    scheduler.blocked(1)
    scheduler.sent(1, TURN_BYTES)
    assert scheduler.next_stream() == 3
    scheduler.ready(1, DEFAULT)
    assert scheduler.next_stream() == 3


def test_a_stream_that_becomes_incremental_has_a_short_turn() -> None:
    scheduler = ready((1, DEFAULT), (3, Priority(2, True)))
    scheduler.reprioritize(1, Priority(2, True))
    assert scheduler.next_stream() == 1
    scheduler.sent(1, INCREMENTAL_TURN_BYTES)
    assert scheduler.next_stream() == 3


def test_turns_of_another_urgency_do_not_count() -> None:
    scheduler = ready((1, DEFAULT), (3, Priority(2)))
    scheduler.sent(1, TURN_BYTES)
    scheduler.reprioritize(1, Priority(2))
    assert scheduler.next_stream() == 1


def test_another_priority() -> None:
    scheduler = ready((1, DEFAULT), (3, DEFAULT))
    scheduler.reprioritize(3, Priority(1))
    assert scheduler.next_stream() == 3
    scheduler.blocked(3)
    scheduler.reprioritize(3, Priority(0))
    assert scheduler.next_stream() == 1
    scheduler.reprioritize(99, Priority(0))
    scheduler.ready(3, DEFAULT)
    assert scheduler.next_stream() == 3


_steps = st.tuples(
    st.sampled_from(["ready", "blocked", "forget", "reprioritize", "sent"]),
    st.integers(0, 5),
    st.builds(Priority, st.integers(2, 4), st.booleans()),
    st.integers(0, 3 * TURN_BYTES),
)


@settings(deadline=None)
@given(st.lists(_steps, max_size=60))
def test_the_next_one_is_ready_and_most_urgent(steps: list[tuple[str, int, Priority, int]]) -> None:
    scheduler = Scheduler()
    known: dict[int, Priority] = {}
    is_ready: set[int] = set()
    for what, stream, priority, count in steps:
        match what:
            case "ready":
                scheduler.ready(stream, priority)
                known.setdefault(stream, priority)
                is_ready.add(stream)
            case "blocked":
                scheduler.blocked(stream)
                is_ready.discard(stream)
            case "forget":
                scheduler.forget(stream)
                known.pop(stream, None)
                is_ready.discard(stream)
            case "reprioritize":
                scheduler.reprioritize(stream, priority)
                if stream in known:
                    known[stream] = priority
            case "sent":
                scheduler.sent(stream, count)
        following = scheduler.next_stream()
        assert (following is None) == (not is_ready)
        if following is not None:
            assert following in is_ready
            assert known[following].urgency == min(known[stream].urgency for stream in is_ready)
        assert sorted(stream for queue in scheduler._queues for _, stream in queue) == sorted(is_ready)
