"""Answers that were made once and are not made again while they are true.

An answer is remembered with what proves it: the identity of each file that it was made from, and the names that must not
be there (a sibling in another coding). Each time it is asked for again the file system is asked whether that still holds.
There is no time to live, so nothing stale is ever given out.

The bytes of small files are kept, not their descriptors: an open descriptor would keep a deleted file's space.

A file that changed a moment ago is not remembered. Kernels stamp times in steps of some milliseconds, and a second change
within one step would leave no trace in the identity.

The calls that prove an answer, each for a reason:

- for each file in the root itself one stat that follows no symlink. It shows whether the file has changed; since nothing
  is followed, it cannot lead out of the root.
- for each file in a folder below openat2, fstat and close, since a folder on the way may have become a symlink that leads
  out.
- for each sibling that the client would prefer one faccessat, since the sibling may have appeared.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from ..semantics.messages import Response
from .resolve import Identity, Root

SMALL_BYTES: Final = 16 * 1024
"""The largest file whose bytes are kept: with its head it fills one record."""

MAX_ANSWERS: Final = 2048
MAX_BYTES: Final = 8 * 1024 * 1024
"""What all answers may hold. A page's files that are asked for again and again fit many times over."""

_OVERHEAD_BYTES: Final = 1024
"""What an answer costs beside its body: its key, fields and proof."""

SETTLED_SECONDS: Final = 2.0
"""How old a file's last change has to be."""

Key: TypeAlias = tuple[bytes | None, ...]


class Proof(NamedTuple):
    """What has to hold for an answer to be true. Paths are relative to the root."""

    files: tuple[tuple[bytes, Identity], ...]
    absent: tuple[bytes, ...]


class Answers:
    """Bounded in number and bytes; what was not asked for longest goes first."""

    def __init__(self, root: Root, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._clock = clock
        self._answers: OrderedDict[Key, tuple[Response, Proof]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key) -> Response | None:
        """The answer, if it is remembered and still true."""
        remembered = self._answers.get(key)
        if remembered is None:
            return None
        response, proof = remembered
        if not self.holds(proof):
            self._forget(key)
            return None
        self._answers.move_to_end(key)
        return response

    def holds(self, proof: Proof) -> bool:
        """Whether the file system is as the proof says."""
        root = self._root
        for path, identity in proof.files:
            if root.identity(path) != identity:
                return False
        return not any(root.seems_to_hold(path) for path in proof.absent)

    def is_settled(self, identity: Identity) -> bool:
        """Whether a file is old enough for its identity to tell its states apart."""
        newest = max(identity[4:]) / 1e9
        return newest < self._clock() - SETTLED_SECONDS

    def remember(self, key: Key, response: Response, proof: Proof) -> None:
        """Keep an answer without a descriptor. Nobody may change it from now on."""
        assert response.fd < 0
        if key in self._answers:
            self._forget(key)
        self._answers[key] = response, proof
        self._bytes += _size_of(response)
        while len(self._answers) > MAX_ANSWERS or self._bytes > MAX_BYTES:
            self._forget(next(iter(self._answers)))

    def _forget(self, key: Key) -> None:
        response, _ = self._answers.pop(key)
        self._bytes -= _size_of(response)


def _size_of(response: Response) -> int:
    return _OVERHEAD_BYTES + sum(len(part) for part in response.body if isinstance(part, bytes))
