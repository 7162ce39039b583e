"""Inputs that are almost requests: the suite's own, changed in a few places."""

from __future__ import annotations

import random
from collections.abc import Iterator

PIECES = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"=", b"-", b"/", b"//", b"/.", b"/..", b"%", b"%2e", b"%2f",
    b"%00", b"%ff", b"?", b"#", b"*", b'"', b"W/", b"\xff", b"\x80", b"0", b"99999999999999999999", b"bytes=", b"0-", b"-1",
    b"GET ", b"HEAD ", b"OPTIONS ", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: a\r\n", b"Host:", b"Range: bytes=0-0,2-\r\n",
    b"If-Range: ", b"If-None-Match: *\r\n", b"If-Match: ", b"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
    b"Accept: text/html\r\n", b"Accept: application/json\r\n", b"Accept-Encoding: gzip, br;q=0.5, *;q=0\r\n",
    b"Content-Length: 1\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"1\r\nx\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n", b"Origin: https://a\r\n",
    b"/way_out", b"/folder_out/", b"/link.txt", b"/fifo", b"/docs/", b"/style.css", b"/.env", b"secret.txt", b"https://a/",
)  # fmt: skip


def mutations(seeds: list[bytes], chooser: random.Random) -> Iterator[bytes]:
    """Without an end. The same chooser state gives the same inputs."""
    while True:
        data = bytearray(chooser.choice(seeds))
        for _ in range(chooser.choice((1, 1, 2, 3, 5, 8))):
            _change(data, seeds, chooser)
        yield bytes(data)


def _change(data: bytearray, seeds: list[bytes], chooser: random.Random) -> None:
    start = chooser.randrange(1, len(data) + 1)
    end = min(len(data), start + chooser.choice((0, 1, 1, 2, 4, 16, 64)))
    match chooser.randrange(6):
        case 0:
            data[start:end] = b""
        case 1:
            data[start:end] = chooser.randbytes(end - start)
        case 2:
            data[start:start] = chooser.choice(PIECES)
        case 3:
            data[start:end] = chooser.choice(PIECES)
        case 4:
            data[start:start] = data[start:end] * chooser.choice((1, 2, 50))
        case _:
            data[start:] = chooser.choice(seeds)[1:]
