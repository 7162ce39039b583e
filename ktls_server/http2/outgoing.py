"""The sending half of an endpoint: what goes out on its streams, within their windows, and in whose turn.

The receiving half (endpoint.py) opens the streams, and widens the windows.
"""

from __future__ import annotations

from typing import Final

from . import frames
from .faults import ErrorCode
from .flow_control import INITIAL_WINDOW_SIZE, ReceiveWindow, SendWindow
from .frames import END_STREAM, FrameType
from .header_blocks import TABLE_SIZE_UPDATE_TO_ZERO
from .limits import MAX_CLOSED_STREAMS
from .priorities import Priority, Scheduler
from .streams import ON_SENDING, Sent, State

RECORD_BYTES: Final = 16_384
"""Plaintext of a full TLS record."""

LARGEST_PAYLOAD: Final = 2**20
"""Of a DATA frame of ours in bytes, where the peer takes larger ones: a frame that has begun holds up all other streams."""


class Stream:
    """An open or half-closed stream."""

    __slots__ = ("body_left", "has_data", "priority", "receive_window", "send_window", "state")

    def __init__(self, state: State, send_window: int, priority: Priority, content_length: int | None) -> None:
        self.state = state
        self.send_window = SendWindow(send_window)
        self.receive_window: ReceiveWindow | None = None
        self.priority = priority
        self.body_left = content_length
        """How much of the request's Content-Length is still to come; None where it gave none."""
        self.has_data = False
        """Whether our body has bytes that could go out now."""


