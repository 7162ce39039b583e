"""One client's life, from accept to close. Start reading here.

    HANDSHAKE -> IDLE -> REQUEST -> HANDLER -> RESPONSE -> IDLE ... -> CLOSING -> closed

(A request that comes in one piece, is answered at once and fits into the socket's buffer leaves IDLE for none of these.)

1. `begin` makes the transport: the TLS handshake and the keys, or nothing for plain HTTP.
2. The protocol that was agreed on (`http1/conversation.py`) turns bytes into exchanges, until one side has had enough.
3. The end: close_notify, and waiting until the client has read all.

A connection is one coroutine. It waits in three ways: for the client's bytes (`channel.readable`), for the client's reading
(`channel.writable`), and for a handler. There are two ways to end it from outside. `interrupt` ends a wait for the client's
bytes, in order. `abort` resets the connection and cancels the coroutine, whatever it is doing. A cancellation never means
anything else.

A peer can only ever end its own connection: whatever it does surfaces here as a PeerError.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from .accesslog import LoggedConnection
from .errors import ConnectionLost, FileChanged, HandshakeFailed, Interrupted, PeerError
from .exchange import HttpVersion, Life, Service, Stage
from .net.channel import Channel
from .net.deadlines import Watched
from .transport.interface import Transport
from .transport.writer import Writer

_log = logging.getLogger(__name__)

_GRACE_SECONDS = 1.0
"""How much longer an idle connection lives whose time is over, when bytes of a request have just come."""

_SLOW_AFTER_SECONDS = 5.0
"""A response is judged by its rate once it has had so long."""

Begin: TypeAlias = Callable[[str, Channel], Awaitable[tuple[Transport, LoggedConnection, HttpVersion]]]
"""From a client's address and its channel to a transport. Raises HandshakeFailed, ConnectionLost."""


class Posts(Watched):
    """What a connection has to tell its peer, when the peer does not read: it has the time limit of a response."""

    __slots__ = ("connection",)

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection


