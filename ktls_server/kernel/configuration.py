"""How this kernel was built, where it tells: whether it can have a tls module at all."""

from __future__ import annotations

import gzip
import platform
import re
import zlib
from pathlib import Path


def built_with_tls(root: Path = Path("/")) -> str | None:
    """What CONFIG_TLS was set to: "y", "m", "no", or None where the kernel does not tell. `root` stands for / in tests.

    /proc/config.gz is the running kernel's own word (CONFIG_IKCONFIG_PROC); distributions put the same text into /boot.
    """
    release = platform.release()
    for place in ("proc/config.gz", f"boot/config-{release}", f"lib/modules/{release}/config"):
        try:
            content = (root / place).read_bytes()
            text = gzip.decompress(content) if place.endswith(".gz") else content
        except (OSError, EOFError, zlib.error):
            continue
        found = re.search(rb"(?m)^(?:CONFIG_TLS=([ym])|# CONFIG_TLS is not set)$", text)
        if found:
            return found[1].decode("ascii") if found[1] else "no"
    return None
