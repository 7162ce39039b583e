"""How many connections each client has, over all workers, in memory that they share since before they were forked.

Each worker knows its own connections exactly. What it has of each client it also writes into its own region of the shared
memory, as a count-min sketch (Cormode and Muthukrishnan, 2005): `ROWS` rows of counters, and one counter of each row for a
client, chosen by a hash. The least of a client's counters is never below the truth, and above it only where other clients
share all of them. The hash is keyed, so nobody can choose addresses that share counters with a victim's.

A worker writes its own region and reads those of others, so no lock is needed; a number read may be a moment old. The
memory is bounded whatever addresses come.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections import Counter
from typing import Final

ROWS: Final = 4
CELLS: Final = 16_384
"""Counters in a row: more than the connections that a worker has by default (10,000), so that few clients share one."""

_CELL_BYTES: Final = 4
_REGION_BYTES: Final = ROWS * CELLS * _CELL_BYTES
_CELL_BITS: Final = CELLS.bit_length() - 1


class ClientCounts:
    """Make it before forking. A process that counts calls `enter` once; `add` and `remove` belong to its event loop."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._key = os.urandom(16)
        self._own: Counter[str] = Counter()
        self._place = 0
        # The region of one process alone would be read by nobody.
        self._memory = None if workers == 1 else mmap.mmap(-1, workers * _REGION_BYTES)
        self._cells = None if self._memory is None else memoryview(self._memory).cast("I")

    def enter(self, place: int) -> None:
        """Count for the worker at `place`, from zero: the connections of a predecessor are closed."""
        self._place = place
        self._own.clear()
        self.clear(place)

    def clear(self, place: int) -> None:
        """The worker at `place` is dead, and with it its connections."""
        if self._memory is not None:
            self._memory[place * _REGION_BYTES : (place + 1) * _REGION_BYTES] = bytes(_REGION_BYTES)

    def add(self, client: str) -> None:
        """One more connection of this client here."""
        self._own[client] += 1
        if self._cells is not None:
            for cell in self._cells_of(client, self._place):
                self._cells[cell] += 1

    def remove(self, client: str) -> None:
        """One less. It has to have been added."""
        self._own[client] -= 1
        if not self._own[client]:
            del self._own[client]
        if self._cells is not None:
            for cell in self._cells_of(client, self._place):
                self._cells[cell] -= 1

    def count(self, client: str) -> int:
        """How many connections the client has, in all workers; seldom more than there are, never less."""
        total = self._own[client]
        cells = self._cells
        if cells is not None:
            offsets = self._cells_of(client, 0)
            for place in range(self._workers):
                if place != self._place:
                    start = place * ROWS * CELLS
                    total += min(cells[start + offset] for offset in offsets)
        return total

    def _cells_of(self, client: str, place: int) -> list[int]:
        """The client's counters in the region of `place`: one in each row."""
        digest = hashlib.blake2b(client.encode("ascii", "replace"), key=self._key, digest_size=8).digest()
        bits = int.from_bytes(digest, "little")
        start = place * ROWS * CELLS
        return [start + row * CELLS + (bits >> row * _CELL_BITS) % CELLS for row in range(ROWS)]