class Outgoing:
    """Of one connection, its streams and what we send on them."""

    __slots__ = (
        "_closed",
        "_credit_bytes",
        "_first_block_prefix",
        "_output",
        "_peer_initial_window",
        "_peer_max_frame_size",
        "_planned",
        "_scheduler",
        "_send_window",
        "_streams",
        "frame_payload",
    )

    def __init__(self) -> None:
        self._streams: dict[int, Stream] = {}
        self._closed: dict[int, State] = {}
        self._scheduler = Scheduler()
        self._output = bytearray()
        self._first_block_prefix = TABLE_SIZE_UPDATE_TO_ZERO
        self._send_window = SendWindow()
        self._planned = 0
        """How much of the connection's window is held by frames that are on their way."""
        self._credit_bytes = 0
        """How much DATA was sent since the peer was last allowed WINDOW_UPDATE frames for it (limits.py)."""
        self._peer_initial_window = INITIAL_WINDOW_SIZE
        self._peer_max_frame_size = frames.SMALLEST_MAX_FRAME_SIZE
        self.frame_payload = payload_in_full_records(self._peer_max_frame_size)
        """How many bytes of a body `plan_data` puts into a frame: with its header, it fills TLS records exactly."""

    @property
    def open_streams(self) -> int:
        """How many streams are open or half-closed."""
        return len(self._streams)

    def is_open(self, stream_id: int) -> bool:
        """Whether something may be sent on the stream. A request may be gone before its event was looked at."""
        return stream_id in self._streams

    def take_output(self) -> bytes:
        """The frames to send that nobody asked for, once; b"" where there are none."""
        output = self._output
        if not output:
            return b""
        self._output = bytearray()
        return bytes(output)

    def send_headers(self, stream_id: int, block: bytes, *, end_stream: bool) -> bytes:
        """HEADERS, with CONTINUATION where it must be, for a field block of header_blocks.py.

        The frames have to be sent in the order in which they were asked for, with nothing in between. The stream has to
        be one that was reported and is not gone.
        """
        block = self._first_block_prefix + block
        self._first_block_prefix = b""
        self._advance(stream_id, self._streams[stream_id], Sent.HEADERS_END_STREAM if end_stream else Sent.HEADERS)
        return frames.headers_frames(stream_id, block, self._peer_max_frame_size, end_stream=end_stream)

    def window(self, stream_id: int) -> int:
        """How many bytes of DATA may be sent on the stream now: the smaller of its window and the connection's."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else max(0, min(stream.send_window.size, self._send_window.size - self._planned))

    def data_header(self, stream_id: int, count: int, *, end_stream: bool) -> bytes:
        """The header of one DATA frame whose `count` bytes the caller sends right behind it; takes them from the windows.

        `count` is at most `window` and the peer's SETTINGS_MAX_FRAME_SIZE (`frame_payload` always fits). A frame of no
        bytes needs no window.
        """
        assert count <= self._peer_max_frame_size
        assert count == 0 or count <= self.window(stream_id)
        self._take(stream_id, count, end_stream=end_stream)
        return frames.frame_header(count, FrameType.DATA, END_STREAM if end_stream else 0, stream_id)

    def plan_data(self, stream_id: int, left: int, max_frames: int, *, end_stream: bool) -> list[tuple[bytes, int]]:
        """Headers and payload sizes of the next frames for a body of which `left` bytes, at least one, are to be sent.

        As many as the windows allow, `max_frames` at most. With `end_stream` the frame that holds the last byte ends the
        stream. The connection's window is held for them: call `data_sent` with what was sent of it, before the next plan.
        """
        self._planned = 0
        count = min(left, self.window(stream_id))
        payload = self.frame_payload
        full, rest = divmod(count, payload)
        if full >= max_frames:
            full, rest = max_frames, 0
        planned = [(frames.frame_header(payload, FrameType.DATA, 0, stream_id), payload)] * full
        if rest:
            planned.append((frames.frame_header(rest, FrameType.DATA, 0, stream_id), rest))
        if end_stream and planned and full * payload + rest == left:
            last = planned[-1][1]
            planned[-1] = frames.frame_header(last, FrameType.DATA, END_STREAM, stream_id), last
        self._planned = full * payload + rest
        return planned

    def data_sent(self, stream_id: int, count: int, *, end_stream: bool) -> None:
        """`count` bytes of what was planned were sent, as whole frames. The stream may have been reset meanwhile."""
        self._planned = 0
        self._take(stream_id, count, end_stream=end_stream)

    def _take(self, stream_id: int, count: int, *, end_stream: bool) -> None:
        """`count` bytes of DATA take room in the windows."""
        self._send_window.size -= count
        self._credit_bytes += count
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        window = stream.send_window
        window.size -= count
        if end_stream:
            stream.has_data = False
            self._scheduler.forget(stream_id)
            self._advance(stream_id, stream, Sent.DATA_END_STREAM)
        else:
            self._advance(stream_id, stream, Sent.DATA)
            self._scheduler.sent(stream_id, count)
            if window.size <= 0:
                self._scheduler.blocked(stream_id)

    def body_ready(self, stream_id: int) -> None:
        """The stream has DATA to send from now on: `next_stream` takes it into account until its END_STREAM."""
        stream = self._streams[stream_id]
        stream.has_data = True
        if stream.send_window.size > 0:
            self._scheduler.ready(stream_id, stream.priority)

    def body_waits(self, stream_id: int) -> None:
        """The stream has nothing to send for now."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.has_data = False
            self._scheduler.blocked(stream_id)

    def next_stream(self) -> int | None:
        """The stream that sends DATA next (RFC 9218 section 10): it has some, and a window. None where nobody can."""
        return self._scheduler.next_stream() if self._send_window.size > self._planned else None

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream from our side: RST_STREAM. Does nothing where it is gone.

        With NO_ERROR after a complete answer it asks the client not to send the rest of its request (8.1).
        """
        if stream_id in self._streams:
            self._output += frames.rst_stream_frame(stream_id, code)
            self._close(stream_id, State.CLOSED_BY_US)

    def _advance(self, stream_id: int, stream: Stream, sent: Sent) -> None:
        """Take the stream to the state after we sent that."""
        state = ON_SENDING[stream.state][sent]
        assert state is not None, (stream.state, sent)
        self._enter(stream_id, stream, state)

    def _enter(self, stream_id: int, stream: Stream, state: State) -> None:
        stream.state = state
        if state >= State.CLOSED_ENDED:
            self._close(stream_id, state)

    def _close(self, stream_id: int, state: State) -> None:
        """The stream is over, or was not taken. How is remembered for a while."""
        self._streams.pop(stream_id, None)
        self._scheduler.forget(stream_id)
        closed = self._closed
        closed[stream_id] = state
        if len(closed) > MAX_CLOSED_STREAMS:
            del closed[next(iter(closed))]


def payload_in_full_records(max_frame_size: int) -> int:
    """The largest payload that, with its frame header, is a whole number of full TLS records."""
    largest = min(max_frame_size, LARGEST_PAYLOAD) + frames.HEADER_BYTES
    return largest // RECORD_BYTES * RECORD_BYTES - frames.HEADER_BYTES
