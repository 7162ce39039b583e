"""Lets connections in, within the limits, and knows all that stand.

When places run out the connection that has been idle longest makes room; when all are busy, or the kernel has no more
descriptors, nothing is accepted for a moment, and clients wait in the kernel's queue. A silent client can not hold up
handshakes: past their limit the oldest ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections import Counter
from collections.abc import Iterable
from typing import Final

from ..connection import Connection, Service, Stage

_log = logging.getLogger(__name__)

ACCEPTS_PER_WAKE_UP: Final = 16
"""Connections accepted before those that stand get their turn again: few, so that handshakes advance in a flood."""

PAUSE_SECONDS: Final = 0.2
"""How long no connection is accepted once descriptors or places have run out."""

_LOG_INTERVAL_SECONDS: Final = 10.0
"""A shortage is logged this often at most, however long it lasts."""

_OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Owns the listeners of one process, and every connection that came in by them."""

    def __init__(self, service: Service, listeners: list[socket.socket], loop: asyncio.AbstractEventLoop) -> None:
        self._service = service
        self._listeners = listeners
        self._loop = loop
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._evicted: set[Connection] = set()
        self._per_client: Counter[str] = Counter()
        self._accepting = False
        self._empty = asyncio.Event()
        self._logged_shortage_at = -_LOG_INTERVAL_SECONDS

    @property
    def tasks(self) -> int:
        """How many connections are not over."""
        return len(self._connections)

    def start(self) -> None:
        """Begin to accept, or go on."""
        if not self._accepting and not self._service.draining:
            self._accepting = True
            for listener in self._listeners:
                self._loop.add_reader(listener.fileno(), self._accept, listener)

    def stop(self) -> None:
        """Let in those that the kernel has completed already, and close the listeners: others are refused from now on."""
        self._stop_reading()
        for listener in self._listeners:
            self._accept(listener, socket.SOMAXCONN)
            listener.close()

    def _stop_reading(self) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self._listeners:
                self._loop.remove_reader(listener.fileno())

    def _pause(self) -> None:
        self._service.counters.accept_pauses += 1
        self._stop_reading()
        self._loop.call_later(PAUSE_SECONDS, self.start)

    def _accept(self, listener: socket.socket, at_most: int = ACCEPTS_PER_WAKE_UP) -> None:
        for _ in range(at_most):
            if not self._has_room():
                self._pause()
                return
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._accept_failed(error)
                return
            # What listens to both protocols sees IPv4 clients as ::ffff:192.0.2.1 (RFC 4291 section 2.5.5.2).
            self._welcome(sock, address[0].removeprefix("::ffff:"))

    def _accept_failed(self, error: OSError) -> None:
        shortage = error.errno in _OUT_OF_RESOURCES
        if self._loop.time() - self._logged_shortage_at >= _LOG_INTERVAL_SECONDS:
            self._logged_shortage_at = self._loop.time()
            cure = "; raise LimitNOFILE= or ulimit -n, or lower --max-connections" if shortage else ""
            _log.error("cannot accept connections: %s%s", error.strerror, cure)
        if shortage:
            self._make_room()
            self._pause()

    def _welcome(self, sock: socket.socket, address: str) -> None:
        service = self._service
        service.counters.accepted += 1
        client = client_of(address)
        if self._per_client[client] >= service.settings.max_connections_per_address:
            service.counters.refused["per_address"] += 1
            sock.close()
            return
        sock.setblocking(False)
        connection = Connection(service, sock, address, self._loop)
        self._per_client[client] += 1
        task = connection.start(self._loop)
        self._connections[task] = connection
        task.add_done_callback(self._forget)
        handshaking = service.stages[Stage.HANDSHAKE]
        if len(handshaking) > service.settings.max_handshakes:
            # One that is still under way when so many have come after it belongs to a silent client.
            self._end_longest(handshaking, "handshake_evicted")

    def _forget(self, task: asyncio.Task[None]) -> None:
        connection = self._connections.pop(task)
        self._evicted.discard(connection)
        connection.release()
        client = client_of(connection.address)
        self._per_client[client] -= 1
        if not self._per_client[client]:
            del self._per_client[client]
        if not self._connections:
            self._empty.set()

    def _has_room(self) -> bool:
        """Whether one more may come in. It may when all places are taken, too: only with it there, one has to make room."""
        standing = len(self._connections) - len(self._evicted)
        return standing <= self._service.settings.max_connections or self._make_room()

    def _make_room(self) -> bool:
        """End the connection that has been idle longest; False where all are busy."""
        return self._end_longest(self._service.stages[Stage.IDLE], "idle_evicted")

    def _end_longest(self, connections: Iterable[Connection], label: str) -> bool:
        for connection in connections:
            if connection.end_unless_busy():
                self._evicted.add(connection)
                self._service.counters.refused[label] += 1
                return True
        return False

    def check_deadlines(self) -> None:
        """End what is over its time."""
        for connection in list(self._connections.values()):
            connection.check_deadline()

    def hasten(self, deadline: float) -> None:
        """Give those that wait for a request, or for their handshake, until `deadline` (loop time) at most."""
        for stage in (Stage.IDLE, Stage.HANDSHAKE):
            for connection in self._service.stages[stage]:
                connection.deadline = min(connection.deadline, deadline)

    async def wait_until_empty(self, seconds: float | None = None) -> None:
        """Return once no connection stands, or after so many seconds."""
        if self._connections:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), seconds)

    def abort(self) -> None:
        """End every connection at once."""
        for connection in list(self._connections.values()):
            connection.abort()


def client_of(address: str) -> str:
    """Who counts as one client: an IPv4 address, or an IPv6 /64, which is the least that one customer gets (RFC 6177)."""
    if ":" not in address:
        return address
    return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])[:8].hex()
