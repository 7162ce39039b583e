"""Who really encrypted: asked from the kernel's counters, not from the server that is measured."""

from __future__ import annotations

from ..errors import SystemRefusal
from ..kernel.probe import tls_stat


def keyed_connections() -> int:
    """How many connections of this network namespace the kernel, or a network card, has begun to encrypt since boot."""
    counters = tls_stat()
    return counters.get("TlsTxSw", 0) + counters.get("TlsTxDevice", 0)


def check_path(name: str, *, kernel: bool, connections: int, keyed: int) -> None:
    """Raise SystemRefusal unless all of the `connections` were keyed where the kernel had to, and none where not.

    `keyed` is how far `keyed_connections()` rose meanwhile.
    """
    if kernel and keyed < connections:
        raise SystemRefusal(
            f"{name}: of {connections} connections the kernel encrypted {keyed} (TlsTxSw of /proc/net/tls_stat);"
            " a figure of the kernel path would be false"
        )
    if not kernel and keyed:
        raise SystemRefusal(
            f"{name}: the kernel encrypted {keyed} connections (TlsTxSw of /proc/net/tls_stat), and should have none;"
            " if another program uses kernel TLS at this moment, try again without it"
        )
