"""One HTTP/2 connection's exchanges, many at a time (RFC 9113).

    bytes -> Endpoint.receive -> events -> an exchange for each request -> handler -> response
    responses -> the endpoint's scheduler: whose turn it is -> the writer

The connection's coroutine reads and never waits for sending. A second task sends while there is something to send. What a
client makes the server say (acknowledgements, resets) gathers in the endpoint, which bounds it.

A stream's turn is TURN_FRAMES frames at most; then the scheduler (RFC 9218) is asked again. `TCP_NOTSENT_LOWAT` keeps what
the kernel holds unsent below UNSENT_BYTES, so that an urgent stream does not wait behind megabytes of another.

A file's last frame never ends its stream: an empty frame does, once all of the file has been read. So a file that becomes
shorter while it is sent resets its stream, and no client takes the zeros for content.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable
from typing import Final

from ..errors import BadRequest, ConnectionLost, FrameSpoilt, Interrupted
from ..exchange import HANDLER_SECONDS, Exchange, Life, Stage
from ..net.channel import YIELD
from ..semantics.messages import Request, Response
from ..transport.interface import Frame, Transport
from .endpoint import Endpoint
from .events import (
    ConnectionFailed,
    DataReceived,
    Event,
    HeadTooLarge,
    PingAcknowledged,
    RequestEnded,
    RequestReceived,
    RequestRejected,
    StreamReset,
)
from .faults import ErrorCode
from .header_blocks import ResponseHeads
from .request_heads import RememberedRequests

_log = logging.getLogger(__name__)

TURN_FRAMES: Final = 32
"""Frames of one stream before the scheduler is asked again: half a megabyte, which an urgent stream may have to wait for."""

UNSENT_BYTES: Final = 128 * 1024
"""What the kernel may hold that TCP has not sent yet (tcp(7): TCP_NOTSENT_LOWAT)."""

UNREAD_BYTES: Final = 1 << 20
"""What a client may go on sending of a request that is answered: some clients look at the answer only after that."""

_TCP_NOTSENT_LOWAT: Final = 25  # linux/tcp.h
_SHUTDOWN_PING: Final = b"shutdown"
_SERVER_NAME: Final = b"ktls_server"
_HEAD_TOO_LARGE: Final = "The header fields are too large."
_HANDLER_TOO_SLOW: Final = "The server was too busy to answer. Try again in a moment."
_FAULT: Final = "Something went wrong on the server. Its log says what."


class Http2:
    """`HttpVersion` 2. One per process; each connection's state is in `_Connection`."""

    def __init__(self) -> None:
        self._heads = ResponseHeads([(b"server", _SERVER_NAME)])
        self._requests = RememberedRequests()

    async def converse(self, life: Life, transport: Transport) -> None:
        endpoint = Endpoint(life.service.settings.max_head_bytes, self._requests)
        await _Connection(life, transport, endpoint, self._heads).run()


class _Stream:
    """One exchange, from its request to the last byte of its answer."""

    __slots__ = (
        *("exchange", "id", "is_gone", "is_sending", "offset", "part", "request_ended", "response", "sent"),
        *("sent_before", "task"),
    )

    def __init__(self, stream_id: int, exchange: Exchange, *, request_ended: bool) -> None:
        self.id = stream_id
        self.exchange = exchange
        self.request_ended = request_ended
        self.response: Response | None = None
        self.task: asyncio.Task[None] | None = None
        self.part = self.offset = self.sent = self.sent_before = 0
        self.is_sending = self.is_gone = False


