"""How a connection begins: from an accepted socket to a transport, and to the version of HTTP that was agreed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .accesslog import LoggedConnection
from .counters import Counters
from .exchange import HttpVersion
from .handshake.context import TlsContexts
from .handshake.driver import PlainHttpReceived, complete_handshake
from .keys.keylog import KeyLog
from .net.channel import Channel
from .transport.choice import TransportPolicy, establish
from .transport.interface import Transport
from .transport.plain import plain_transport

_PLAIN_HTTP_TEXT: Final = b"This port speaks HTTPS. Ask again with https:// in front of the address.\n"
_PLAIN_HTTP_ANSWER: Final = b"\r\n".join(
    (
        b"HTTP/1.1 400 Bad Request",
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: %d" % len(_PLAIN_HTTP_TEXT),
        b"Connection: close",
        b"",
        _PLAIN_HTTP_TEXT,
    )
)


class TlsBeginning:
    """A TLS handshake, then the kernel or this process encrypts.

    `versions` has the versions of HTTP by their ALPN name; "http/1.1" serves those that negotiate none.
    """

    def __init__(
        self,
        contexts: TlsContexts,
        key_log: KeyLog | None,
        policy: TransportPolicy,
        counters: Counters,
        versions: Mapping[str, HttpVersion],
    ) -> None:
        self._contexts = contexts
        self._key_log = key_log
        self._policy = policy
        self._counters = counters
        self._versions = versions

    async def __call__(self, address: str, channel: Channel) -> tuple[Transport, LoggedConnection, HttpVersion]:
        counters = self._counters
        try:
            session = await complete_handshake(channel, self._contexts.tickets, self._key_log)
        except PlainHttpReceived:
            channel.push(_PLAIN_HTTP_ANSWER)
            raise
        version, cipher = session.version, session.cipher
        protocol = self._versions.get(session.alpn_protocol or "http/1.1") or self._versions["http/1.1"]
        transport = establish(channel, session, self._policy, counters.key_updates)
        path = transport.writer.path
        counters.connections[path, version, cipher] += 1
        return transport, LoggedConnection(address, version, cipher, path), protocol


class PlainBeginning:
    """No TLS: the redirect to HTTPS and the metrics."""

    def __init__(self, version: HttpVersion) -> None:
        self._version = version

    async def __call__(self, address: str, channel: Channel) -> tuple[Transport, LoggedConnection, HttpVersion]:
        transport = plain_transport(channel)
        return transport, LoggedConnection(address, "", "", transport.writer.path), self._version
