"""Response heads as bytes.

A head is put together by concatenation: every value in it was made by this server (or checked by the site), so there is
nothing left to validate per response. Date is formatted once a second (RFC 9110 section 6.6.1).
"""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from ..semantics.messages import Response, field_lines

SERVER_NAME: Final = b"ktls_server"

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode("ascii")) for status in HTTPStatus
}


class HeadWriter:
    """Writes response heads. One per process."""

    __slots__ = ("_common", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._common = b""

    def head(self, response: Response, keep_alive: bool, http_1_0: bool) -> bytes:
        """Status line and header fields up to and with the empty line.

        HTTP/1.0 peers that stay need to be told so (RFC 9112 appendix C.2.2); HTTP/1.1 peers need to be told of the end.
        """
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._common = b"Server: %s\r\nDate: %s\r\n" % (
                SERVER_NAME,
                formatdate(second, usegmt=True).encode("ascii"),
            )
        lines = [_STATUS_LINES[response.status], self._common, response.prepared or field_lines(response)]
        if not keep_alive:
            lines.append(b"Connection: close\r\n\r\n")
        elif http_1_0:
            lines.append(b"Connection: keep-alive\r\n\r\n")
        else:
            lines.append(b"\r\n")
        return b"".join(lines)
