"""All connections of one server in one process: who is let in, who has to make room, whose time is over.

When places run out the connection that has been idle longest makes room; where none is idle, the slowest download does.
When all are busy, or the kernel has no more descriptors, nothing is accepted for a moment, and clients wait in the kernel's
queue. A silent client can not hold up handshakes: past their limit the oldest ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import Final, cast

from ..connection import Begin, Connection, Posts
from ..exchange import Service, Stage
from ..net.addresses import client_of
from ..net.listener import Listener
from .client_counts import ClientCounts

SLOW_BYTES_PER_SECOND: Final = 8192
"""A download slower than this may have to make room when all places are taken: what a telephone modem took twice over."""


class Connections:
    """Owns the listening sockets of one server, and every connection that came in by them."""

    def __init__(
        self,
        service: Service,
        begin: Begin,
        listeners: list[socket.socket],
        loop: asyncio.AbstractEventLoop,
        client_counts: ClientCounts,
    ) -> None:
        self._service = service
        self._begin = begin
        self._loop = loop
        self._client_counts = client_counts
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._evicted: set[Connection] = set()
        self._empty = asyncio.Event()
        self._listener = Listener(
            listeners,
            loop,
            welcome=self._welcome,
            has_room=self._has_room,
            on_shortage=self._make_room,
            on_pause=self._count_pause,
        )

    @property
    def tasks(self) -> int:
        """How many connections are not over."""
        return len(self._connections)

    def start(self) -> None:
        """Begin to accept."""
        self._listener.start()

    def stop(self) -> None:
        """Let in those that the kernel has completed already; others are refused from now on."""
        self._listener.stop()

    def _count_pause(self) -> None:
        self._service.counters.accept_pauses += 1

    def _welcome(self, sock: socket.socket, address: str) -> None:
        service = self._service
        service.counters.accepted += 1
        client = client_of(address)
        if self._client_counts.count(client) >= service.settings.max_connections_per_address:
            service.counters.refused["per_address"] += 1
            sock.close()
            return
        connection = Connection(service, self._begin, sock, address, self._loop)
        self._client_counts.add(client)
        task = connection.start(self._loop)
        self._connections[task] = connection
        task.add_done_callback(self._forget)
        if len(service.stages[Stage.HANDSHAKE]) > service.settings.max_handshakes:
            # One that is still under way when so many have come after it belongs to a silent client.
            self._end_longest(Stage.HANDSHAKE, "handshake_evicted")

    def _forget(self, task: asyncio.Task[None]) -> None:
        connection = self._connections.pop(task)
        self._evicted.discard(connection)
        connection.release()
        self._client_counts.remove(client_of(connection.address))
        if not self._connections:
            self._empty.set()

    def _has_room(self) -> bool:
        """Whether to accept another connection. One more than the limit is accepted: another is closed for it."""
        standing = len(self._connections) - len(self._evicted)
        return standing <= self._service.settings.max_connections or self._make_room()

    def _make_room(self) -> bool:
        """End the connection that has been idle longest, or the slowest download; False where neither is there."""
        return self._end_longest(Stage.IDLE, "idle_evicted") or self._end_slowest()

    def _end_longest(self, stage: Stage, label: str) -> bool:
        for watched in self._service.stages[stage].earliest_first():
            connection = cast(Connection, watched)
            if connection.end_unless_busy():
                self._count_eviction(connection, label)
                return True
        return False

    def _end_slowest(self) -> bool:
        now = time.monotonic()
        slowest, slowest_rate = None, float(SLOW_BYTES_PER_SECOND)
        for watched in self._service.stages[Stage.RESPONSE].all():
            connection = cast(Connection, watched)
            rate = connection.response_rate(now)
            if rate is not None and rate < slowest_rate:
                slowest, slowest_rate = connection, rate
        if slowest is None:
            return False
        slowest.abort()
        self._count_eviction(slowest, "slow_evicted")
        return True

    def _count_eviction(self, connection: Connection, label: str) -> None:
        self._evicted.add(connection)
        self._service.counters.refused[label] += 1

    def check_deadlines(self) -> None:
        """End what is over its time."""
        now = time.monotonic()
        for deadlines in self._service.stages.values():
            for watched in deadlines.over(now):
                cast(Connection, watched).on_deadline()
        for watched in self._service.blocked.over(now):
            cast(Posts, watched).connection.on_posts_deadline()

    def drain(self) -> None:
        """Have every connection that can say so tell its client that it ends."""
        for connection in list(self._connections.values()):
            if connection.on_drain is not None:
                connection.on_drain()

    def hasten(self, seconds: float) -> None:
        """Give those that wait for a request, or for their handshake, so many seconds from now at most."""
        latest = time.monotonic() + seconds
        for stage in (Stage.IDLE, Stage.HANDSHAKE):
            deadlines = self._service.stages[stage]
            for watched in deadlines.all():
                if watched.deadline > latest:
                    deadlines.remove(watched)
                    watched.deadline = latest
                    deadlines.add(watched)

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
