"""What is served by plain HTTP, beside HTTPS: the redirect to HTTPS and the metrics, each with limits of its own.

Whatever a client does, it holds one of a bounded number of places for a bounded time; when all are taken the one that has
been idle longest goes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import sys
from collections import Counter
from collections.abc import Awaitable
from functools import partial
from typing import Final

from ..accesslog import LoggedConnection
from ..beginning import PlainBeginning
from ..counters import Counters
from ..errors import BadRequest
from ..exchange import Handler, Service
from ..http1.conversation import Http1
from ..semantics.messages import Request, Response
from ..settings import Settings
from .client_counts import ClientCounts
from .connections import Connections

MAX_CONNECTIONS: Final = 256
"""A visitor is done in two round trips; 256 at once serve thousands a second."""
SECONDS: Final = 10.0
"""For each wait: five round trips at the two seconds of a bad mobile line."""
_MAX_HEAD_BYTES: Final = 16 * 1024


def plain_connections(
    settings: Settings,
    handler: Handler,
    listeners: list[socket.socket],
    loop: asyncio.AbstractEventLoop,
    *,
    counters: Counters,
    responses: Counter[int],
    connections: int = MAX_CONNECTIONS,
    seconds: float = SECONDS,
) -> Connections:
    """Answers on `listeners` by `handler`. `settings` are the server's; limits that matter here are replaced."""
    own = dataclasses.replace(
        settings,
        max_connections=connections,
        max_connections_per_address=sys.maxsize,  # The oldest connection makes room, whoever has it.
        max_head_bytes=_MAX_HEAD_BYTES,
        keepalive_timeout=seconds,
        head_timeout=seconds,
        send_timeout=seconds,
        handshake_timeout=seconds,
    )
    service = Service(
        settings=own,
        handler=partial(_answer, handler),
        refuse=refuse,
        counters=counters,
        responses=responses,
        body_bytes=Counter(),
        access_log=None,
    )
    return Connections(service, PlainBeginning(Http1()), listeners, loop, ClientCounts(workers=1))


def _answer(handler: Handler, request: Request, client: LoggedConnection) -> Response | Awaitable[Response]:
    """`handler`'s answer, or its refusal; without the body where the client asked for the head alone (RFC 9110 9.3.2)."""
    try:
        response = handler(request, client)
    except BadRequest as refusal:
        response = refuse(refusal.status, refusal.explanation)
    if request.method == b"HEAD" and isinstance(response, Response):
        response.body = ()
    return response


def text(status: int, body: bytes, content_type: bytes = b"text/plain; charset=utf-8") -> Response:
    """A short answer, not to be kept by caches."""
    headers = [(b"Content-Type", content_type), (b"Cache-Control", b"no-store")]
    return Response(status, headers, (body,), len(body), close_connection=True)


def refuse(status: int, explanation: str) -> Response:
    """What is said in place of an answer."""
    return text(status, explanation.encode() + b"\n")