class Connection(Life):
    """Drives one accepted socket. `run` is the coroutine; everything else is for the server's eyes."""

    __slots__ = (
        *("_acknowledged", "_begin", "_channel", "_ending", "_posts", "_released", "_reprieved", "_response_began"),
        *("_task", "_writer", "address"),
    )

    def __init__(
        self, service: Service, begin: Begin, sock: socket.socket, address: str, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(service, LoggedConnection(address, "", "", ""))
        self._begin = begin
        self._channel = Channel(sock, loop)
        self._task: asyncio.Task[None] | None = None
        self._ending = self._reprieved = self._released = False
        self._posts: Posts | None = None
        self._writer: Writer | None = None
        self._acknowledged = 0
        self._response_began = 0.0
        self.address = address

    def start(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        """Begin; the task ends when the connection is closed, and never with an exception."""
        self._task = loop.create_task(self.run())
        return self._task

    async def run(self) -> None:
        """The whole life. Every way out of it closes the socket."""
        try:
            await self._converse()
        except asyncio.CancelledError:
            if not self._ending:
                raise
        except HandshakeFailed as failure:
            self.service.counters.count_handshake_failure(failure.reason)
            _log.debug("%s: %s", self.address, failure)
        except (PeerError, FileChanged, Interrupted) as loss:
            _log.debug("%s: %s", self.address, loss or "interrupted")
        except Exception:
            _log.exception("a connection ended by a fault of this server; please report it")
        finally:
            self.release()

    async def _converse(self) -> None:
        channel = self._channel
        try:
            transport, self.client, protocol = await self._begin(self.address, channel)
        except HandshakeFailed:
            await self._linger()  # so that the alert is read before the connection goes
            raise
        self._writer = transport.writer
        self._writer.watch(self._on_blocked)
        self.enter(Stage.IDLE)
        try:
            await protocol.converse(self, transport)
        except ConnectionLost:
            self.enter(Stage.CLOSING)
            await transport.writer.drain()  # there may be an alert to read
            await channel.linger()
            raise
        except Interrupted:
            self.enter(Stage.CLOSING)
            delivered = channel.all_acknowledged()
            await transport.writer.close_notify()
            if not delivered:
                await channel.linger()
            # Else nothing is on its way, and the peer has no reason to keep us waiting.
            return
        self.enter(Stage.CLOSING)
        await transport.writer.close_notify()
        await channel.linger()

    async def _linger(self) -> None:
        """Wait until the peer has read what it was sent: closing on unread bytes would reset that."""
        self.enter(Stage.CLOSING)
        await self._channel.linger()

    def enter(self, stage: Stage) -> None:
        super().enter(stage)
        if stage is Stage.RESPONSE:
            self._acknowledged = self._channel.bytes_acknowledged()
            self._response_began = time.monotonic()

    def release(self) -> None:
        """Give back the socket and the place. The server calls it, too: a task cancelled before its first step never runs."""
        if not self._released:
            self._released = True
            self.service.stages[self.stage].remove(self)
            self._on_blocked(False)
            self._channel.close()
            if self._writer is not None:
                self._writer.close()

    # Time limits

    def _on_blocked(self, blocked: bool) -> None:
        """The writer has something to say to a peer that does not read, or has said it."""
        if blocked and self._posts is None:
            self._posts = Posts(self)
            self._posts.deadline = time.monotonic() + self.service.settings.send_timeout
            self.service.blocked.add(self._posts)
        elif not blocked and self._posts is not None:
            self.service.blocked.remove(self._posts)
            self._posts = None

    def on_deadline(self) -> None:
        """The time limit of the stage is over: end the connection, unless its deadline can be put off."""
        stage = self.stage
        if self._channel.closed or (stage is Stage.RESPONSE and self._makes_progress()):
            return
        if stage is Stage.IDLE and not self._reprieved and self._channel.has_unread_bytes():
            # A request came before we closed: it is answered. Once, since what comes is read as soon as the loop gets to it.
            self._reprieved = True
            self.deadline = time.monotonic() + _GRACE_SECONDS
            return
        if not self._ending:  # It may not have had its turn to end since the last look.
            self.service.counters.timeouts[stage.value] += 1
        if stage in (Stage.RESPONSE, Stage.HANDLER) or self._ending:
            self.abort()  # What the client does not read must not stay in the kernel, either.
        else:
            self.interrupt()

    def on_posts_deadline(self) -> None:
        """The client made the server talk and does not read the answer."""
        if not self._ending:
            self.service.counters.timeouts["posts"] += 1
        self.abort()

    def _makes_progress(self) -> bool:
        acknowledged = self._channel.bytes_acknowledged()
        progress = acknowledged - self._acknowledged
        settings = self.service.settings
        if progress <= 0 or progress < settings.min_rate * settings.send_timeout:
            return False
        self._acknowledged = acknowledged
        self.deadline = time.monotonic() + settings.send_timeout
        self._response_began = time.monotonic()
        return True

    # Endings

    def interrupt(self) -> None:
        """Have the connection end in order, once it waits for the client's bytes; before there is TLS, at once."""
        self._ending = True
        if self.stage in (Stage.HANDSHAKE, Stage.CLOSING):
            self._cancel()
            return
        self._channel.interrupt()
        # Where it does not go on to another stage in this time, it is aborted.
        self.deadline = min(self.deadline, time.monotonic() + _GRACE_SECONDS)

    def end_unless_busy(self) -> bool:
        """End a connection whose place is needed; False where a request has just come, or it is ending already."""
        if self._ending or (self.stage is Stage.IDLE and self._channel.has_unread_bytes()):
            return False
        self.interrupt()
        return True

    def response_rate(self, now: float) -> float | None:
        """Bytes per second that the client has acknowledged of its response; None where it has not had its time yet."""
        seconds = now - self._response_began
        if self._ending or self.stage is not Stage.RESPONSE or seconds < _SLOW_AFTER_SECONDS:
            return None
        return (self._channel.bytes_acknowledged() - self._acknowledged) / seconds

    def abort(self) -> None:
        """Reset the connection, whatever it is doing."""
        self._ending = True
        self._channel.reset()
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