class _Connection:
    """The state of one connection's conversation."""

    def __init__(self, life: Life, transport: Transport, endpoint: Endpoint, heads: ResponseHeads) -> None:
        self._life = life
        self._service = life.service
        self._channel, self._reader, self._writer = transport.channel, transport.reader, transport.writer
        self._endpoint = endpoint
        self._heads = heads
        self._streams: dict[int, _Stream] = {}
        self._unread: dict[int, int] = {}
        """Streams that are answered while their request still comes: how many bytes of it are still taken."""
        self._output = bytearray()
        """HEADERS, and small bodies with them, in the order in which the endpoint made them."""
        self._sender: asyncio.Task[None] | None = None
        self._lost: ConnectionLost | None = None
        self._is_draining = self._is_shut_down = self._has_failed = False
        self._requests_left = life.service.settings.max_requests
        self._look_at_streams_at = time.monotonic() + life.service.settings.send_timeout

    async def run(self) -> None:
        """Answer requests until one side has had enough."""
        with contextlib.suppress(OSError):
            self._channel.sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._life.on_drain = self.drain
        try:
            self._pump()
            await self._read()
            await self._send_the_rest()
        finally:
            self._life.on_drain = None
            if self._sender is not None:
                self._sender.cancel()
            for stream in list(self._streams.values()):
                self._drop(stream)

    # Reading

    async def _read(self) -> None:
        """Take what comes, until the client ends, breaks the protocol, or nothing is left to do."""
        channel, reader, endpoint = self._channel, self._reader, self._endpoint
        while not self._has_failed:
            if self._is_shut_down and not self._streams:
                return
            try:
                if not reader.pending:
                    await channel.readable()
            except Interrupted:
                if self._lost is not None:
                    raise self._lost from None
                if self._is_draining and self._streams:
                    channel.interrupted = False
                    continue
                endpoint.shut_down()
                return
            data = reader.read()
            if data is None:
                continue
            if not data:
                await self._finish_streams()
                return
            began = time.monotonic()
            for event in endpoint.receive(data, began):
                self._on_event(event)
            self._pump()
            self._service.note_turn(time.monotonic() - began)
            if reader.pending:
                await YIELD

    def _on_event(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._begin(event.stream_id, event.head.request, ended=event.ends)
            case HeadTooLarge():
                self._begin(event.stream_id, None, ended=event.ends)
            case DataReceived():
                self._drop_body(event.stream_id, len(event.data_untrusted), ended=event.ends)
            case RequestEnded():
                self._drop_body(event.stream_id, 0, ended=True)
            case StreamReset():
                self._unread.pop(event.stream_id, None)
                self._service.counters.http2_errors[event.label or "reset by the client"] += 1
                stream = self._streams.get(event.stream_id)
                if stream is not None:
                    self._drop(stream)
            case RequestRejected():
                self._service.counters.http2_errors[event.label] += 1
            case PingAcknowledged() if event.opaque == _SHUTDOWN_PING:
                self._endpoint.shut_down()
                self._is_shut_down = True
            case ConnectionFailed():
                self._service.counters.http2_errors[event.label] += 1
                self._has_failed = True
            case _:
                pass  # The endpoint has done what was to be done.

    def _drop_body(self, stream_id: int, count: int, *, ended: bool) -> None:
        """Nobody here has a use for a request's body. After the answer there is an end to it (RFC 9113 section 8.1)."""
        self._endpoint.give_back(stream_id, count)
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.request_ended = stream.request_ended or ended
        elif stream_id in self._unread:
            self._unread[stream_id] -= count
            if ended:
                del self._unread[stream_id]
            elif self._unread[stream_id] < 0:
                del self._unread[stream_id]
                self._endpoint.reset(stream_id, ErrorCode.NO_ERROR)

    # Exchanges

    def _begin(self, stream_id: int, request: Request | None, *, ended: bool) -> None:
        """A request is here: have it answered. None is one whose head was too large."""
        if not self._endpoint.is_open(stream_id):
            return  # Reset by what came right behind it.
        service, client = self._service, self._life.client
        exchange = Exchange(service, client)
        exchange.begin(request, time.monotonic())
        stream = self._streams[stream_id] = _Stream(stream_id, exchange, request_ended=ended)
        self._requests_left -= 1
        if self._requests_left <= 0:
            self.drain()
        if request is None:
            self._respond(stream, service.refuse(431, _HEAD_TOO_LARGE))
            return
        try:
            response = service.handler(request, client)
        except BadRequest as refusal:
            response = service.refuse(refusal.status, refusal.explanation)
        if isinstance(response, Response):
            self._respond(stream, response)
        else:
            stream.task = asyncio.ensure_future(self._respond_later(stream, response))

    async def _respond_later(self, stream: _Stream, waiting: Awaitable[Response]) -> None:
        service = self._service
        try:
            async with asyncio.timeout(HANDLER_SECONDS):
                response = await waiting
        except TimeoutError:
            response = service.refuse(503, _HANDLER_TOO_SLOW)
        except BadRequest as refusal:
            response = service.refuse(refusal.status, refusal.explanation)
        except Exception:
            _log.exception("a request was answered with 500 by a fault of this server; please report it")
            response = service.refuse(500, _FAULT)
        stream.task = None
        if stream.is_gone:
            response.close()
            return
        self._respond(stream, response)
        self._pump()

    def _respond(self, stream: _Stream, response: Response) -> None:
        """Queue the head, and the body with it where it is small and may be sent."""
        stream.response = response
        endpoint, body = self._endpoint, response.body
        block = self._heads.head(response.status, response.headers, response.content_length, int(time.time()))
        self._output += endpoint.send_headers(stream.id, block, end_stream=not body)
        if not body:
            self._complete(stream)
            return
        if len(body) == 1 and isinstance(body[0], bytes) and self._endpoint.next_stream() is None:
            size = len(body[0])
            if size <= min(endpoint.frame_payload, endpoint.window(stream.id)):
                self._output += endpoint.data_header(stream.id, size, end_stream=True)
                self._output += body[0]
                stream.sent = size
                self._complete(stream)
                return
        endpoint.body_ready(stream.id)

    def _complete(self, stream: _Stream) -> None:
        """The whole answer is on its way."""
        if not stream.request_ended:
            self._unread[stream.id] = UNREAD_BYTES
        self._drop(stream)

    def _drop(self, stream: _Stream) -> None:
        """The exchange is over, complete or not: count it, log it, let go of its file and its handler."""
        if stream.is_gone:
            return
        stream.is_gone = True
        self._streams.pop(stream.id, None)
        if stream.task is not None:
            stream.task.cancel()
        response = stream.response
        if response is not None:
            if not stream.is_sending:
                response.close()
            stream.exchange.finish(response, stream.sent, time.monotonic())

    # Sending

    def _pump(self) -> None:
        """Send what can be sent at once; where there is more, have the sender do it."""
        if self._sender is None:
            self._output += self._endpoint.take_output()
            rest = b""
            if self._output and self._lost is None:
                output, self._output = bytes(self._output), bytearray()
                try:
                    taken = self._writer.write(output)
                    if taken < len(output) or not self._writer.flush():
                        rest = output[taken:]
                        self._start_sender(rest)
                except ConnectionLost as loss:
                    self._lose(loss)
            if self._sender is None and self._endpoint.next_stream() is not None:
                self._start_sender(b"")
        if self._writer.must_close and not self._is_draining:
            self.drain()
        self._look_at_streams()
        self._enter_stage()
        if self._is_shut_down and not self._streams and self._sender is None:
            self._channel.interrupt()

    def _start_sender(self, rest: bytes) -> None:
        self._sender = asyncio.ensure_future(self._send(rest))

    def _enter_stage(self) -> None:
        life = self._life
        if self._streams or self._sender is not None:
            if life.stage in (Stage.IDLE, Stage.REQUEST):
                life.enter(Stage.RESPONSE)
        elif life.stage in (Stage.RESPONSE, Stage.REQUEST) and not self._endpoint.is_in_block:
            life.enter(Stage.IDLE)
        elif life.stage is Stage.IDLE and self._endpoint.is_in_block:
            life.enter(Stage.REQUEST)
        elif life.stage is Stage.IDLE:
            life.deadline = time.monotonic() + self._service.settings.keepalive_timeout

    def _look_at_streams(self) -> None:
        """A stream whose window the client holds shut has the time limit and the minimum rate of a response."""
        now = time.monotonic()
        if now < self._look_at_streams_at:
            return
        settings = self._service.settings
        self._look_at_streams_at = now + settings.send_timeout
        for stream in list(self._streams.values()):
            progress = stream.sent - stream.sent_before
            stream.sent_before = stream.sent
            is_held_up = stream.response is not None and not stream.is_sending and not self._endpoint.window(stream.id)
            is_new = now - stream.exchange.began < settings.send_timeout
            if is_held_up and not is_new and progress <= settings.min_rate * settings.send_timeout:
                self._service.counters.timeouts["stream"] += 1
                self._endpoint.reset(stream.id, ErrorCode.CANCEL)
                self._drop(stream)

    async def _send(self, rest: bytes) -> None:
        """The sender: heads and what the endpoint has to say first, then a turn of the stream whose turn it is."""
        writer, endpoint = self._writer, self._endpoint
        try:
            await writer.finish(rest, 0)
            while True:
                output = bytes(self._output) + endpoint.take_output()
                self._output.clear()
                if output:
                    await writer.send(output)
                    continue
                stream_id = endpoint.next_stream()
                if stream_id is None:
                    break
                await self._send_turn(self._streams[stream_id])
                await YIELD
        except ConnectionLost as loss:
            self._lose(loss)
        except Exception as error:
            _log.exception("a connection ended by a fault of this server; please report it")
            self._lose(ConnectionLost(str(type(error))))
        finally:
            self._sender = None
        if self._lost is None:
            self._enter_stage()
            if self._is_shut_down and not self._streams:
                self._channel.interrupt()

    def _lose(self, loss: ConnectionLost) -> None:
        """The connection broke while sending: the reader raises that."""
        self._lost = loss
        self._channel.interrupt()

    async def _send_turn(self, stream: _Stream) -> None:
        """Some frames of one stream's body."""
        assert stream.response is not None
        part = stream.response.body[stream.part]
        stream.is_sending = True
        try:
            if isinstance(part, bytes):
                await self._send_bytes(stream, part)
            else:
                await self._send_file(stream, part.fd, part.offset, part.count)
        finally:
            stream.is_sending = False
            if stream.is_gone:
                stream.response.close()
        if not stream.is_gone and stream.part == len(stream.response.body):
            self._complete(stream)

    async def _send_bytes(self, stream: _Stream, part: bytes) -> None:
        endpoint = self._endpoint
        is_last = stream.part == len(stream.response.body) - 1 if stream.response is not None else True
        output = bytearray()
        for _ in range(TURN_FRAMES):
            left = len(part) - stream.offset
            count = min(left, endpoint.frame_payload, endpoint.window(stream.id))
            if not count:
                break
            output += endpoint.data_header(stream.id, count, end_stream=is_last and count == left)
            output += part[stream.offset : stream.offset + count]
            stream.offset += count
            stream.sent += count
        if stream.offset == len(part):
            stream.part, stream.offset = stream.part + 1, 0
        await self._writer.send(bytes(output))

    async def _send_file(self, stream: _Stream, fd: int, offset: int, size: int) -> None:
        endpoint, stream_id = self._endpoint, stream.id
        planned = endpoint.plan_data(stream_id, size - stream.offset, TURN_FRAMES, end_stream=False)
        frames = [Frame(header, count) for header, count in planned]
        spoilt: FrameSpoilt | None = None
        try:
            sent = await self._writer.send_frames(frames, fd, offset + stream.offset)
        except FrameSpoilt as error:
            spoilt, sent = error, error.sent
        count = sum(frame.payload_bytes for frame in frames[:sent])
        endpoint.data_sent(stream_id, count, end_stream=False)
        stream.offset += count
        stream.sent += count
        if stream.is_gone:
            return
        if spoilt is not None:
            if spoilt.errno:
                with contextlib.suppress(OSError):
                    _log.error("%r could not be read: %s", os.readlink(f"/proc/self/fd/{fd}"), spoilt)
            endpoint.reset(stream_id, ErrorCode.INTERNAL_ERROR)
            self._drop(stream)
        elif stream.offset == size:
            stream.part, stream.offset = stream.part + 1, 0
            assert stream.response is not None
            if stream.part == len(stream.response.body):
                await self._writer.send(endpoint.data_header(stream_id, 0, end_stream=True))

    # The end

    def drain(self) -> None:
        """No further requests, please: GOAWAY, and again after a round trip (RFC 9113 section 6.8)."""
        if not self._is_draining:
            self._is_draining = True
            self._endpoint.announce_shutdown()
            self._endpoint.ping(_SHUTDOWN_PING)
            if self._sender is None and not self._has_failed:
                self._pump()

    async def _finish_streams(self) -> None:
        """The client sends no more: what it asked for is still answered."""
        self._is_draining = self._is_shut_down = True
        while self._streams or self._sender is not None:
            waiting = [self._sender] if self._sender is not None else []
            waiting += [stream.task for stream in self._streams.values() if stream.task is not None]
            if not waiting:
                return  # Held up by windows that nobody will open any more.
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            self._pump()
        if self._lost is not None:
            raise self._lost

    async def _send_the_rest(self) -> None:
        """GOAWAY and what else there is to say, before close_notify."""
        for stream in list(self._streams.values()):
            self._drop(stream)
        if self._sender is not None:
            await asyncio.wait([self._sender])
        if self._lost is not None:
            raise self._lost
        output = bytes(self._output) + self._endpoint.take_output()
        if output:
            await self._writer.send(output)
