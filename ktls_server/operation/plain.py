"""What is served by plain HTTP, beside HTTPS: the redirect to HTTPS and the metrics, each with limits of its own.

Whatever a client does, it holds one of a bounded number of places for a bounded time; when all are taken the one that has
been idle longest goes.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections import Counter
from typing import Final

from ..beginning import PlainBeginning
from ..counters import Counters
from ..exchange import Handler, Service
from ..http1.conversation import Http1
from ..semantics.messages import Response
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
        max_connections_per_address=connections,
        max_head_bytes=_MAX_HEAD_BYTES,
        keepalive_timeout=seconds,
        head_timeout=seconds,
        send_timeout=seconds,
        handshake_timeout=seconds,
    )
    service = Service(
        settings=own,
        handler=handler,
        refuse=refuse,
        counters=counters,
        responses=responses,
        body_bytes=Counter(),
        access_log=None,
    )
    return Connections(service, PlainBeginning(Http1()), listeners, loop, ClientCounts(workers=1))


def text(status: int, body: bytes, content_type: bytes = b"text/plain; charset=utf-8") -> Response:
    """A short answer, not to be kept by caches."""
    headers = [(b"Content-Type", content_type), (b"Cache-Control", b"no-store")]
    return Response(status, headers, (body,), len(body), close_connection=True)


def refuse(status: int, explanation: str) -> Response:
    """What is said in place of an answer."""
    return text(status, explanation.encode() + b"\n")
