"""Listening sockets: made before anything else, so that a port that is taken is said at once."""

from __future__ import annotations

import errno
import socket
from typing import Final

from ..errors import ConfigurationError

BACKLOG: Final = 4096
"""Connections that the kernel completes before we accept them; it takes net.core.somaxconn (4096 by default) at most."""


def bind(host: str, port: int, *, option: str = "port") -> list[socket.socket]:
    """Non-blocking sockets listening on every address of `host`; with port 0 all on the same free one.

    Raises ConfigurationError, which names the `option` that the port came from.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        name = "metrics_host" if option == "metrics_port" else "host"
        raise ConfigurationError(f"{name}: {host!r} is no address of this machine ({error.strerror})") from None
    listeners: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            free = listeners[0].getsockname()[1] if port == 0 and listeners else port
            listeners.append(_listen(family, (address[0], free, *address[2:])))
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise ConfigurationError(f"{option}: cannot listen on {host} port {port}: {_cure(error, port)}") from None
    return listeners


def _listen(family: socket.AddressFamily, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" stands for IPv6 alone: what listens to both takes "0.0.0.0" away from an own listener.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return adopt(listener)


def adopt(listener: socket.socket) -> socket.socket:
    """Make a listening socket, our own or one that was handed over, behave as all of ours do."""
    # Accepted sockets inherit it. Without it Nagle's algorithm and delayed ACKs add 40 ms to a response in two parts.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    return listener


def _cure(error: OSError, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"another program has it; `ss -ltnp 'sport = :{port}'` shows which, --port 0 picks a free one"
        case errno.EACCES:
            return "ports below 1024 are the administrator's; start as root with --user NAME, or use --port 8443"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; `ip address` lists those it has"
        case _:
            return error.strerror or str(error)


def port_of(listener: socket.socket) -> int:
    """The port that it got."""
    port: int = listener.getsockname()[1]
    return port


def url_host(address: str) -> str:
    """An address as it stands in a URL (RFC 3986 section 3.2.2)."""
    return f"[{address}]" if ":" in address else address
