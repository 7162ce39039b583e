"""Priorities (RFC 9218): the Priority field, and the order in which streams send.

`Scheduler` says which stream sends next. Lower urgency numbers go first. Within one urgency, streams take turns: one that
is incremental gets short turns, so that all of them advance together; one that is not gets long turns in the order of
stream identifiers (section 10), so that most answers go out in one piece, and yet a large download holds up nobody of its
own urgency for longer than a turn.
"""

from __future__ import annotations

import re
from bisect import insort
from functools import lru_cache
from typing import Final, NamedTuple


class Priority(NamedTuple):
    """`urgency` is 0 (most) to 7; 3 by default (RFC 9218 section 4)."""

    urgency: int = 3
    incremental: bool = False


DEFAULT: Final = Priority()

MAX_FIELD_BYTES: Final = 256
"""Of a Priority field. Two parameters are known, of together 5 bytes; what is longer is not worth a look."""

# RFC 8941 section 3: a dictionary's members, each `key`, `key=item` or `key=(items)`, with parameters.
_KEY = r"[a-z*][a-z0-9_\-.*]*"
_ITEM = (
    r"(?:-?[0-9]{1,15}(?:\.[0-9]{1,3})?"
    r'|"(?:[ !#-\[\]-~]|\\["\\])*"'
    r"|[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*"
    r"|:[A-Za-z0-9+/=]*:"
    r"|\?[01])"
)
_PARAMETERS = rf"(?:; *{_KEY}(?:={_ITEM})?)*"
_INNER_LIST = rf"\( *(?:{_ITEM}{_PARAMETERS}(?: +{_ITEM}{_PARAMETERS})* *)?\)"
_MEMBER = re.compile(rf"({_KEY})(?:=({_ITEM}|{_INNER_LIST}))?{_PARAMETERS}")
_SEPARATOR = re.compile(r"[ \t]*,[ \t]*")


@lru_cache(maxsize=64)
def parse_priority(value_untrusted: bytes) -> Priority:
    """The Priority field's value, or that of a PRIORITY_UPDATE frame.

    A value that is no dictionary counts as if it were not there; members that are unknown, of another type, or out of
    range are ignored one by one (RFC 9218 section 4).
    """
    if len(value_untrusted) > MAX_FIELD_BYTES:
        return DEFAULT
    try:
        text = value_untrusted.decode("ascii").strip(" ")
    except UnicodeDecodeError:
        return DEFAULT
    urgency, incremental = DEFAULT
    position = 0
    while position < len(text):
        member = _MEMBER.match(text, position)
        if member is None:
            return DEFAULT
        key, item = member.groups()
        # Of a key that comes twice the last counts (RFC 8941 section 3.2), also where it is to be ignored.
        if key == "u":
            urgency = int(item) if item is not None and item in "01234567" else DEFAULT.urgency
        elif key == "i":
            incremental = item is None or item == "?1"
        position = member.end()
        if position == len(text):
            break
        separator = _SEPARATOR.match(text, position)
        if separator is None or separator.end() == len(text):
            return DEFAULT
        position = separator.end()
    return Priority(urgency, incremental)


INCREMENTAL_TURN_BYTES: Final = 65_500
"""What an incremental stream sends before the next one's turn: four frames of 16,375 bytes."""

TURN_BYTES: Final = 262_000
"""What another stream sends before the next one's turn: 16 frames of 16,375 bytes. Most files of a page are smaller."""

ROUND_BYTES: Final = 1_048_000
"""Once the streams of one urgency have sent so much in one turn, new ones join the next turn: then no endless row of small
answers keeps a stream from sending that has had its turn. 64 frames of 16,375 bytes."""


class _Place:
    """One stream's place. It is in the queue of its urgency while it `is_ready`, under (`turn`, stream identifier)."""

    __slots__ = ("is_ready", "left", "priority", "turn")

    def __init__(self, priority: Priority) -> None:
        self.priority = priority
        self.is_ready = False
        self.turn = 0
        self.left = _turn_bytes(priority)


def _turn_bytes(priority: Priority) -> int:
    return INCREMENTAL_TURN_BYTES if priority.incremental else TURN_BYTES


class Scheduler:
    """Chooses the stream that sends next among those that are ready: with something to send, and a window for it.

    Every operation costs a search in a sorted list that is as long as there are ready streams of one urgency.
    """

    __slots__ = ("_places", "_queues", "_sent_in_turn", "_turns")

    def __init__(self) -> None:
        self._places: dict[int, _Place] = {}
        self._queues: tuple[list[tuple[int, int]], ...] = tuple([] for _ in range(8))
        self._turns = [0] * 8
        """Of each urgency, the turn that is under way."""
        self._sent_in_turn = [0] * 8

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._places

    def ready(self, stream_id: int, priority: Priority) -> None:
        """The stream can send now. Its `priority` counts where it has no place yet. Does nothing where it is ready."""
        place = self._places.get(stream_id)
        if place is None:
            place = self._places[stream_id] = _Place(priority)
        elif place.is_ready:
            return
        place.is_ready = True
        self._enqueue(stream_id, place)

    def _enqueue(self, stream_id: int, place: _Place) -> None:
        urgency = place.priority.urgency
        # Who was away can not take up the turns that it missed.
        turn = self._turns[urgency] + (self._sent_in_turn[urgency] > ROUND_BYTES)
        place.turn = max(place.turn, turn)
        insort(self._queues[urgency], (place.turn, stream_id))

    def blocked(self, stream_id: int) -> None:
        """The stream can not send now; it keeps what is left of its turn."""
        place = self._places.get(stream_id)
        if place is not None and place.is_ready:
            place.is_ready = False
            self._queues[place.priority.urgency].remove((place.turn, stream_id))

    def forget(self, stream_id: int) -> None:
        """The stream has ended."""
        self.blocked(stream_id)
        self._places.pop(stream_id, None)

    def reprioritize(self, stream_id: int, priority: Priority) -> None:
        """The stream has another priority from now on. Does nothing where it has no place."""
        place = self._places.get(stream_id)
        if place is None or place.priority == priority:
            return
        is_ready = place.is_ready
        self.blocked(stream_id)
        place.turn = 0
        place.priority = priority
        place.left = min(place.left, _turn_bytes(priority))
        if is_ready:
            self.ready(stream_id, priority)

    def next_stream(self) -> int | None:
        """Who sends next; None where nobody is ready."""
        for urgency, queue in enumerate(self._queues):
            if queue:
                turn, stream_id = queue[0]
                if turn != self._turns[urgency]:
                    self._turns[urgency] = turn
                    self._sent_in_turn[urgency] = 0
                return stream_id
        return None

    def sent(self, stream_id: int, count: int) -> None:
        """The stream has sent `count` bytes. Once its turn is used up, it goes behind the others of its urgency."""
        place = self._places.get(stream_id)
        if place is None:
            return
        place.left -= count
        self._sent_in_turn[place.priority.urgency] += count
        if place.left <= 0:
            is_ready = place.is_ready
            self.blocked(stream_id)
            place.turn += 1
            place.left = _turn_bytes(place.priority)
            if is_ready:
                place.is_ready = True
                self._enqueue(stream_id, place)
