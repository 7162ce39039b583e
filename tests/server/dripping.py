"""A TLS client that hands over its bytes a few at a time, as slow and broken networks do."""

import ssl

from tests.server.clients import MANY, client_context, tcp_connect
from tests.server.running import Server


class DrippingClient:
    """`ssl.SSLObject` over memory, its records sent in pieces of `piece` bytes, each a TCP segment of its own."""

    def __init__(self, server: Server, piece: int, version: ssl.TLSVersion | None = None) -> None:
        """Complete a handshake."""
        self._piece = piece
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = client_context(server, version)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._tcp = tcp_connect(server)
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                self._drip()
                self._fill()

    def _drip(self) -> None:
        data = self._outgoing.read()
        for start in range(0, len(data), self._piece):
            self._tcp.sendall(data[start : start + self._piece])

    def _fill(self) -> None:
        data = self._tcp.recv(MANY)
        assert data, "the server closed the connection"
        self._incoming.write(data)

    def send(self, data: bytes, *, record: int = MANY) -> None:
        """Send `data` in TLS records of at most `record` bytes."""
        for start in range(0, len(data), record):
            self._tls.write(data[start : start + record])
        self._drip()

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        data = b""
        while len(data) < size:
            try:
                data += self._tls.read(size - len(data))
            except ssl.SSLWantReadError:
                self._fill()
        return data

    def close(self) -> None:
        self._tcp.close()


def client_hello(server: Server) -> bytes:
    """A ClientHello, in its record."""
    outgoing = ssl.MemoryBIO()
    tls = client_context(server).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without a server")
