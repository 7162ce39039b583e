"""Every worker's numbers, where every worker can read them: memory that they share since before they were forked.

Each worker writes its own slot, about once a second; whoever answers a scrape reads all of them. So a scrape never waits
for a worker, never interrupts one, and the supervisor has no part in it. A process that takes a dead one's place starts
from what its slot holds: counters never fall.

A reader may meet a writer halfway. The checksum tells, and the reader looks again: a write takes microseconds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import mmap
import os
import resource
import struct
import time
import zlib
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from ..counters import Counters

_log = logging.getLogger(__name__)

_SLOT_BYTES: Final = 64 * 1024
"""All labels are from fixed sets: what is written has about 3 KiB, 20 KiB with every label that there is."""

_HEADER: Final = struct.Struct("=II")
_ATTEMPTS: Final = 100
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessState:
    """How one worker is: what goes up and down. `written_at` is the monotonic clock, which all processes share."""

    pid: int = 0
    written_at: float = 0.0
    open_connections: dict[str, int] = field(default_factory=dict)
    """By stage."""
    connection_tasks: int = 0
    """As many as connections, or something leaks."""
    resident_bytes: int = 0
    open_descriptors: int = 0
    longest_turn_seconds: float = 0.0
    """The longest time that one step held the event loop since the numbers were written before."""
    blocked_connections: int = 0
    """Connections whose client does not read what it made the server say."""
    waiting_passwords: int = 0
    certificate_days_left: float | None = None
    """Until the first of the certificates ends; negative after that, None where none can be read."""


class Scoreboard:
    """Make it before forking."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._memory = mmap.mmap(-1, workers * _SLOT_BYTES)
        self._worker = 0
        self._statm = -1

    def enter(self, worker: int) -> Counters:
        """Take the place of `worker`, once in the process that will write; what its predecessors counted so far."""
        self._worker = worker
        # Kept open: numbers matter most when there are no descriptors left.
        try:
            self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            _log.warning(
                "the metrics say 0 for memory and descriptors of this process, because /proc/self cannot be read (%s);"
                " mount /proc",
                error.strerror,
            )
        counters, _state = self.read(worker)
        counters.starts += 1
        return counters

    def leave(self) -> None:
        """Nothing more will be written by this process."""
        if self._statm >= 0:
            os.close(self._statm)
            self._statm = -1

    def write(self, counters: Counters, state: ProcessState) -> None:
        """Publish this process's numbers; what the process knows of itself is filled in here."""
        state = replace(
            state,
            pid=os.getpid(),
            written_at=time.monotonic(),
            resident_bytes=self._resident_bytes(),
            open_descriptors=_open_descriptors(),
        )
        content = json.dumps([counters.to_plain(), asdict(state)], separators=(",", ":")).encode("ascii")
        start = self._worker * _SLOT_BYTES
        end = start + _HEADER.size + len(content)
        assert end <= start + _SLOT_BYTES, len(content)
        self._memory[start:end] = _HEADER.pack(len(content), zlib.crc32(content)) + content

    def _resident_bytes(self) -> int:
        """The second field of /proc/self/statm is the resident set, in pages (proc_pid_statm(5)). 0 where it is not known."""
        if self._statm >= 0:
            with contextlib.suppress(OSError):
                return int(os.pread(self._statm, 256, 0).split()[1]) * _PAGE_BYTES
        return 0

    def read(self, worker: int) -> tuple[Counters, ProcessState]:
        """What `worker` last wrote; all zero where it has written nothing yet, or died while it wrote."""
        start = worker * _SLOT_BYTES
        for _ in range(_ATTEMPTS):
            length, checksum = _HEADER.unpack_from(self._memory, start)
            content = self._memory[start + _HEADER.size : start + _HEADER.size + min(length, _SLOT_BYTES)]
            if not length:
                break
            if zlib.crc32(content) == checksum:
                counters, state = json.loads(content)
                return Counters.from_plain(counters), ProcessState(**state)
        return Counters(), ProcessState()


def _open_descriptors() -> int:
    """Linux tells the number as the size of the folder since 6.2; before that the names have to be counted. 0: unknown."""
    try:
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    except OSError as error:
        # To look takes one: there are as many as may be.
        out_of_descriptors = error.errno in (errno.EMFILE, errno.ENFILE)
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0] if out_of_descriptors else 0
