"""Stream states (RFC 9113 section 5.1) as two literal tables: what the peer's frames do, and what ours do.

A server that does not push has no reserved streams, so five of the seven states are left; `CLOSED` is split by how the
stream ended, because what the peer may still have under way depends on it. The tables hold every state and every kind of
frame that belongs to a stream; frames that are forbidden on every stream (PUSH_PROMISE) are refused before they are asked.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple, TypeAlias

from .faults import ErrorCode


class State(enum.IntEnum):
    """Where a stream is. The four CLOSED ones are the RFC's `closed`."""

    IDLE = 0
    OPEN = 1
    HALF_CLOSED_LOCAL = 2
    HALF_CLOSED_REMOTE = 3
    CLOSED_ENDED = 4
    """Both sides sent END_STREAM."""
    CLOSED_BY_PEER = 5
    """The peer sent RST_STREAM."""
    CLOSED_BY_US = 6
    """We sent RST_STREAM: the peer may not have seen it yet."""
    CLOSED_FORGOTTEN = 7
    """Never used while a higher one was, or closed so long ago that nobody knows how."""


class Received(enum.IntEnum):
    """What the peer sends on a stream. END_STREAM makes a kind of its own."""

    HEADERS = 0
    HEADERS_END_STREAM = 1
    DATA = 2
    DATA_END_STREAM = 3
    RST_STREAM = 4
    WINDOW_UPDATE = 5
    PRIORITY = 6


class Sent(enum.IntEnum):
    """What we send on a stream."""

    HEADERS = 0
    HEADERS_END_STREAM = 1
    DATA = 2
    DATA_END_STREAM = 3
    RST_STREAM = 4


class Verdict(NamedTuple):
    """An answer of the table that is not a state. `code` None stands for a frame that is processed minimally and dropped."""

    is_connection_error: bool
    code: ErrorCode | None


Answer: TypeAlias = State | Verdict

_IGNORE: Final = Verdict(False, None)
_STREAM_CLOSED: Final = Verdict(False, ErrorCode.STREAM_CLOSED)
_CONNECTION_STREAM_CLOSED: Final = Verdict(True, ErrorCode.STREAM_CLOSED)
_PROTOCOL: Final = Verdict(True, ErrorCode.PROTOCOL_ERROR)
_MALFORMED: Final = Verdict(False, ErrorCode.PROTOCOL_ERROR)

