"""One client's life, from accept to close. Start reading here.

    HANDSHAKE -> IDLE -> REQUEST -> RESPONSE -> IDLE ... -> CLOSING -> closed

(REQUEST is skipped where a request comes in one piece.)

A connection is one coroutine. It waits in four places: for handshake bytes, for a request, for room to send, and at the
end for the peer to have read all. Each stage has a time limit; the server looks at all of them about once a second and
ends what is over it, so that a request sets no timer.

A peer can only ever end its own connection: whatever it does surfaces here as a PeerError.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from .accesslog import AccessLog, LoggedConnection
from .counters import Counters
from .errors import BadRequest, ConnectionLost, FileChanged, HandshakeFailed, PeerError
from .files.site import Site
from .handshake.driver import PlainHttpReceived, accept
from .http1.heads import HeadWriter
from .http1.parser import RequestParser
from .keys.keylog import KeyLog
from .net.channel import Channel
from .passwords import Authenticator
from .semantics.messages import BodyPart, Request, Response
from .settings import Settings
from .transport.choice import TransportPolicy, establish
from .transport.interface import Transport

_log = logging.getLogger(__name__)

DRAIN_SECONDS: Final = 1.0
"""How long a connection may still wait for a request, or for its handshake, once the server is asked to stop."""

LINGER_SECONDS: Final = 2.0
"""How long the peer may take to read the end of what it was sent, after we have stopped listening to it."""

_PLAIN_HTTP_TEXT: Final = b"This port speaks HTTPS. Ask again with https:// in front of the address.\n"
_PLAIN_HTTP_ANSWER: Final = b"\r\n".join(
    (
        b"HTTP/1.1 400 Bad Request",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: %d" % len(_PLAIN_HTTP_TEXT),
        b"Connection: close",
        b"",
        _PLAIN_HTTP_TEXT,
    )
)


class Stage(enum.Enum):
    """Where a connection is. `next_stages` is the whole of its life."""

    HANDSHAKE = "handshake"
    IDLE = "idle"
    REQUEST = "request"
    RESPONSE = "response"
    CLOSING = "closing"


next_stages: Final = {
    Stage.HANDSHAKE: {Stage.IDLE, Stage.CLOSING},
    Stage.IDLE: {Stage.REQUEST, Stage.RESPONSE, Stage.CLOSING},
    Stage.REQUEST: {Stage.RESPONSE, Stage.CLOSING},
    Stage.RESPONSE: {Stage.IDLE, Stage.CLOSING},
    Stage.CLOSING: set[Stage](),
}


@dataclass(slots=True)
class Service:
    """What all connections of a process share. `now` is the loop's time, as of the last look at the time limits."""

    settings: Settings
    site: Site
    context: ssl.SSLContext
    key_log: KeyLog | None
    policy: TransportPolicy
    heads: HeadWriter
    counters: Counters
    access_log: AccessLog | None
    authenticator: Authenticator | None
    password_threads: ThreadPoolExecutor
    now: float
    draining: bool = False
    stages: dict[Stage, dict[Connection, None]] = field(default_factory=lambda: {stage: {} for stage in Stage})
    """Who is in which stage, longest first."""

    def time_limit(self, stage: Stage) -> float:
        """How many seconds a connection may stay in `stage`; in RESPONSE, without enough progress."""
        settings = self.settings
        match stage:
            case Stage.HANDSHAKE:
                return settings.handshake_timeout
            case Stage.IDLE:
                return DRAIN_SECONDS if self.draining else settings.keepalive_timeout
            case Stage.REQUEST:
                return settings.head_timeout
            case Stage.RESPONSE:
                return settings.send_timeout
            case Stage.CLOSING:
                return LINGER_SECONDS


