"""What the HTTP layer sees of a connection. It must not know which implementation it has."""

from __future__ import annotations

from typing import Protocol


class Transport(Protocol):
    """Application data over an established TLS connection.

    Every method raises ConnectionLost once the peer is gone or broke the protocol. Of the send methods one runs at a time.
    """

    @property
    def transmit_path(self) -> str:
        """ "kernel" or "userspace": who encrypts."""

    @property
    def must_close(self) -> bool:
        """True once no further response may be started here: the keys are used up, or cannot follow a KeyUpdate."""

    async def receive(self) -> bytes:
        """The next application data, at most one record; b"" at the end of the stream."""

    async def send(self, data: bytes, *, more: bool = False) -> None:
        """All of `data`. With `more` it may wait for what follows at once, to share a record with it."""

    async def send_file(self, fd: int, offset: int, count: int) -> None:
        """`count` bytes of an open file from `offset`. Raises FileChanged where the file has become shorter than that."""

    async def close_notify(self) -> None:
        """Tell the peer that no more data comes (RFC 8446 section 6.1). Nothing can be sent afterwards."""
