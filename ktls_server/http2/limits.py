"""What a peer may make us do, and how often: limits against attacks on HTTP/2 (RFC 9113 section 10.5).

A `Budget` is a token bucket: so many at once, and then so many a second. Whoever spends more ends the connection with
ENHANCE_YOUR_CALM; the budget's label tells the metric which one it was. The numbers are far above what browsers, curl,
nghttp2 and Java's client send, and low enough that the work of one connection stays below a few percent of a processor.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .faults import ConnectionFault, ErrorCode

MAX_CONCURRENT_STREAMS: Final = 100
"""SETTINGS_MAX_CONCURRENT_STREAMS. The least that section 6.5.2 recommends; nginx has 128, Apache 100."""

MAX_CONTINUATIONS: Final = 8
"""CONTINUATION frames of one field block (CVE-2024-27316 and others): more than a block of the largest size needs in full
frames, and nothing else splits a block. nghttp2 allows 8."""

MAX_QUEUED_BYTES: Final = 65_536
"""Answers (acknowledgements, resets, window updates) that wait for a peer that sends and does not read: some 4,000."""

MAX_CLOSED_STREAMS: Final = 200
"""Closed streams whose end is remembered: two times all that can be open, since frames may be under way for each."""

MAX_SETTINGS: Final = 32
"""Settings in one frame. Seven are known; clients send no more than ten."""

SMALL_DATA_BYTES: Final = 64
"""DATA frames with less data than that are counted: their cost is a frame's, their use next to none."""

WINDOW_UPDATE_CREDIT_BYTES: Final = 2048
"""For so many bytes of DATA that we send the peer may send one more WINDOW_UPDATE: one for the stream and one for the
connection after each 4 KiB that it reads."""

WINDOW_UPDATES_FOR_EACH_REQUEST: Final = 2
"""Some clients widen the window of each stream that they open, and the connection's with it."""


class Budget(NamedTuple):
    """`burst` at once, then `per_second`."""

    label: str
    burst: int
    per_second: float


RESETS: Final = Budget("rapid reset", 4 * MAX_CONCURRENT_STREAMS, 33)
"""Streams that the peer resets before their answer is complete (CVE-2023-44487). Who leaves a page resets all that is
open; four times in a row. The rate is that of nghttp2."""

FORCED_RESETS: Final = Budget("forced reset", 4 * MAX_CONCURRENT_STREAMS, 33)
"""Stream errors that the peer makes us send (CVE-2025-8671, MadeYouReset), refused streams included: a client that has not
seen our settings yet may open some hundreds too many, once."""

PINGS: Final = Budget("ping", 100, 10)
"""PING frames. Clients that measure send one a second."""

SETTINGS: Final = Budget("settings", 20, 1)
"""SETTINGS frames. Clients send one, and seldom a second."""

EMPTY_DATA: Final = Budget("small data", 1000, 100)
"""DATA frames of less than SMALL_DATA_BYTES that do not end their stream (CVE-2019-9518)."""

WINDOW_UPDATES: Final = Budget("window update", 10_000, 100)
"""WINDOW_UPDATE frames beyond what our DATA asks for; the burst is what a window of some 20 MiB may still answer."""

PRIORITIES: Final = Budget("priority", 1000, 50)
"""PRIORITY and PRIORITY_UPDATE frames. A page of 200 files, each with a new priority two times, at once."""

IGNORED: Final = Budget("ignored frames", 1000, 50)
"""Frames without effect: of unknown types, or on closed streams, such as what was under way when we reset a stream."""


class Budgets:
    """The budgets of one connection. One that was never touched takes no memory."""

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: dict[str, tuple[float, float]] = {}
        """By label, how many are left, and when that was so."""

    def spend(self, budget: Budget, now: float) -> None:
        """One more, at `now` (seconds of a clock that does not go back). Raises ConnectionFault where none is left."""
        label, burst, per_second = budget
        known = self._levels.get(label)
        left = float(burst) if known is None else min(burst, known[0] + (now - known[1]) * per_second)
        if left < 1:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, label)
        self._levels[label] = left - 1, now

    def earn(self, budget: Budget, count: float) -> None:
        """The peer has reason to send `count` more; what goes beyond the burst is lost when the next one is spent."""
        known = self._levels.get(budget.label)
        if known is not None:
            self._levels[budget.label] = known[0] + count, known[1]
