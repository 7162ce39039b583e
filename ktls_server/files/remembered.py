"""Answers that were made once and are not made again while they are true.

An answer is remembered with what proves it: the identity of each file that it was made from, and the names that must not
be there (a sibling in another coding). Each time it is asked for again the file system is asked whether that still holds.
There is no time to live, so nothing stale is ever given out.

The bytes of small files are kept, not their descriptors: an open descriptor would keep a deleted file's space.

A file that changed a moment ago is not remembered. Kernels stamp times in steps of some milliseconds, and a second change
within one step would leave no trace in the identity.

The calls that prove an answer, each for a reason:

- for each folder on the way one lstat: it has not become a symlink that leads out of the root.
- for each file one lstat: it has not changed. (Where symlinks are on the way: openat2 beneath the root, fstat, close.)
- for each sibling that the client would prefer one faccessat: it has not appeared.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeAlias

from ..semantics.messages import Response
from .resolve import Proof, Root

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
        if not self._root.holds(proof):
            self._forget(key)
            return None
        self._answers.move_to_end(key)
        return response

    def is_settled(self, proof: Proof) -> bool:
        """Whether all files are old enough for their identities to tell their states apart."""
        settled_ns = (self._clock() - SETTLED_SECONDS) * 1e9
        return all(max(identity[4:]) < settled_ns for _, identity in proof.files)

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
