"""A small server for plain HTTP: one request a connection, a short answer made at once, and nothing else.

It stands in front of what needs no TLS: the redirect to HTTPS and the metrics. Whatever a client does, it holds one of
a bounded number of places for a bounded time; when all are taken the one that has been here longest goes.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

from ..errors import BadRequest, PeerError
from ..http1.heads import HeadWriter
from ..http1.parser import RequestParser
from ..net.channel import Channel
from ..semantics.messages import Request, Response

_log = logging.getLogger(__name__)

Answer = Callable[[Request], Response]

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_CONNECTIONS: Final = 256
"""A visitor is done in two round trips; 256 at once serve thousands a second."""
SECONDS: Final = 10.0
"""For the whole of a connection: five round trips at the two seconds of a bad mobile line."""

_ACCEPT_PAUSE_SECONDS: Final = 0.2
_ACCEPTS_PER_WAKE_UP: Final = 16


class PlainServer:
    """Answers on `listeners` with what `answer` makes of a request; it may raise BadRequest, and must not wait."""

    def __init__(
        self,
        listeners: list[socket.socket],
        answer: Answer,
        *,
        connections: int = MAX_CONNECTIONS,
        seconds: float = SECONDS,
    ) -> None:
        """Call it inside the loop that will serve."""
        self._loop = asyncio.get_running_loop()
        self._listeners = listeners
        self._answer = answer
        self._max_connections = connections
        self._seconds = seconds
        self._heads = HeadWriter()
        self._tasks: dict[asyncio.Task[None], Channel] = {}
        self._stopped = False

    def start(self) -> None:
        """Begin to accept."""
        if not self._stopped:
            for listener in self._listeners:
                self._loop.add_reader(listener.fileno(), self._accept, listener)

    async def stop(self) -> None:
        """Close the listeners and end the connections that stand."""
        self._stopped = True
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_WAKE_UP):
            try:
                sock, _address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # Out of descriptors or memory; the HTTPS side says so in the log.
                for each in self._listeners:
                    self._loop.remove_reader(each.fileno())
                self._loop.call_later(_ACCEPT_PAUSE_SECONDS, self.start)
                return
            sock.setblocking(False)
            channel = Channel(sock, self._loop)
            if len(self._tasks) >= self._max_connections:
                oldest = next(iter(self._tasks))
                self._tasks.pop(oldest).close()
                oldest.cancel()
            task = self._loop.create_task(self._converse(channel))
            self._tasks[task] = channel
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        # Also for a task that was cancelled before it began.
        channel = self._tasks.pop(task, None)
        if channel is not None:
            channel.close()

    async def _converse(self, channel: Channel) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._exchange(channel)
                await channel.linger()
        except (PeerError, TimeoutError) as loss:
            _log.debug("plain HTTP: %s", loss)
        except Exception:
            _log.exception("a plain HTTP connection ended by a fault of this server; please report it")

    async def _exchange(self, channel: Channel) -> None:
        request = None
        try:
            request = await _request(channel)
            if request is None:
                return
            response = self._answer(request)
        except BadRequest as refusal:
            body = refusal.explanation.encode() + b"\n"
            response = text(refusal.status, body)
        head = self._heads.head(response, keep_alive=False, http_1_0=False)
        parts = [] if request is not None and request.method == b"HEAD" else response.body
        await channel.send(b"".join((head, *(part for part in parts if isinstance(part, bytes)))))


async def _request(channel: Channel) -> Request | None:
    """The first request's head, None where the stream ends before it. Raises BadRequest, ConnectionLost."""
    parser = RequestParser(MAX_HEAD_BYTES)
    while data := await channel.receive(MAX_HEAD_BYTES):
        request = parser.next_request(data)
        if request is not None:
            return request
    return None


def text(status: int, body: bytes, content_type: bytes = b"text/plain; charset=utf-8") -> Response:
    """A short answer, not to be kept by caches."""
    headers = [(b"Content-Type", content_type), (b"Cache-Control", b"no-store")]
    return Response(status, headers, (body,), len(body), close_connection=True)
