"""A client that reads answers as h11 understands them: what it accepts has a head that is well-formed, and is framed."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Self

import h11

from tests.server.clients import Client
from tests.server.running import Server


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One response. `fields` has lower-case names; one that came twice is joined by a comma. `interim`: the 1xx before."""

    status: int
    fields: dict[str, str]
    body: bytes
    interim: tuple[int, ...] = ()


class Conversation:
    """One TLS connection. Bytes are sent as a test gives them, well-formed or not."""

    def __init__(self, server: Server) -> None:
        self._client = Client(server)
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def send(self, data: bytes) -> None:
        self._client.send(data)

    def answer(self, method: bytes = b"GET") -> HttpAnswer:
        """The next response, to a request with that method: HEAD's has no body."""
        reader = h11.Connection(h11.CLIENT)
        # Only so that h11 knows the method. A method's name must not be empty or malformed here.
        reader.send(h11.Request(method=method, target="/", headers=[("host", "localhost")]))
        reader.send(h11.EndOfMessage())
        if self._unread:  # h11 takes nothing for the end of the stream
            reader.receive_data(self._unread)
        interim = []
        body = b""
        response: h11.Response | None = None
        while True:
            event = reader.next_event()
            if event is h11.NEED_DATA:
                data = self._client.tls.recv(65536)
                assert data, f"the stream ended within an answer: {response}"
                reader.receive_data(data)
            elif isinstance(event, h11.InformationalResponse):
                interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                assert isinstance(event, h11.EndOfMessage), event
                break
        self._unread = reader.trailing_data[0]
        assert response is not None
        fields: dict[str, str] = {}
        for raw_name, raw_value in response.headers:
            name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        # Without a length, the end of a body would be the end of the connection.
        assert "content-length" in fields or response.status_code in (204, 304)
        return HttpAnswer(response.status_code, fields, bytes(body), tuple(interim))

    def at_end(self) -> bool:
        """Whether the stream ends here, by close_notify. Waits for what comes."""
        return not self._unread and self._client.tls.recv(1) == b""


def head_of_request(method: bytes, target: bytes, fields: dict[str, str]) -> bytes:
    """A request without a body, for a case of the table."""
    lines = [b"%b %b HTTP/1.1" % (method, target), b"Host: localhost"]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in fields.items()]
    return b"\r\n".join([*lines, b"", b""])
