"""systemd's two small protocols: sockets handed over (sd_listen_fds(3)), and news for the manager (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

from ..errors import ConfigurationError

SD_LISTEN_FDS_START: Final = 3


def take_sockets(environment: MutableMapping[str, str] = os.environ) -> dict[str, list[socket.socket]]:
    """The listening sockets that systemd opened for this process, by the names given by `FileDescriptorName=`.

    The variables are removed, so that no child takes them for its own. Raises ConfigurationError for a socket that is
    not a listening TCP socket.
    """
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    taken: dict[str, list[socket.socket]] = {}
    for index in range(int(count)):
        name = names[index] if index < len(names) else ""
        taken.setdefault(name, []).append(_listener(SD_LISTEN_FDS_START + index))
    return taken


def _listener(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        listener = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigurationError(f"LISTEN_FDS names descriptor {descriptor}: {error.strerror}") from None
    if (
        listener.family not in (socket.AF_INET, socket.AF_INET6)
        or listener.type != socket.SOCK_STREAM
        or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        raise ConfigurationError(
            f"systemd handed over descriptor {descriptor}, which is no listening TCP socket;"
            " the socket unit needs ListenStream= with a port, and Accept=no"
        )
    return listener


def notify(state: str) -> None:
    """Tell the service manager, where there is one: `READY=1` and the like. Never raises."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.sendall(state.encode())


def notify_ready() -> None:
    """Start-up, or a reload, is complete."""
    notify("READY=1")


def notify_reloading() -> None:
    """`Type=notify-reload` wants to know when the reload began (systemd.service(5))."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def notify_stopping() -> None:
    """The end has begun."""
    notify("STOPPING=1")
