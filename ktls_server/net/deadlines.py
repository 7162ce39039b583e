"""Time limits of many things at a cost that goes by how many are over theirs, not by how many stand.

Each thing lies in a bucket: the half second in which its deadline falls. A deadline that moves away (a connection that is
used) moves nothing: the thing is put into its right bucket when its old one is looked at. Deadlines never strike early,
and late by one bucket at most.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

BUCKET_SECONDS: Final = 0.5
"""How late a time limit may strike."""


class Watched:
    """Something with a deadline, by `time.monotonic`. The deadline may be put off at any time by assigning to it."""

    __slots__ = ("_bucket", "deadline")

    def __init__(self) -> None:
        self.deadline = 0.0
        self._bucket = 0


class Deadlines:
    """Everything that is in one stage. All of it has the same time limit, so the earliest deadline waits longest."""

    __slots__ = ("_buckets", "_next")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[Watched, None]] = {}
        self._next = 0

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, watched: Watched) -> None:
        """Watch the deadline of `watched` from now on."""
        bucket = _bucket_of(watched.deadline)
        if not self._buckets or bucket < self._next:
            self._next = bucket
        watched._bucket = bucket
        self._buckets.setdefault(bucket, {})[watched] = None

    def remove(self, watched: Watched) -> None:
        """Watch it no longer."""
        bucket = self._buckets[watched._bucket]
        del bucket[watched]
        if not bucket:
            del self._buckets[watched._bucket]

    def over(self, now: float | None = None) -> list[Watched]:
        """What is past its deadline; it goes on being watched, and is given again by the next look if nothing changes."""
        now = time.monotonic() if now is None else now
        over: list[Watched] = []
        first, last = self._next, int(now / BUCKET_SECONDS)
        if not self._buckets or first > last:
            return over
        for number in range(first, last + 1):
            for watched in list(self._buckets.get(number, ())):
                if watched.deadline > now:
                    self.remove(watched)
                    self.add(watched)
                else:
                    over.append(watched)
        self._next = min((watched._bucket for watched in over), default=last + 1)
        return over

    def all(self) -> list[Watched]:
        """All of it, in no order."""
        return [watched for bucket in self._buckets.values() for watched in bucket]

    def earliest_first(self) -> Iterator[Watched]:
        """All of it, each once, the longest wait first (within half a second); stop when you have what you want."""
        last = -1
        while later := [bucket for bucket in self._buckets if bucket > last]:
            last = min(later)
            for watched in list(self._buckets[last]):
                if _bucket_of(watched.deadline) > last:
                    self.remove(watched)
                    self.add(watched)  # Its turn comes later in this very walk.
                else:
                    yield watched


def _bucket_of(deadline: float) -> int:
    """The first half second that begins after the deadline."""
    return int(deadline / BUCKET_SECONDS) + 1
