"""One HTTP/1.1 connection's exchanges, one after another (RFC 9112 section 9.3).

A request that came whole, whose handler need not wait, and whose answer the socket takes at once, goes through here with
one await: the one for its bytes. Whatever has to wait (for the rest of a head, for a body, for a handler, for room to
send) takes the same code further, and enters the stage that says for whom.

After each answer the other connections get their turn, even where the next request is here already.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Final

from ..errors import BadRequest, ConnectionLost, FileUnreadable, Interrupted
from ..exchange import HANDLER_SECONDS, Exchange, Life, Stage, log_unreadable
from ..net.channel import YIELD
from ..semantics.messages import Request, Response
from ..transport.interface import Transport
from .heads import HeadWriter
from .parser import RequestParser

_TOO_LATE: Final = "The request took too long to arrive."
_HANDLER_TOO_SLOW: Final = "The server was too busy to answer. Try again in a moment."


class Http1:
    """`HttpVersion` 1.1 and 1.0. One per process; each connection's state is in `converse`."""

    def __init__(self) -> None:
        self._heads = HeadWriter()

    async def converse(self, life: Life, transport: Transport) -> None:
        service = life.service
        channel, reader, writer = transport.channel, transport.reader, transport.writer
        parser = RequestParser(service.settings.max_head_bytes)
        heads, client = self._heads, life.client
        keepalive_seconds = service.settings.keepalive_timeout
        left = service.settings.max_requests
        monotonic = time.monotonic
        exchange = Exchange(service, client)
        keep_alive, is_begun, pending = True, False, reader.pending
        while keep_alive:
            # 1. A whole request, or what has to be answered in its place.
            request: Request | None = None
            response: Response | Awaitable[Response]
            try:
                if is_begun:
                    request = parser.next_request(b"")
                while request is None:
                    if is_begun and life.stage is Stage.IDLE:
                        life.enter(Stage.REQUEST)
                    if not pending:
                        await channel.readable()
                    data = reader.read()
                    if data is not None:
                        if not data:
                            return
                        request = parser.next_request(data)
                        is_begun = not parser.idle
                    pending = reader.pending
                exchange.begin(request, monotonic())
                body_is_read = parser.skip_body(b"") or await _skip_body(life, transport, parser, request)
                if body_is_read is None:
                    return
                # 2. The answer.
                response = service.handler(request, client)
                if response.__class__ is not Response:
                    response = await _wait_for_handler(life, response)  # type: ignore[arg-type]
            except BadRequest as refusal:
                body_is_read, request = False, None
                exchange.begin(None, monotonic())
                response = service.refuse(refusal.status, refusal.explanation)
            except Interrupted:
                if life.stage is not Stage.REQUEST:
                    raise
                channel.interrupted = False
                body_is_read, request = False, None
                exchange.begin(None, monotonic())
                response = service.refuse(408, _TOO_LATE)
            left -= 1
            keep_alive = (
                body_is_read
                and request is not None
                and request.keep_alive
                and left > 0
                and not response.close_connection
                and not writer.must_close
                and not service.draining
            )
            # 3. On its way.
            head = heads.head(response, keep_alive, request is not None and request.version == b"1.0")
            parts = response.body
            at_once = head + parts[0] if len(parts) == 1 and parts[0].__class__ is bytes else head
            body_begins = channel.sent + len(head)
            try:
                if at_once is head and parts:
                    await _send_parts(life, transport, head, response)
                else:
                    taken = writer.write(at_once)
                    if taken != len(at_once) or not writer.flush():
                        if life.stage is not Stage.RESPONSE:
                            life.enter(Stage.RESPONSE)
                        await writer.finish(at_once, taken)
            except FileUnreadable as error:
                log_unreadable(error, response)
                raise ConnectionLost("a file could not be read") from error
            finally:
                if response.fd >= 0:
                    response.close()
                now = monotonic()
                exchange.finish(response, channel.sent - body_begins, now)
            if life.stage is not Stage.IDLE:
                if keep_alive:
                    life.enter(Stage.IDLE)
            else:
                life.deadline = now + keepalive_seconds
                service.note_turn(now - exchange.began)
            # A connection that waits for its next request holds nothing of the last one.
            del response, head, parts, at_once
            data = exchange.request = None
            is_begun = not parser.idle
            pending = reader.pending
            if is_begun or pending:
                await YIELD


async def _skip_body(life: Life, transport: Transport, parser: RequestParser, request: Request) -> bool | None:
    """Read the request to its end; None where the stream ends before that.

    False where the body is left unread, and the connection can not be used again.
    """
    channel, reader = transport.channel, transport.reader
    if request.header(b"expect") is not None:
        # RFC 9110 section 10.1.1: the final status goes out at once, the body need never come.
        return False
    if life.stage is Stage.IDLE:
        life.enter(Stage.REQUEST)
    while True:
        if not reader.pending:
            await channel.readable()
        data = reader.read()
        if data is None:
            continue
        if not data:
            return None
        if parser.skip_body(data):
            return True
        if reader.pending:
            await YIELD


async def _wait_for_handler(life: Life, response: Awaitable[Response]) -> Response:
    """The handler has to wait: it has HANDLER_SECONDS. The client's bytes are not read meanwhile."""
    life.enter(Stage.HANDLER)
    try:
        async with asyncio.timeout(HANDLER_SECONDS):
            return await response
    except TimeoutError:
        return life.service.refuse(503, _HANDLER_TOO_SLOW)


async def _send_parts(life: Life, transport: Transport, head: bytes, response: Response) -> None:
    """Head and body; the head shares a record, and a system call, with what follows it."""
    life.enter(Stage.RESPONSE)
    writer = transport.writer
    await writer.send(head, more=True)
    parts = response.body
    last = len(parts) - 1
    for index, part in enumerate(parts):
        if isinstance(part, bytes):
            await writer.send(part, more=index < last)
        else:
            await writer.send_file(part.fd, part.offset, part.count)
