"""`KeyLog`: the way out of OpenSSL for the secrets of the handshake in hand.

`ssl` has no call that returns traffic secrets, but every CPython can write them to a key log file. Ours is a memfd:
anonymous memory that no file system holds. Opened by its `/proc/self/fd` path, it serves as
`SSLContext.keylog_filename`. CPython flushes every line before `SSLObject.do_handshake()` returns, and that call is
synchronous, so what is new in the memfd when it returns belongs to that connection: `take()` must follow each such
call, failed ones too, before anything else does a handshake. Which call logs what (CPython 3.11 and 3.13, OpenSSL 3.0):

| handshake | first call | completing call |
|---|---|---|
| TLS 1.3, full and resumed | `SERVER_TRAFFIC_SECRET_0` | `CLIENT_TRAFFIC_SECRET_0` |
| TLS 1.2, full | nothing | `CLIENT_RANDOM` |
| TLS 1.2, resumed | `CLIENT_RANDOM` | nothing |

`take()` overwrites what it has read with zeros, here and in the memfd. That costs half of what truncating the file
each time does (it would free and fault in a page), and freed pages keep their contents. Some versions of OpenSSL log
the later secrets of a connection too, at each KeyUpdate; those lines lie there until the next `take()`, which passes
them over.

One `KeyLog` per process. A memfd survives `fork()` as shared memory, so a worker must make its own and attach its
contexts to it after the fork: two processes on one memfd would take each other's lines. `exec()` closes it.
"""

from __future__ import annotations

import os
import ssl
from binascii import unhexlify
from dataclasses import dataclass, field
from types import TracebackType

CLIENT_RANDOM = "CLIENT_RANDOM"
CLIENT_TRAFFIC_SECRET_0 = "CLIENT_TRAFFIC_SECRET_0"
SERVER_TRAFFIC_SECRET_0 = "SERVER_TRAFFIC_SECRET_0"

# The labels that keys are made from, with the space that ends them in the file. A line is "label client_random secret",
# the last two in hex (RFC 9850 section 2). The other secrets (handshake, exporter) are never copied out of the buffer.
_LABELS = [(label, f"{label} ".encode()) for label in (SERVER_TRAFFIC_SECRET_0, CLIENT_TRAFFIC_SECRET_0, CLIENT_RANDOM)]

_RANDOM_HEX_LENGTH = 64

# A TLS 1.3 call with SHA-384 logs at most four lines of 200 bytes, and each newly attached context a line of comment.
_BUFFER_SIZE = 4096

# Bytes of zeros that the memfd may hold before it is truncated: about 60 handshakes.
_WIPED_LIMIT = 65536


@dataclass(frozen=True, slots=True)
class Tls13Secrets:
    """The first application traffic secrets of both directions (RFC 8446 section 7.1), as long as the suite's hash."""

    server: bytes = field(repr=False)
    client: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tls12Secrets:
    """The 48-byte master secret (RFC 5246 section 8.1, or RFC 7627) and the client's random that names its session."""

    master_secret: bytes = field(repr=False)
    client_random: bytes = field(repr=False)


class KeyLog:
    """A key log in anonymous memory. Use as a context manager, or `close()` it."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("ktls_server key log", os.MFD_CLOEXEC)
        self._offset = 0
        self._lines = bytearray(_BUFFER_SIZE)
        self._buffer = memoryview(self._lines)
        self._zeros = bytes(_BUFFER_SIZE)

    @property
    def path(self) -> str:
        """The memfd's name, good in this process only."""
        return f"/proc/self/fd/{self._fd}"

    def attach(self, context: ssl.SSLContext) -> None:
        """Have every handshake of `context` log here. Once per context, in the process that uses it.

        Raises OSError where /proc is not mounted.
        """
        context.keylog_filename = self.path

    def take(self) -> dict[str, tuple[bytes, bytes]]:
        """What the `do_handshake()` call that just returned has logged: label -> (client random, secret).

        Of the labels above; empty where the call logged none of them. Afterwards the memfd and the buffer that it was
        read into hold zeros.
        """
        length = os.preadv(self._fd, (self._buffer,), self._offset)
        if not length:
            return {}
        if length == _BUFFER_SIZE:
            length = self._skip_backlog()
        try:
            return self._parse(length)
        finally:
            self._wipe(length)

    def _skip_backlog(self) -> int:
        """More is there than one call logs. What belongs to the last call is at the end, the rest is of no use."""
        length = os.preadv(self._fd, (self._buffer,), os.lseek(self._fd, 0, os.SEEK_END) - _BUFFER_SIZE)
        os.ftruncate(self._fd, 0)
        self._offset = 0
        return length

    def _parse(self, length: int) -> dict[str, tuple[bytes, bytes]]:
        taken: dict[str, tuple[bytes, bytes]] = {}
        for label, prefix in _LABELS:
            start = self._lines.rfind(prefix, 0, length)
            if start < 0:
                continue
            start += len(prefix)
            middle = start + _RANDOM_HEX_LENGTH
            end = self._lines.find(b"\n", middle, length)
            taken[label] = unhexlify(self._buffer[start:middle]), unhexlify(self._buffer[middle + 1 : end])
        return taken

    def _wipe(self, length: int) -> None:
        zeros = self._zeros[:length]
        self._buffer[:length] = zeros
        os.pwrite(self._fd, zeros, self._offset)
        self._offset += length
        if self._offset > _WIPED_LIMIT:
            os.ftruncate(self._fd, 0)
            self._offset = 0

    def close(self) -> None:
        """Give the memory back. Contexts attached to it keep a descriptor of their own; use them no more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> KeyLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
