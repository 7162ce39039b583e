"""Nobody encrypts: plain HTTP, for the redirect to HTTPS and the metrics."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence

from ..net.channel import Channel
from .interface import Frame, Transport
from .writer import Writer

_RECEIVE_BYTES = 16384


class PlainSealer:
    """`Sealer` that seals nothing: there are no records, so there is nothing to say beside the data."""

    __slots__ = ("_channel", "send_file")

    path = "plain"
    can_update = False

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.send_file = channel.send_file_part

    def write(self, data: bytes, *, more: bool) -> int:
        return self._channel.try_send(data, socket.MSG_MORE if more else 0)

    def flush(self) -> bool:
        return True

    async def send_frames(self, frames: Sequence[Frame], fd: int, offset: int) -> int:
        raise AssertionError("HTTP/2 goes over TLS only")

    def control(self, content_type: int, content: bytes) -> int:
        return len(content)

    def update(self) -> None:
        raise AssertionError("there is no key")

    def close(self) -> None:
        """Nothing is held."""


class PlainReader:
    """`Reader` of what the socket gives."""

    __slots__ = ("_channel",)

    pending = False

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def read(self) -> bytes | None:
        buffer = memoryview(bytearray(_RECEIVE_BYTES))
        received = self._channel.receive_into(buffer)
        return None if received is None else bytes(buffer[:received])


def plain_transport(channel: Channel) -> Transport:
    """A connection without TLS."""
    return Transport(channel, PlainReader(channel), Writer(channel, PlainSealer(channel), sys.maxsize))
