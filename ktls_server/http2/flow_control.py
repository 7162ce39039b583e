"""Flow-control windows (RFC 9113 section 5.2 and 6.9), to the byte. Padding counts as data does.

A `SendWindow` is what the peer lets us send, a `ReceiveWindow` what we let the peer send. The connection has one of each,
and so has every stream.
"""

from __future__ import annotations

from typing import Final

from .frames import MAX_WINDOW_SIZE

INITIAL_WINDOW_SIZE: Final = 65_535
"""Of every window until SETTINGS or WINDOW_UPDATE say otherwise (section 6.9.2)."""


class WindowOverflow(Exception):
    """A window would grow past 2^31-1 bytes (section 6.9.1), or the peer sent more than its window."""


class SendWindow:
    """`size` bytes may be sent. It is negative where SETTINGS took back what was sent already (section 6.9.2)."""

    __slots__ = ("size",)

    def __init__(self, size: int = INITIAL_WINDOW_SIZE) -> None:
        self.size = size

    def widen(self, increment: int) -> None:
        """WINDOW_UPDATE, or a change of SETTINGS_INITIAL_WINDOW_SIZE, which may be negative. Raises WindowOverflow."""
        size = self.size + increment
        if size > MAX_WINDOW_SIZE:
            raise WindowOverflow
        self.size = size


class ReceiveWindow:
    """What the peer may send, and what it was not yet told that it may send again.

    A WINDOW_UPDATE goes out once half of the window was used and given back: seldom enough to cost little, early enough
    that a peer which sends steadily does not stand still.
    """

    __slots__ = ("_given_back", "_size", "_whole")

    def __init__(self, size: int = INITIAL_WINDOW_SIZE) -> None:
        self._whole = size
        self._size = size
        self._given_back = 0

    @property
    def size(self) -> int:
        """How many bytes the peer may send now."""
        return self._size

    def receive(self, count: int) -> None:
        """`count` bytes came. Raises WindowOverflow where that is more than the peer may send."""
        if count > self._size:
            raise WindowOverflow
        self._size -= count

    def give_back(self, count: int) -> int:
        """`count` bytes of what came are not held any longer. Returns the increment to send now, or 0."""
        given_back = self._given_back + count
        if given_back * 2 < self._whole:
            self._given_back = given_back
            return 0
        self._given_back = 0
        self._size += given_back
        return given_back
