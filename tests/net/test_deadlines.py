"""Deadlines strike never early and one bucket late at most, and a look costs by what is over."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ktls_server.net.deadlines import BUCKET_SECONDS, Deadlines, Watched

SECONDS = st.floats(min_value=0, max_value=100, allow_nan=False)


class Counted(Watched):
    """Counts how often its deadline was looked at."""

    __slots__ = ("_deadline", "looks")

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline
        self.looks = 0

    @property
    def deadline(self) -> float:
        self.looks += 1
        return self._deadline

    @deadline.setter
    def deadline(self, value: float) -> None:
        self._deadline = value


def watch(*seconds: float) -> tuple[Deadlines, list[Counted]]:
    deadlines = Deadlines()
    watched = [Counted(deadline) for deadline in seconds]
    for each in watched:
        deadlines.add(each)
        each.looks = 0
    return deadlines, watched


@settings(deadline=None)
@given(st.lists(SECONDS, max_size=20), st.lists(SECONDS, max_size=30))
def test_never_early_and_late_by_one_bucket_at_most(seconds: list[float], looks: list[float]) -> None:
    deadlines, watched = watch(*seconds)
    for now in sorted(looks):
        over = set(deadlines.over(now))
        for each in watched:
            if each.deadline > now:
                assert each not in over
            elif each.deadline <= now - BUCKET_SECONDS:
                assert each in over
    assert len(deadlines) == len(watched), "it is watched until somebody removes it"


@settings(deadline=None)
@given(st.data())
def test_deadlines_that_are_put_off_and_removed_at_any_time(data: st.DataObject) -> None:
    """The same, while deadlines move away, things go, and others come."""
    deadlines, watched = watch(*data.draw(st.lists(SECONDS, max_size=10)))
    now = 0.0
    for _ in range(data.draw(st.integers(0, 20))):
        now += data.draw(st.floats(0, 5))
        for each in watched:
            if data.draw(st.booleans()):
                each.deadline = max(each.deadline, now + data.draw(st.floats(0, 10)))
        if data.draw(st.booleans()) and watched:
            deadlines.remove(watched.pop())
        if data.draw(st.booleans()):
            watched.append(Counted(now + data.draw(st.floats(0, 10))))
            deadlines.add(watched[-1])
        over = deadlines.over(now)
        assert len(set(over)) == len(over)
        assert set(over) <= set(watched)
        assert all(each.deadline <= now for each in over)
        assert {each for each in watched if each.deadline <= now - BUCKET_SECONDS} <= set(over)
        assert set(deadlines.all()) == set(watched)


def test_what_is_over_is_given_again_until_it_is_removed() -> None:
    deadlines, (first, second) = watch(1.0, 5.0)
    assert deadlines.over(2.0) == [first]
    assert deadlines.over(2.0) == [first]
    assert deadlines.over(100.0) == [first, second]
    deadlines.remove(first)
    assert deadlines.over(100.0) == [second]
    deadlines.remove(second)
    assert deadlines.over(200.0) == []


def test_what_is_added_behind_the_last_look_is_found() -> None:
    """A deadline in the past, or one that was drawn nearer: it was removed, and added again."""
    deadlines, (late,) = watch(500.0)
    assert deadlines.over(100.0) == []
    early = Counted(50.0)
    deadlines.add(early)
    assert deadlines.over(100.0) == [early]
    deadlines.remove(late)
    late.deadline = 60.0
    deadlines.add(late)
    assert set(deadlines.over(100.0)) == {early, late}


def test_a_look_costs_by_what_is_over() -> None:
    """Ten thousand stand, three are over: the others are not looked at, in fifty looks."""
    deadlines, watched = watch(1.0, 1.0, 1.0, *([1000.0] * 10_000))
    for number in range(50):
        assert set(deadlines.over(2.0 + number)) == set(watched[:3])
    assert sum(each.looks for each in watched[3:]) == 0


def test_a_deadline_that_is_put_off_is_looked_at_once_in_its_time_not_at_every_look() -> None:
    deadlines, (each,) = watch(10.0)
    for now in range(100):
        each.deadline = now + 10.0
        each.looks = 0
        assert deadlines.over(float(now)) == []
        assert each.looks <= 2  # looked at, and put into another bucket
    looks = 0
    for now in range(100, 108):
        each.looks = 0
        assert deadlines.over(float(now)) == []
        looks += each.looks
    assert looks <= 2


@settings(deadline=None)
@given(st.lists(SECONDS, max_size=20), st.lists(st.floats(0, 50), max_size=20))
def test_earliest_first(seconds: list[float], put_off: list[float]) -> None:
    deadlines, watched = watch(*seconds)
    for each, later in zip(watched, put_off, strict=False):
        each.deadline += later
    order = list(deadlines.earliest_first())
    assert len(order) == len(watched)
    assert set(order) == set(watched)
    for index, earlier in enumerate(order):
        assert all(earlier.deadline <= later.deadline + BUCKET_SECONDS for later in order[index:])


@settings(deadline=None)
@given(st.lists(SECONDS, min_size=1, max_size=20))
def test_earliest_first_while_each_is_taken_out(seconds: list[float]) -> None:
    """As when connections are ended one after another."""
    deadlines, watched = watch(*seconds)
    for _ in range(len(watched)):
        deadlines.remove(next(deadlines.earliest_first()))
    assert len(deadlines) == 0
    assert list(deadlines.earliest_first()) == []


@pytest.mark.parametrize("deadline", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_the_edges_of_buckets(deadline: float) -> None:
    deadlines, (each,) = watch(deadline)
    assert deadlines.over(deadline - 0.001) == []
    assert deadlines.over(deadline + BUCKET_SECONDS) == [each]
