"""What a server process and its children have used: CPU time and memory, as the kernel counts them.

The CPU time of the server is what a verdict stands on: it is the same however slow the clients are, and whatever else the
machine does. Everything comes from /proc (proc(5)) and from the clock that every process has (clock_getcpuclockid(3)).
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

_CPUCLOCK_SCHED: Final = 2
"""include/linux/posix-timers.h: the clock that counts what the scheduler gave to a process, in nanoseconds."""

_PROC: Final = Path("/proc")


def process_tree(pid: int) -> list[int]:
    """`pid` and all its descendants that still run."""
    children: dict[int, list[int]] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdecimal():
            # A process may end between the listing and the reading.
            with contextlib.suppress(OSError, ValueError):
                children.setdefault(_parent(folder), []).append(int(folder.name))
    tree = [pid]
    for ancestor in tree:
        tree.extend(children.get(ancestor, ()))
    return tree


def _parent(folder: Path) -> int:
    # "pid (name) state ppid ...": the name may hold anything, so what follows is counted from its last parenthesis.
    return int((folder / "stat").read_text().rpartition(")")[2].split()[1])


def cpu_seconds(pid: int) -> float:
    """User and system CPU time so far of a process and its children, ended threads included, to the nanosecond."""
    total = 0.0
    for member in process_tree(pid):
        with contextlib.suppress(OSError):
            total += time.clock_gettime(~member << 3 | _CPUCLOCK_SCHED)
    return total


def resident_bytes(pid: int) -> int:
    """Memory of a process and its children that is in RAM now: what grows with connections, shared libraries do not.

    From `smaps_rollup`: `VmRSS` lags behind by what each processor keeps to itself.
    """
    return sum(_kibibytes(member, "smaps_rollup", "Rss:") for member in process_tree(pid)) * 1024


def peak_resident_bytes(pid: int) -> int:
    """The sum of the largest resident sizes (`VmHWM`) that a process and its children ever had."""
    return sum(_kibibytes(member, "status", "VmHWM:") for member in process_tree(pid)) * 1024


def _kibibytes(pid: int, file: str, field: str) -> int:
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / file).read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
    return 0