class Connection:
    """Drives one accepted socket. `run` is the coroutine; everything else is for the server's eyes."""

    __slots__ = (
        "_acknowledged",
        "_channel",
        "_expired",
        "_logged",
        "_service",
        "_task",
        "address",
        "deadline",
        "stage",
    )

    def __init__(self, service: Service, sock: socket.socket, address: str, loop: asyncio.AbstractEventLoop) -> None:
        self._service = service
        self._channel = Channel(sock, loop)
        self._logged: LoggedConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._expired = False
        self._acknowledged = 0
        self.address = address
        self.stage = Stage.HANDSHAKE
        self.deadline = service.now + service.time_limit(Stage.HANDSHAKE)
        service.stages[Stage.HANDSHAKE][self] = None

    def start(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
        """Begin; the task ends when the connection is closed, and never with an exception."""
        self._task = loop.create_task(self.run())
        return self._task

    def check_deadline(self) -> None:
        """Called by the server about once a second: end what is over its time, or too slow."""
        service = self._service
        if service.now < self.deadline:
            return
        if self.stage is Stage.IDLE and self._channel.has_unread_bytes():
            return  # A request came before we closed: it is answered.
        if self.stage is Stage.RESPONSE:
            acknowledged = self._channel.bytes_acknowledged()
            progress = acknowledged - self._acknowledged
            self._acknowledged = acknowledged
            seconds = service.time_limit(Stage.RESPONSE)
            if progress and progress >= service.settings.min_rate * seconds:
                self.deadline = service.now + seconds
                return
        if not self._expired:  # It may not have had its turn to end since the last look.
            service.counters.timeouts[self.stage.value] += 1
        if self.stage is Stage.RESPONSE:
            self.abort()  # What it does not read must not stay in the kernel, either.
        else:
            self.end()

    def end(self) -> None:
        """Have the connection end, by itself and soon: politely where nothing is in flight."""
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    def end_unless_busy(self) -> bool:
        """End a connection whose place is needed; False where a request has just come, or it is ending already."""
        if self._expired or (self.stage is Stage.IDLE and self._channel.has_unread_bytes()):
            return False
        self.end()
        return True

    def abort(self) -> None:
        """Cut the connection, whatever it is doing."""
        self._channel.reset()
        self.end()

    async def run(self) -> None:
        """The whole life. Every way out of it closes the socket."""
        try:
            await self._converse()
        except asyncio.CancelledError:
            if not self._expired:
                raise
        except HandshakeFailed as failure:
            self._service.counters.count_handshake_failure(failure.reason)
            _log.debug("%s: %s", self.address, failure)
        except (PeerError, FileChanged) as loss:
            _log.debug("%s: %s", self.address, loss)
        except Exception:
            _log.exception("a connection ended by a fault of this server; please report it")
        finally:
            self.release()

    def release(self) -> None:
        """Give back the socket and the place. The server calls it, too: a task cancelled before its first step never runs."""
        self._service.stages[self.stage].pop(self, None)
        self._channel.close()

    def _enter(self, stage: Stage) -> None:
        assert stage in next_stages[self.stage], (self.stage, stage)
        service = self._service
        del service.stages[self.stage][self]
        service.stages[stage][self] = None
        self.stage = stage
        self.deadline = service.now + service.time_limit(stage)

    async def _converse(self) -> None:
        service, channel = self._service, self._channel
        try:
            session = await accept(channel, service.context, service.key_log)
        except PlainHttpReceived:
            channel.try_send(_PLAIN_HTTP_ANSWER)
            await self._linger()
            raise
        except HandshakeFailed:
            await self._linger()  # so that the alert is read before the connection goes
            raise
        transport = establish(channel, session, service.policy, service.counters.key_updates)
        logged = LoggedConnection(self.address, session.version, session.cipher, transport.transmit_path)
        self._logged = logged
        service.counters.connections[logged.tx, logged.tls_version, logged.cipher] += 1
        # The session belongs to the transport now: with receive offload it is not needed any more, and large.
        del session
        self._enter(Stage.IDLE)
        try:
            await self._serve(transport)
        except ConnectionLost:
            await self._linger()  # there may be an alert to read
            raise
        except asyncio.CancelledError:
            if not self._expired or self.stage is not Stage.IDLE:
                raise
            self._enter(Stage.CLOSING)
            delivered = self._channel.all_acknowledged()
            await transport.close_notify()
            if not delivered:
                await self._channel.linger()
            # Else nothing is on its way, and the peer has no reason to keep us waiting.
            return
        await transport.close_notify()
        await self._linger()

    async def _serve(self, transport: Transport) -> None:
        """Answer requests until one side has had enough."""
        settings = self._service.settings
        parser = RequestParser(settings.max_head_bytes)
        for left in range(settings.max_requests - 1, -1, -1):
            started = 0.0
            try:
                request = await self._next_request(transport, parser)
                if request is None:
                    return
                started = time.perf_counter()
                body_is_read = await self._skip_body(transport, parser, request)
                response = await self._respond(request)
            except BadRequest as refusal:
                request, body_is_read = None, False
                response = self._service.site.error(refusal.status, refusal.explanation, close=True)
            keep_alive = (
                request is not None
                and request.keep_alive
                and body_is_read
                and left > 0
                and not response.close_connection
                and not transport.must_close
                and not self._service.draining
            )
            self._enter(Stage.RESPONSE)
            http_1_0 = request is not None and request.version == b"1.0"
            head = self._service.heads.head(response, keep_alive, http_1_0)
            body_begins = self._channel.sent + len(head)
            try:
                await self._send(transport, head, response.body)
            finally:
                response.close()
                self._note(request, response, self._channel.sent - body_begins, started)
            if not keep_alive:
                return
            self._enter(Stage.IDLE)

    async def _next_request(self, transport: Transport, parser: RequestParser) -> Request | None:
        """The next request head, or None at the end of the stream. Raises BadRequest, ConnectionLost."""
        data = b""
        while True:
            if data or not parser.idle:
                request = parser.next_request(data)
                if request is not None:
                    return request
                if not parser.idle:
                    self._expect_more_of_a_request()
            try:
                data = await transport.receive()
            except asyncio.CancelledError:
                if self._expired and self.stage is Stage.REQUEST:
                    raise BadRequest(408, "the request took too long to arrive") from None
                raise
            if not data:
                return None

    def _expect_more_of_a_request(self) -> None:
        """Part of a request is here: from now on its time limit counts, and it is answered even if that runs out."""
        if self.stage is Stage.IDLE:
            self._enter(Stage.REQUEST)

    async def _skip_body(self, transport: Transport, parser: RequestParser, request: Request) -> bool:
        """Read the request to its end; False where it was left unread, and the connection can not be used again."""
        data = b""
        while not parser.skip_body(data):
            if request.header(b"expect") is not None:
                # RFC 9110 section 10.1.1: the final status goes out at once, the body need never come.
                return False
            self._expect_more_of_a_request()
            try:
                data = await transport.receive()
            except asyncio.CancelledError:
                if self._expired:
                    raise BadRequest(408, "the request took too long to arrive") from None
                raise
            if not data:
                raise ConnectionLost("the stream ended within a request")
        return True

    async def _respond(self, request: Request) -> Response:
        authenticator = self._service.authenticator
        if authenticator is not None:
            authorization = request.header(b"authorization")
            if authenticator.check_cached(authorization) is None:
                # A password hash is slow on purpose: not on the event loop's thread.
                self._expect_more_of_a_request()
                await asyncio.get_running_loop().run_in_executor(
                    self._service.password_threads, authenticator.verify, authorization
                )
        return self._service.site.respond(request)

    async def _send(self, transport: Transport, head: bytes, parts: tuple[BodyPart, ...]) -> None:
        """Head and body; the head shares a record, and a system call, with what follows it."""
        if not parts:
            await transport.send(head)
            return
        await transport.send(head, more=True)
        last = len(parts) - 1
        for index, part in enumerate(parts):
            if isinstance(part, bytes):
                await transport.send(part, more=index < last)
            else:
                await transport.send_file(part.fd, part.offset, part.count)

    def _note(self, request: Request | None, response: Response, sent: int, started: float) -> None:
        """Count and log one response. `sent`: bytes that the kernel took after the head, records and all in userspace."""
        service, logged = self._service, self._logged
        assert logged is not None
        # A response that was cut counts with what was sent of it, as in nginx's log.
        size = min(response.content_length or 0, max(sent, 0)) if response.body else 0
        service.counters.responses[response.status] += 1
        service.counters.body_bytes[logged.tx] += size
        if service.access_log is not None:
            duration = time.perf_counter() - started if started else 0.0
            service.access_log.write(logged, request, response.status, size, duration)

    async def _linger(self) -> None:
        """Say that we are done, and wait until the peer is: closing on unread bytes would reset what it has not read yet."""
        self._enter(Stage.CLOSING)
        await self._channel.linger()
