"""A server's end of one HTTP/2 connection (RFC 9113): bytes to events, calls to bytes. Start here to read this package.

    receive(bytes, now) -> events          what the peer did: this module
    send_headers, data_header, plan_data   -> bytes that the caller sends, in the order in which it asked: outgoing.py
    take_output()                          -> frames of ours that nobody asked for: SETTINGS, acknowledgements,
                                              WINDOW_UPDATE, RST_STREAM, GOAWAY. They may go out between any two frames.

What always holds: a stream in `_streams` is open or half-closed and was reported by an event; when it ends otherwise than
by our END_STREAM or `reset`, an event says so. Every field block is decoded, also one that nobody wants, because the
compression state belongs to the connection (section 4.3). Nothing grows without a limit of limits.py.

The order in `_on_headers`, `_on_data` and so on is that of RFC 9113: first what concerns the connection (sizes, stream
identifiers), then the state of the stream (streams.py), then the message (request_heads.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from . import frames
from .events import (
    ConnectionFailed,
    DataReceived,
    Event,
    GoAwayReceived,
    HeadTooLarge,
    PingAcknowledged,
    PriorityUpdated,
    RequestEnded,
    RequestReceived,
    RequestRejected,
    SettingsChanged,
    StreamReset,
)
from .faults import ConnectionFault, ErrorCode, StreamFault
from .flow_control import ReceiveWindow, WindowOverflow
from .frames import ACK, END_HEADERS, END_STREAM, MAX_STREAM_ID, FrameReader, FrameType, Setting
from .header_blocks import HeaderDecoder
from .limits import (
    EMPTY_DATA,
    FORCED_RESETS,
    IGNORED,
    MAX_CONCURRENT_STREAMS,
    MAX_CONTINUATIONS,
    MAX_QUEUED_BYTES,
    MAX_SETTINGS,
    PINGS,
    PRIORITIES,
    RESETS,
    SETTINGS,
    SMALL_DATA_BYTES,
    WINDOW_UPDATE_CREDIT_BYTES,
    WINDOW_UPDATES,
    WINDOW_UPDATES_FOR_EACH_REQUEST,
    Budgets,
)
from .outgoing import Outgoing, Stream, payload_in_full_records
from .priorities import DEFAULT, Priority, parse_priority
from .request_heads import RememberedRequests, RequestHead, check_trailers, parse_request
from .streams import ON_RECEIPT, Received, State

LARGE_HEAD_BYTES: Final = 16_384
"""How far a header list may be over the limit, and then as much again as the limit, to be answered with 431. Past that
the connection ends: a list that is not decoded to its end leaves the compression state unknown."""


class Endpoint(Outgoing):
    """The state of one connection. `max_header_list_bytes` is SETTINGS_MAX_HEADER_LIST_SIZE, in its count (6.5.2).

    No method but `receive` looks at bytes from the network; no method raises on what the peer does.
    """

    __slots__ = (
        "_block",
        "_block_frames",
        "_block_start",
        "_budgets",
        "_credit_requests",
        "_decoder",
        "_events",
        "_expected",
        "_highest_stream_id",
        "_idle_priorities",
        "_is_over",
        "_last_stream_id",
        "_max_block_bytes",
        "_max_header_list_bytes",
        "_now",
        "_reader",
        "_receive_window",
        "_requests",
        "_unacknowledged_settings",
    )

    def __init__(self, max_header_list_bytes: int, requests: RememberedRequests) -> None:
        super().__init__()
        self._reader = FrameReader()
        self._expected: FrameType | None = FrameType.SETTINGS
        """The only type that may come next: SETTINGS after the preface (3.4), CONTINUATION within a block (6.10)."""
        self._max_header_list_bytes = max_header_list_bytes
        self._max_block_bytes = 2 * max_header_list_bytes + LARGE_HEAD_BYTES
        self._decoder: HeaderDecoder[RequestHead] = HeaderDecoder(self._max_block_bytes)
        self._requests = requests
        self._block = b""
        self._block_start = (0, False, False)
        """Of the block that is incomplete: stream, whether it ends the stream, whether the stream depends on itself."""
        self._block_frames = 0
        self._budgets = Budgets()
        self._credit_requests = 0
        self._now = 0.0
        self._events: list[Event] = []
        self._is_over = False

        self._receive_window = ReceiveWindow()
        self._highest_stream_id = 0
        self._last_stream_id = MAX_STREAM_ID
        """Streams above are ignored: that of our last GOAWAY (6.8)."""
        self._idle_priorities: dict[int, Priority] = {}

        self._output += frames.settings_frame(
            {
                Setting.MAX_CONCURRENT_STREAMS: MAX_CONCURRENT_STREAMS,
                Setting.MAX_HEADER_LIST_SIZE: max_header_list_bytes,
                Setting.NO_RFC7540_PRIORITIES: 1,
            }
        )
        self._unacknowledged_settings = 1

    # What the caller may ask

    @property
    def is_over(self) -> bool:
        """True after a connection error or `close`: nothing more is taken."""
        return self._is_over

    @property
    def is_in_block(self) -> bool:
        """Whether a request's head has begun that is not complete: CONTINUATION has to follow."""
        return self._expected is FrameType.CONTINUATION

    @property
    def are_settings_acknowledged(self) -> bool:
        """Whether the peer has acknowledged our SETTINGS; how long to wait for that is the caller's choice (6.5.3)."""
        return self._unacknowledged_settings == 0

    def forget_memos(self) -> None:
        """Give back memory of a connection that is idle."""
        self._decoder.forget()

    def give_back(self, stream_id: int, count: int) -> None:
        """`count` bytes of a DataReceived were used: the peer may send as many again. The stream may be gone."""
        self._give_back_to_connection(count)
        stream = self._streams.get(stream_id)
        if stream is None or stream.receive_window is None:
            return
        increment = stream.receive_window.give_back(count)
        if increment and stream.state is not State.HALF_CLOSED_REMOTE:
            self._output += frames.window_update_frame(stream_id, increment)

    def ping(self, opaque: bytes) -> None:
        """Send PING with eight bytes; PingAcknowledged follows, a round trip later."""
        assert len(opaque) == 8
        self._output += frames.ping_frame(opaque, ack=False)

    def announce_shutdown(self) -> None:
        """The first GOAWAY of an orderly end (6.8): no new streams, please. Those under way are still taken."""
        self._output += frames.goaway_frame(MAX_STREAM_ID, ErrorCode.NO_ERROR)

    def shut_down(self) -> None:
        """The second GOAWAY, a round trip after the first: new streams are ignored, so a client may send them elsewhere."""
        self._last_stream_id = min(self._last_stream_id, self._highest_stream_id)
        self._output += frames.goaway_frame(self._last_stream_id, ErrorCode.NO_ERROR)

    def close(self, code: ErrorCode) -> None:
        """End the connection for a reason of our own (INTERNAL_ERROR, INADEQUATE_SECURITY, SETTINGS_TIMEOUT)."""
        if not self._is_over:
            self._is_over = True
            last_stream_id = min(self._last_stream_id, self._highest_stream_id)
            self._output += frames.goaway_frame(last_stream_id, code)

    # Receiving

    def receive(self, data_untrusted: bytes, now: float) -> list[Event]:
        """Take what came at `now`, seconds of a clock that does not go back. How the bytes are cut makes no difference.

        After it, look at `take_output` and `next_stream`: windows, acknowledgements and priorities have no event of their own
        where there is nothing else to do about them.
        """
        if self._is_over:
            return []
        events: list[Event] = []
        self._events, self._now = events, now
        reader = self._reader
        try:
            reader.feed(data_untrusted)
            while (frame := reader.next_frame()) is not None:
                frame_type, flags, stream_id, payload = frame
                if len(self._output) > MAX_QUEUED_BYTES:
                    raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "queued answers")
                if self._expected is not None and frame_type != self._expected:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "frame order")
                try:
                    if frame_type < len(_RECEIVERS):
                        _RECEIVERS[frame_type](self, flags, stream_id, payload)
                    elif frame_type == FrameType.PRIORITY_UPDATE:
                        self._on_priority_update(flags, stream_id, payload)
                    else:
                        self._budgets.spend(IGNORED, now)  # section 5.5: of a type that we do not know
                except StreamFault as fault:
                    self._on_stream_fault(stream_id, fault)
        except ConnectionFault as fault:
            self.close(fault.code)
            events.append(ConnectionFailed(fault.code, fault.label))
        self._events = []  # so that an idle connection holds no request
        return events

    def _on_stream_fault(self, stream_id: int, fault: StreamFault) -> None:
        self._budgets.spend(FORCED_RESETS, self._now)
        self._output += frames.rst_stream_frame(stream_id, fault.code)
        if stream_id in self._streams:
            self._events.append(StreamReset(stream_id, fault.code, False, fault.label))
        else:
            self._events.append(RequestRejected(stream_id, fault.code, fault.label))
        self._close(stream_id, State.CLOSED_BY_US)

    def _state_of(self, stream_id: int) -> State:
        stream = self._streams.get(stream_id)
        if stream is not None:
            return stream.state
        if stream_id > self._highest_stream_id or not stream_id & 1:
            return State.IDLE
        return self._closed.get(stream_id, State.CLOSED_FORGOTTEN)

    def _next_state(self, state: State, received: Received) -> State | None:
        """What the table says: the next state, or None for a frame to be ignored. Raises the fault that it asks for."""
        answer = ON_RECEIPT[state][received]
        if isinstance(answer, State):
            return answer
        is_connection_error, code = answer
        if code is None:
            if received is not Received.WINDOW_UPDATE:  # which has a budget of its own
                self._budgets.spend(IGNORED, self._now)
            return None
        raise (ConnectionFault if is_connection_error else StreamFault)(code, "stream state")

    # HEADERS and CONTINUATION

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if not stream_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "stream identifier")
        fragment, depends_on_itself = frames.headers_payload(flags, stream_id, payload)
        if flags & END_HEADERS:
            self._on_block(stream_id, fragment, bool(flags & END_STREAM), depends_on_itself)
            return
        self._block = fragment
        self._block_start = stream_id, bool(flags & END_STREAM), depends_on_itself
        self._block_frames = 0
        self._expected = FrameType.CONTINUATION

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        started_id, ends, depends_on_itself = self._block_start
        if self._expected is not FrameType.CONTINUATION or stream_id != started_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "frame order")
        self._block_frames += 1
        self._block += payload
        if self._block_frames > MAX_CONTINUATIONS or len(self._block) > self._max_block_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "continuation")
        if flags & END_HEADERS:
            block, self._block = self._block, b""
            self._expected = None
            self._on_block(stream_id, block, ends, depends_on_itself)

    def _on_block(self, stream_id: int, block: bytes, ends: bool, depends_on_itself: bool) -> None:
        """A complete field block: a request, or trailers."""
        state = self._state_of(stream_id)
        if state is State.IDLE:
            self._on_request(stream_id, block, ends, depends_on_itself)
        else:
            self._on_trailers(stream_id, state, block, ends, depends_on_itself)

    def _on_request(self, stream_id: int, block: bytes, ends: bool, depends_on_itself: bool) -> None:
        self._highest_stream_id = stream_id
        head = self._decoder.recall(block)
        malformed: StreamFault | None = None
        if head is None:
            try:
                head = self._decode_request(block)
            except StreamFault as fault:
                malformed = fault
        priority = self._priority_of(stream_id, head)
        if stream_id > self._last_stream_id:
            # Section 6.8: the client knows from our GOAWAY that nobody answers.
            self._close(stream_id, State.CLOSED_BY_US)
            return
        if len(self._streams) >= MAX_CONCURRENT_STREAMS:
            raise StreamFault(ErrorCode.REFUSED_STREAM, "refused stream")
        if depends_on_itself:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "depends on itself")
        if malformed is not None:
            raise malformed
        content_length = None if head is None else head.content_length
        if ends and content_length:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length")
        self._credit_requests += 1
        state = State.HALF_CLOSED_REMOTE if ends else State.OPEN
        self._streams[stream_id] = Stream(state, self._peer_initial_window, priority, content_length)
        self._events.append(HeadTooLarge(stream_id, ends) if head is None else RequestReceived(stream_id, head, ends))

    def _decode_request(self, block: bytes) -> RequestHead | None:
        """What a block says that is not known yet; None for one that is too large. Raises StreamFault for a malformed one."""
        decoder = self._decoder
        fields = decoder.decode(block)
        if decoder.list_bytes > self._max_header_list_bytes:
            return None
        if decoder.has_secret or decoder.list_bytes > RememberedRequests.MAX_LIST_BYTES:
            return parse_request(fields)
        head = self._requests.parse(fields)
        if decoder.is_repeatable:
            decoder.remember(block, head)
        return head

    def _priority_of(self, stream_id: int, head: RequestHead | None) -> Priority:
        """Of a new stream. PRIORITY_UPDATE wins over the field, and may have come before (RFC 9218 section 7.1)."""
        waiting = self._idle_priorities
        if waiting:
            found = waiting.get(stream_id)
            self._idle_priorities = {idle: priority for idle, priority in waiting.items() if idle > stream_id}
            if found is not None:
                return found
        return DEFAULT if head is None else head.priority

    def _on_trailers(self, stream_id: int, state: State, block: bytes, ends: bool, depends_on_itself: bool) -> None:
        fields = self._decoder.decode(block)
        next_state = self._next_state(state, Received.HEADERS_END_STREAM if ends else Received.HEADERS)
        if next_state is None:
            return
        stream = self._streams[stream_id]
        if depends_on_itself:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "depends on itself")
        if self._decoder.list_bytes > self._max_header_list_bytes:
            raise StreamFault(ErrorCode.ENHANCE_YOUR_CALM, "trailers size")
        check_trailers(fields)
        if stream.body_left:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length")
        self._enter(stream_id, stream, next_state)
        self._events.append(RequestEnded(stream_id, list(fields)))

    # DATA

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "stream identifier")
        data = frames.data_payload(flags, payload)
        received = Received.DATA_END_STREAM if flags & END_STREAM else Received.DATA
        state = self._state_of(stream_id)
        try:
            self._receive_window.receive(len(payload))
        except WindowOverflow:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "connection window") from None
        if received is Received.DATA and len(data) < SMALL_DATA_BYTES:
            self._budgets.spend(EMPTY_DATA, self._now)
        is_used = False
        try:
            next_state = self._next_state(state, received)
            if next_state is not None:
                self._take_data(stream_id, data, len(payload), next_state, received is Received.DATA_END_STREAM)
                is_used = True
        finally:
            if not is_used:
                # Section 6.9: what is dropped counts for the connection all the same.
                self._give_back_to_connection(len(payload))

    def _take_data(self, stream_id: int, data: bytes, length: int, next_state: State, ends: bool) -> None:
        """`length` counts the padding."""
        stream = self._streams[stream_id]
        window = stream.receive_window
        if window is None:
            window = stream.receive_window = ReceiveWindow()
        try:
            window.receive(length)
        except WindowOverflow:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "stream window") from None
        if stream.body_left is not None:
            stream.body_left -= len(data)
            if stream.body_left < 0 or (ends and stream.body_left):
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length")
        self._enter(stream_id, stream, next_state)
        if length > len(data):
            self.give_back(stream_id, length - len(data))
        self._events.append(DataReceived(stream_id, data, ends))

    def _give_back_to_connection(self, count: int) -> None:
        increment = self._receive_window.give_back(count)
        if increment:
            self._output += frames.window_update_frame(0, increment)

    # The other types

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "stream identifier")
        self._budgets.spend(PRIORITIES, self._now)
        try:
            frames.priority_payload(stream_id, payload)
        except StreamFault as fault:
            if self._state_of(stream_id) is State.IDLE:  # on which RST_STREAM must not be sent (6.4)
                raise ConnectionFault(fault.code, fault.label) from None
            raise

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "stream identifier")
        code = frames.rst_stream_payload(payload)
        state = self._next_state(self._state_of(stream_id), Received.RST_STREAM)
        if state is not None:
            self._budgets.spend(RESETS, self._now)
            self._close(stream_id, state)
            self._events.append(StreamReset(stream_id, code, True))

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "stream identifier")
        if flags & ACK:
            self._on_settings_ack(payload)
            return
        self._budgets.spend(SETTINGS, self._now)
        settings = frames.settings_payload(payload)
        if len(settings) > MAX_SETTINGS:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "settings")
        for setting, value in settings:
            if setting == Setting.INITIAL_WINDOW_SIZE:
                self._change_initial_window(value)
            elif setting == Setting.MAX_FRAME_SIZE:
                self._peer_max_frame_size = value
                self.frame_payload = payload_in_full_records(value)
            # HEADER_TABLE_SIZE: our table has size 0. ENABLE_PUSH, MAX_CONCURRENT_STREAMS: we open no streams.
        if self._expected is FrameType.SETTINGS:
            self._expected = None
        self._output += frames.SETTINGS_ACK
        self._events.append(SettingsChanged(settings))

    def _on_settings_ack(self, payload: bytes) -> None:
        if payload:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "settings size")
        if self._expected is FrameType.SETTINGS or not self._unacknowledged_settings:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "settings acknowledgement")
        self._unacknowledged_settings -= 1

    def _change_initial_window(self, size: int) -> None:
        """Section 6.9.2: the windows of all streams move by the difference, and may become negative."""
        difference = size - self._peer_initial_window
        self._peer_initial_window = size
        for stream_id, stream in self._streams.items():
            self._widen(stream_id, stream, difference, ConnectionFault)

    def _widen(
        self, stream_id: int, stream: Stream, increment: int, fault: type[ConnectionFault] | type[StreamFault]
    ) -> None:
        try:
            stream.send_window.widen(increment)
        except WindowOverflow:
            raise fault(ErrorCode.FLOW_CONTROL_ERROR, "window overflow") from None
        if stream.has_data:
            if stream.send_window.size > 0:
                self._scheduler.ready(stream_id, stream.priority)
            else:
                self._scheduler.blocked(stream_id)

    def _on_push_promise(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "push_promise")  # section 8.4: clients can not push

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "stream identifier")
        opaque = frames.ping_payload(payload)
        self._budgets.spend(PINGS, self._now)
        if flags & ACK:
            self._events.append(PingAcknowledged(opaque))
        else:
            self._output += frames.ping_frame(opaque, ack=True)

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "stream identifier")
        last_stream_id, code = frames.goaway_payload(payload)
        self._budgets.spend(IGNORED, self._now)
        self._events.append(GoAwayReceived(last_stream_id, code))

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        increment = frames.window_update_payload(payload)
        credit = self._credit_bytes / WINDOW_UPDATE_CREDIT_BYTES
        self._budgets.earn(WINDOW_UPDATES, credit + self._credit_requests * WINDOW_UPDATES_FOR_EACH_REQUEST)
        self._credit_bytes = self._credit_requests = 0
        self._budgets.spend(WINDOW_UPDATES, self._now)
        if stream_id == 0:
            if not increment:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "window increment")
            try:
                self._send_window.widen(increment)
            except WindowOverflow:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "window overflow") from None
        elif self._next_state(self._state_of(stream_id), Received.WINDOW_UPDATE) is not None:
            if not increment:
                raise StreamFault(ErrorCode.PROTOCOL_ERROR, "window increment")
            self._widen(stream_id, self._streams[stream_id], increment, StreamFault)

    def _on_priority_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        """RFC 9218 section 7.1."""
        prioritized_id, value = frames.priority_update_payload(payload)
        if stream_id or not prioritized_id & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "stream identifier")
        self._budgets.spend(PRIORITIES, self._now)
        stream = self._streams.get(prioritized_id)
        if stream is not None:
            stream.priority = parse_priority(value)
            self._scheduler.reprioritize(prioritized_id, stream.priority)
            self._events.append(PriorityUpdated(prioritized_id, stream.priority))
        elif self._state_of(prioritized_id) is State.IDLE:
            waiting = self._idle_priorities
            if prioritized_id not in waiting and len(waiting) + len(self._streams) >= MAX_CONCURRENT_STREAMS:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "priorities of idle streams")
            waiting[prioritized_id] = parse_priority(value)


_RECEIVERS: Final[tuple[Callable[[Endpoint, int, int, bytes], None], ...]] = (
    Endpoint._on_data,
    Endpoint._on_headers,
    Endpoint._on_priority,
    Endpoint._on_rst_stream,
    Endpoint._on_settings,
    Endpoint._on_push_promise,
    Endpoint._on_ping,
    Endpoint._on_goaway,
    Endpoint._on_window_update,
    Endpoint._on_continuation,
)
"""By frame type."""
