"""How many processors this process may keep busy: what `auto` means for workers and other parallel work."""

from __future__ import annotations

import os
from pathlib import Path

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def usable_processors(cpu_max: Path = _CPU_MAX) -> int:
    """The affinity mask (sched_getaffinity(2)), bounded by the quota of the control group, as containers have one.

    `cpu_max` holds `QUOTA PERIOD` in microseconds, or `max PERIOD` (Documentation/admin-guide/cgroup-v2.rst). Where it
    cannot be read there is no quota. At least 1.
    """
    available = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        whole = -(-int(quota) // int(period))
    except (OSError, ValueError):
        return available
    return max(1, min(available, whole))
