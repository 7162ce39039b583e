"""What the protocols have in common: an exchange, its stages, and what all connections of a server share.

An exchange is one request and its answer. It is counted once and logged once, when it ends. A handler makes the answer:

    handler(request, client) -> Response, or an awaitable of one

A handler that need not wait returns the Response itself, and costs no more than a call. One that has to wait (a password
to verify, a large folder to list) returns an awaitable; it gets HANDLER_SECONDS.

A deadline says whom the server waits for:

| stage | waits for | time limit | what the client sees when it is over |
|---|---|---|---|
| HANDSHAKE | the client's bytes | --handshake-timeout | the connection is closed |
| IDLE | the client's bytes | --keepalive-timeout | close_notify |
| REQUEST | the client's bytes | --head-timeout | 408 |
| HANDLER | ourselves | HANDLER_SECONDS | 503 |
| RESPONSE | the client's reading | --send-timeout without enough progress (--min-rate) | the connection is cut |
| CLOSING | the client's bytes | LINGER_SECONDS | the connection is closed |
"""

from __future__ import annotations

import enum
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from .accesslog import AccessLog, LoggedConnection
from .counters import Counters
from .errors import FileUnreadable
from .net.deadlines import Deadlines, Watched
from .semantics.messages import Request, Response
from .settings import Settings
from .transport.interface import Transport

_log = logging.getLogger(__name__)

DRAIN_SECONDS: Final = 1.0
"""How long a connection may still wait for a request, or for its handshake, once the server is asked to stop."""

LINGER_SECONDS: Final = 2.0
"""How long the peer may take to read the end of what it was sent, after we have stopped listening to it."""

HANDLER_SECONDS: Final = 60.0
"""How long a handler may take before its request is answered with 503. Longer than the queue for passwords ever is."""


class Stage(enum.Enum):
    """Where a connection is. `next_stages` is the whole of its life."""

    HANDSHAKE = "handshake"
    IDLE = "idle"
    REQUEST = "request"
    HANDLER = "handler"
    RESPONSE = "response"
    CLOSING = "closing"


next_stages: Final = {
    Stage.HANDSHAKE: {Stage.IDLE, Stage.CLOSING},
    Stage.IDLE: {Stage.REQUEST, Stage.HANDLER, Stage.RESPONSE, Stage.CLOSING},
    Stage.REQUEST: {Stage.HANDLER, Stage.RESPONSE, Stage.IDLE, Stage.CLOSING},
    Stage.HANDLER: {Stage.RESPONSE, Stage.IDLE, Stage.CLOSING},
    Stage.RESPONSE: {Stage.IDLE, Stage.CLOSING},
    Stage.CLOSING: set[Stage](),
}

Handler: TypeAlias = Callable[[Request, LoggedConnection], Response | Awaitable[Response]]


class HttpVersion(Protocol):
    """A version of HTTP on the wire: turns what a transport gives into exchanges."""

    async def converse(self, life: Life, transport: Transport) -> None:
        """Answer requests until one side has had enough. The caller sends close_notify."""


@dataclass(slots=True)
class Service:
    """What all connections of one server in one process share.

    `responses` and `body_bytes` are the counters that exchanges count in, `refuse` makes the response to a request that
    could not be read. `longest_turn` is the longest time in seconds that a step of one connection has held the event loop
    since somebody last set it to zero.
    """

    settings: Settings
    handler: Handler
    refuse: Callable[[int, str], Response]
    counters: Counters
    responses: Counter[int]
    body_bytes: Counter[str]
    access_log: AccessLog | None
    draining: bool = False
    longest_turn: float = 0.0
    stages: dict[Stage, Deadlines] = field(default_factory=lambda: {stage: Deadlines() for stage in Stage})
    blocked: Deadlines = field(default_factory=Deadlines)
    """Connections whose peer has to read before it can be told what it made us say."""

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
            case Stage.HANDLER:
                return 2 * HANDLER_SECONDS
            case Stage.RESPONSE:
                return settings.send_timeout
            case Stage.CLOSING:
                return LINGER_SECONDS

    def note_turn(self, seconds: float) -> None:
        """A step of one connection held the event loop for so long."""
        if seconds > self.longest_turn:
            self.longest_turn = seconds


class Life(Watched):
    """A connection as its protocol sees it: who the client is, in which stage, and until when."""

    __slots__ = ("client", "on_drain", "service", "stage")

    def __init__(self, service: Service, client: LoggedConnection) -> None:
        super().__init__()
        self.on_drain: Callable[[], object] | None = None
        """What the protocol wants to be called when the server is asked to stop."""
        self.service = service
        self.client = client
        self.stage = Stage.HANDSHAKE
        self.deadline = time.monotonic() + service.time_limit(Stage.HANDSHAKE)
        service.stages[Stage.HANDSHAKE].add(self)

    def enter(self, stage: Stage) -> None:
        """Go on to `stage`, whose time limit counts from now."""
        assert stage in next_stages[self.stage], (self.stage, stage)
        service = self.service
        service.stages[self.stage].remove(self)
        self.stage = stage
        self.deadline = time.monotonic() + service.time_limit(stage)
        service.stages[stage].add(self)


class Exchange:
    """One request and its answer: `begin`, then `finish`, once each. HTTP/1.1 uses the same object for one after the other.

    `request` is None where what came could not be read as one. `began` is when it was complete, by `time.monotonic`.
    """

    __slots__ = ("_client", "_service", "began", "request")

    def __init__(self, service: Service, client: LoggedConnection) -> None:
        self._service = service
        self._client = client
        self.request: Request | None = None
        self.began = 0.0

    def begin(self, request: Request | None, now: float) -> None:
        """A request is here."""
        self.request = request
        self.began = now

    def finish(self, response: Response, sent: int, now: float) -> None:
        """Count and log. `sent`: how many bytes of the body were taken by the kernel."""
        service, client = self._service, self._client
        # A response that was cut counts with what was sent of it, as in nginx's log.
        size = min(response.content_length or 0, sent) if response.body and sent > 0 else 0
        service.responses[response.status] += 1
        service.body_bytes[client.tx] += size
        if service.access_log is not None:
            service.access_log.write(client, self.request, response.status, size, now - self.began)


def log_unreadable(error: FileUnreadable, response: Response) -> None:
    """The one line for a file whose reading failed while it was sent: it names the file, whoever encrypts."""
    try:
        name = os.readlink(f"/proc/self/fd/{response.fd}")
    except OSError:
        name = "a file"
    _log.error("%r could not be read while it was being sent: %s", name, os.strerror(error.errno))
