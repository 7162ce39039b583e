"""Session tickets: the name of the key that sealed one, and which key is in use when.

OpenSSL seals tickets with keys that belong to an `SSLContext` and that `ssl` has no call for. So a new generation of keys is a
new context, made before the workers are forked: they all take up the same one at the same time, by the clock. A ticket
starts with the name of its key (RFC 5077 section 4). The name is learned from the first ticket that a context gives out;
with it a ClientHello that brings a ticket of the generation before is handed to the context of that generation.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

from .client_hello import TICKET_KEY_NAME_BYTES

GENERATION_SECONDS: Final = 12 * 3600.0
"""How long a generation gives out tickets; they are good for the next generation, too."""

NEW_SESSION_TICKET: Final = 4
"""HandshakeType (RFC 8446 section 4)."""


def key_name_of_ticket(message: bytes, *, tls13: bool) -> bytes:
    """The key's name in a NewSessionTicket (RFC 8446 section 4.6.1, RFC 5077 section 3.3); b"" where there is none."""
    if message[:1] != bytes((NEW_SESSION_TICKET,)):
        return b""
    position = 4 + 4  # type and length; ticket_lifetime
    if tls13:
        position += 4  # ticket_age_add
        position += 1 + message[position] if position < len(message) else 0  # ticket_nonce
    position += 2  # the ticket's length
    name = message[position : position + TICKET_KEY_NAME_BYTES]
    return name if len(name) == TICKET_KEY_NAME_BYTES else b""


class TicketGenerations:
    """The contexts that handshakes start with, one generation after the other."""

    def __init__(self, new: Callable[[], ssl.SSLContext], now: float, ahead: int) -> None:
        """`new` makes a context. `ahead` are made at once, to be shared by processes that are forked later.

        `now` is the wall clock, the same for all of these.
        """
        self._new = new
        self._began = now
        self._generation = 0
        self._ahead = [new() for _ in range(ahead)]
        self._names: dict[ssl.SSLContext, bytes] = {}
        self.current = new()
        self.previous: ssl.SSLContext | None = None

    def in_use(self) -> list[ssl.SSLContext]:
        """The contexts that a handshake may start with now."""
        return [self.current] if self.previous is None else [self.current, self.previous]

    def rotate(self, now: float) -> None:
        """Go on to the generation that the clock says. Those that were not made ahead are this process's own."""
        generation = int((now - self._began) // GENERATION_SECONDS)
        skipped = generation - self._generation - 2
        if skipped > 0:
            # A clock that was set, or a machine that slept: what lies between is not made.
            del self._ahead[:skipped]
            self._generation += skipped
        while self._generation < generation:
            self._generation += 1
            if self.previous is not None:
                self._names.pop(self.previous, None)
            self.previous, self.current = self.current, self._ahead.pop(0) if self._ahead else self._new()

    def choose(self, hello_untrusted: bytes) -> ssl.SSLContext:
        """The context for a client whose first bytes these are."""
        previous = self.previous
        if previous is not None:
            name = self._names.get(previous)
            if name is not None and name in hello_untrusted:
                return previous
        return self.current

    def is_known(self, context: ssl.SSLContext) -> bool:
        """Whether the name of the context's key is known."""
        return context in self._names

    def learn(self, context: ssl.SSLContext, name: bytes) -> None:
        """The context has given out a ticket under the key of that name."""
        if name:
            self._names[context] = name
