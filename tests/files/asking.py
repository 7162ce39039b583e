"""Ask a site and read the whole answer, as a client would get it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ktls_server.files.site import Site
from ktls_server.semantics.messages import FileSlice, Request


@dataclass(frozen=True)
class Answer:
    """`fields` has lower-case names; a field that came twice is joined by a comma."""

    status: int
    fields: dict[str, str]
    body: bytes
    content_length: int | None
    close: bool


def ask(site: Site, target: bytes, method: bytes = b"GET", /, **fields: str) -> Answer:
    """Field names as keyword arguments, with `_` for `-`; a Host comes by itself."""
    given = {"host": "localhost"} | {name.replace("_", "-"): value for name, value in fields.items()}
    headers = [(name.encode(), value.encode("latin-1")) for name, value in given.items()]
    return answer(site, Request(method, target, b"1.1", headers))


def answer(site: Site, request: Request) -> Answer:
    """Everything of the response, whose descriptor is closed."""
    response = site.respond(request)
    try:
        body = b"".join(
            os.pread(part.fd, part.count, part.offset) if isinstance(part, FileSlice) else part
            for part in response.body
        )
        assert all(part.fd == response.fd for part in response.body if isinstance(part, FileSlice))
    finally:
        response.close()
    fields: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        assert b"\r" not in raw_value
        assert b"\n" not in raw_value
        name, value = raw_name.decode("ascii").lower(), raw_value.decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return Answer(response.status, fields, body, response.content_length, response.close_connection)