_ON_RECEIPT: Final[dict[State, dict[Received, Answer]]] = {
    State.IDLE: {
        Received.HEADERS: State.OPEN,
        Received.HEADERS_END_STREAM: State.HALF_CLOSED_REMOTE,
        Received.DATA: _PROTOCOL,
        Received.DATA_END_STREAM: _PROTOCOL,
        Received.RST_STREAM: _PROTOCOL,
        Received.WINDOW_UPDATE: _PROTOCOL,
        Received.PRIORITY: State.IDLE,
    },
    State.OPEN: {
        # A second HEADERS frame holds trailers, which end the request (section 8.1).
        Received.HEADERS: _MALFORMED,
        Received.HEADERS_END_STREAM: State.HALF_CLOSED_REMOTE,
        Received.DATA: State.OPEN,
        Received.DATA_END_STREAM: State.HALF_CLOSED_REMOTE,
        Received.RST_STREAM: State.CLOSED_BY_PEER,
        Received.WINDOW_UPDATE: State.OPEN,
        Received.PRIORITY: State.OPEN,
    },
    State.HALF_CLOSED_LOCAL: {
        Received.HEADERS: _MALFORMED,
        Received.HEADERS_END_STREAM: State.CLOSED_ENDED,
        Received.DATA: State.HALF_CLOSED_LOCAL,
        Received.DATA_END_STREAM: State.CLOSED_ENDED,
        Received.RST_STREAM: State.CLOSED_BY_PEER,
        Received.WINDOW_UPDATE: State.HALF_CLOSED_LOCAL,
        Received.PRIORITY: State.HALF_CLOSED_LOCAL,
    },
    State.HALF_CLOSED_REMOTE: {
        Received.HEADERS: _STREAM_CLOSED,
        Received.HEADERS_END_STREAM: _STREAM_CLOSED,
        Received.DATA: _STREAM_CLOSED,
        Received.DATA_END_STREAM: _STREAM_CLOSED,
        Received.RST_STREAM: State.CLOSED_BY_PEER,
        Received.WINDOW_UPDATE: State.HALF_CLOSED_REMOTE,
        Received.PRIORITY: State.HALF_CLOSED_REMOTE,
    },
    State.CLOSED_ENDED: {
        Received.HEADERS: _CONNECTION_STREAM_CLOSED,
        Received.HEADERS_END_STREAM: _CONNECTION_STREAM_CLOSED,
        Received.DATA: _STREAM_CLOSED,
        Received.DATA_END_STREAM: _STREAM_CLOSED,
        Received.RST_STREAM: _IGNORE,
        Received.WINDOW_UPDATE: _IGNORE,
        Received.PRIORITY: _IGNORE,
    },
    State.CLOSED_BY_PEER: {
        Received.HEADERS: _STREAM_CLOSED,
        Received.HEADERS_END_STREAM: _STREAM_CLOSED,
        Received.DATA: _STREAM_CLOSED,
        Received.DATA_END_STREAM: _STREAM_CLOSED,
        Received.RST_STREAM: _IGNORE,
        Received.WINDOW_UPDATE: _IGNORE,
        Received.PRIORITY: _IGNORE,
    },
    State.CLOSED_BY_US: {
        Received.HEADERS: _IGNORE,
        Received.HEADERS_END_STREAM: _IGNORE,
        Received.DATA: _IGNORE,
        Received.DATA_END_STREAM: _IGNORE,
        Received.RST_STREAM: _IGNORE,
        Received.WINDOW_UPDATE: _IGNORE,
        Received.PRIORITY: _IGNORE,
    },
    State.CLOSED_FORGOTTEN: {
        # Section 5.1.1: the identifier of a new stream is higher than all before it.
        Received.HEADERS: _PROTOCOL,
        Received.HEADERS_END_STREAM: _PROTOCOL,
        Received.DATA: _STREAM_CLOSED,
        Received.DATA_END_STREAM: _STREAM_CLOSED,
        Received.RST_STREAM: _IGNORE,
        Received.WINDOW_UPDATE: _IGNORE,
        Received.PRIORITY: _IGNORE,
    },
}

_ON_SENDING: Final[dict[State, dict[Sent, State]]] = {
    State.OPEN: {
        Sent.HEADERS: State.OPEN,
        Sent.HEADERS_END_STREAM: State.HALF_CLOSED_LOCAL,
        Sent.DATA: State.OPEN,
        Sent.DATA_END_STREAM: State.HALF_CLOSED_LOCAL,
        Sent.RST_STREAM: State.CLOSED_BY_US,
    },
    State.HALF_CLOSED_LOCAL: {
        Sent.RST_STREAM: State.CLOSED_BY_US,
    },
    State.HALF_CLOSED_REMOTE: {
        Sent.HEADERS: State.HALF_CLOSED_REMOTE,
        Sent.HEADERS_END_STREAM: State.CLOSED_ENDED,
        Sent.DATA: State.HALF_CLOSED_REMOTE,
        Sent.DATA_END_STREAM: State.CLOSED_ENDED,
        Sent.RST_STREAM: State.CLOSED_BY_US,
    },
}

ON_RECEIPT: Final = tuple(tuple(_ON_RECEIPT[state][received] for received in Received) for state in State)
"""ON_RECEIPT[state][received]: the next state, or a `Verdict`."""

ON_SENDING: Final = tuple(tuple(_ON_SENDING.get(state, {}).get(sent) for sent in Sent) for state in State)
"""ON_SENDING[state][sent]: the next state; None where we must not send that."""
