"""What `Endpoint.receive` finds out. What comes from the network is checked against RFC 9113, and named `..._untrusted`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .header_blocks import Field
from .priorities import Priority
from .request_heads import RequestHead


@dataclass(slots=True)
class RequestReceived:
    """A new stream. With `ends` the request has no body, else DataReceived or RequestEnded follow."""

    stream_id: int
    head: RequestHead
    ends: bool


@dataclass(slots=True)
class HeadTooLarge:
    """A new stream whose header list is larger than we said we would take: to be answered with 431, without a body."""

    stream_id: int
    ends: bool


@dataclass(slots=True)
class DataReceived:
    """A piece of a request's body, without padding. Call `Endpoint.give_back` with its length, once, when it is used."""

    stream_id: int
    data_untrusted: bytes
    ends: bool


@dataclass(slots=True)
class RequestEnded:
    """Trailers, which end the request."""

    stream_id: int
    trailers_untrusted: list[Field]


@dataclass(slots=True)
class StreamReset:
    """A stream that was reported before is gone; nothing can be sent on it. `code` is the peer's, known or not, or ours.

    `label` says why we reset it; it is empty where the peer did.
    """

    stream_id: int
    code: int
    by_peer: bool
    label: str = ""


@dataclass(slots=True)
class RequestRejected:
    """A stream error on a stream that was not reported: a malformed request, a refused stream. There is nothing to do."""

    stream_id: int
    code: int
    label: str


@dataclass(slots=True)
class PriorityUpdated:
    """The peer changed the priority of an open stream. The scheduler knows."""

    stream_id: int
    priority: Priority


@dataclass(slots=True)
class SettingsChanged:
    """The peer's SETTINGS, those without effect included. The endpoint has applied and acknowledged them."""

    settings: list[tuple[int, int]]


@dataclass(slots=True)
class PingAcknowledged:
    """The peer answered our PING: it has seen all that we sent before."""

    opaque: bytes


@dataclass(slots=True)
class GoAwayReceived:
    """The peer will open no more streams. Those that are open go on."""

    last_stream_id: int
    code: int


@dataclass(slots=True)
class ConnectionFailed:
    """A connection error, always the last event. GOAWAY is in the output: send it, then close the connection."""

    code: int
    label: str


Event: TypeAlias = (
    RequestReceived
    | HeadTooLarge
    | DataReceived
    | RequestEnded
    | StreamReset
    | RequestRejected
    | PriorityUpdated
    | SettingsChanged
    | PingAcknowledged
    | GoAwayReceived
    | ConnectionFailed
)
