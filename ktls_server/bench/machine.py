"""Where figures were taken: what they depend on, and nothing that names the machine."""

from __future__ import annotations

import os
import platform
import ssl
from pathlib import Path


def describe_machine() -> dict[str, str | int]:
    """Processor, number of processors that may be used, kernel, Python and OpenSSL."""
    return {
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        # Only the version: what follows it is the builder's own.
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "openssl": ssl.OPENSSL_VERSION,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
