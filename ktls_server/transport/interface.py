"""What the HTTP layer sees of a connection, and the parts that a transport is made of.

A `Transport` has two halves that never wait for each other. Its `writer` (writer.py) is the only one that sends: it drives
a `Sealer`, and what the other half has to say to the peer (the answer to a KeyUpdate, an alert) is posted to it. Its
`reader` takes what has come and never waits: whoever needs more awaits `channel.readable()`.

| who | seals | opens |
|---|---|---|
| the kernel (`TLS_TX`, `TLS_RX`) | kernel.py | kernel.py |
| this process, with the session's keys | userspace.py | userspace.py |
| OpenSSL, where the keys cannot be had | openssl.py | openssl.py |
| nobody (plain HTTP) | plain.py | plain.py |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..net.channel import Channel

if TYPE_CHECKING:
    from .writer import Writer


class Reader(Protocol):
    """The receiving half."""

    @property
    def pending(self) -> bool:
        """True where `read` may give more although the socket is not readable: bytes are here that nobody has looked at."""

    def read(self) -> bytes | None:
        """Application data that is here, at most one record; b"" at the end of the stream; None where more has to come.

        Raises ConnectionLost where the peer is gone or broke the protocol, after the alert was posted.
        """


class Sealer(Protocol):
    """Seals records and hands them to the socket, in order. Every method raises ConnectionLost once the peer is gone."""

    @property
    def path(self) -> str:
        """Who encrypts: "kernel", "userspace", or "plain" for nobody."""

    @property
    def can_update(self) -> bool:
        """Whether the key can be replaced: in TLS 1.3, by whoever encrypts."""

    def write(self, data: bytes, *, more: bool) -> int:
        """Take bytes of `data` as application data, as many as the socket has room for; 0 where it has none.

        With `more` the last record may wait for what follows at once, to share a record with it.
        """

    def flush(self) -> bool:
        """Hand over what was taken and sealed; True where nothing is left. What waits for more stays."""

    async def send_file(self, fd: int, offset: int, count: int) -> int:
        """Send some of `count` bytes of a file from `offset`, at least one; returns how many.

        Raises FileChanged where the file has become shorter than that, FileUnreadable where it cannot be read.
        """

    async def send_frames(self, frames: Sequence[Frame], fd: int, offset: int) -> int:
        """Send a prefix of `frames`, at least one, whose payloads lie one behind the other in a file from `offset`.

        Returns how many. A frame that has begun is completed whatever happens to the file: where the file has become
        shorter, or cannot be read, zeros take the place of its bytes and FrameSpoilt is raised, after the frame.
        """

    def control(self, content_type: int, content: bytes) -> int:
        """Take bytes of a record of another type than application data; fewer than all, or 0, where there is no room."""

    def update(self) -> None:
        """Go on to the next generation of the key, right after a KeyUpdate was sent (RFC 8446 section 7.2)."""

    def close(self) -> None:
        """Give back what is held for this connection: nothing will be sent any more."""


class Frame(NamedTuple):
    """A header in memory, and how many bytes of a file follow it."""

    header: bytes
    payload_bytes: int


@dataclass(slots=True)
class Transport:
    """Application data over an established connection. Every part of it raises ConnectionLost once the peer is gone."""

    channel: Channel
    reader: Reader
    writer: Writer
