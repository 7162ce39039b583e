"""One line for each response, without ever holding up the event loop.

    write() formats and keeps lines -> flush(), at most every 100 ms or 32 KiB -> a thread writes them to the descriptor

Standard output may be a pipe that nobody reads: then the thread waits, and once 8 MiB wait with it new lines are
dropped and counted, and the error log gets the number. Where nothing is logged there is no `AccessLog` at all.

What clients sent (`_untrusted`) is escaped, so that it can neither end a line nor reach a terminal as a control
sequence. A line fits into one atomic write to a pipe: lines of several workers never mix, and no client can make the
rest of its line look like a line of its own.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from .semantics.messages import Request

Format: TypeAlias = Literal["common", "combined", "json"]
Schedule: TypeAlias = Callable[[float, Callable[[], None]], object]

CLOSE_SECONDS: Final = 1.0
"""How long the end waits for the reader. It comes on top of the grace period, and with it has to fit into the patience
of whatever stops the server: 10 seconds in Docker, where 8 are the grace period."""

_FLUSH_SECONDS: Final = 0.1
_FLUSH_CHARACTERS: Final = 32 * 1024
_BACKLOG_CHARACTERS: Final = 8 * 1024 * 1024

# PIPE_BUF of linux/limits.h: a write of so many bytes to a pipe is atomic (pipe(7)).
_LINE_BYTES: Final = 4096
# When a line would be longer its fields are cut: three of 150 bytes and a method of 40, each byte escaped by at most
# six characters, leave 1100 for what the server itself says.
_CUT_FIELD_BYTES: Final = 150
_CUT_METHOD_BYTES: Final = 40

_ESCAPES = {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoggedConnection:
    """What the lines of one connection share; all four are the server's own words and need no escaping.

    `tx` says who encrypts what is sent: "kernel" or "userspace".
    """

    remote: str
    tls_version: str
    cipher: str
    tx: str


class AccessLog:
    """Formats, gathers and writes lines. `write` and `flush` belong to the event loop's thread.

    `schedule` is `loop.call_later`. `descriptor` is borrowed, not closed.
    """

    def __init__(self, format: Format, schedule: Schedule, descriptor: int = 1) -> None:
        self._format = {"common": _common, "combined": _combined, "json": _json}[format]
        self._clock = _JsonClock() if format == "json" else _ApacheClock()
        self._schedule = schedule
        self._lines: list[str] = []
        self._characters = 0
        self._flush_is_scheduled = False
        self._dropped = 0
        self._writer = _Writer(descriptor)

    def write(
        self, connection: LoggedConnection, request_untrusted: Request | None, status: int, size: int, duration: float
    ) -> None:
        """Note one response: `size` bytes of body sent, `duration` seconds from the request's arrival.

        `request_untrusted` is None where what came could not be read as a request.
        """
        line = self._format(self._clock.now(), connection, request_untrusted, status, size, duration)
        if len(line) > _LINE_BYTES and request_untrusted is not None:
            shortened = _shortened(request_untrusted)
            line = self._format(self._clock.now(), connection, shortened, status, size, duration)
        self._lines.append(line)
        self._characters += len(line)
        if self._characters >= _FLUSH_CHARACTERS:
            self.flush()
        elif not self._flush_is_scheduled:
            self._flush_is_scheduled = True
            self._schedule(_FLUSH_SECONDS, self._scheduled_flush)

    def _scheduled_flush(self) -> None:
        self._flush_is_scheduled = False
        self.flush()

    def flush(self) -> None:
        """Hand what has gathered to the writing thread; never waits."""
        if not self._lines:
            return
        if self._writer.backlog < _BACKLOG_CHARACTERS:
            self._writer.submit(_Batch(self._lines, self._characters, self._dropped))
            self._dropped = 0
        else:
            self._dropped += len(self._lines)
        self._lines = []
        self._characters = 0

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Write all that is left, then end the thread; what the reader has not taken after `timeout` seconds is lost."""
        self.flush()
        if self._dropped:
            self._writer.submit(_Batch([], 0, self._dropped))
        self._writer.close(timeout)


@dataclass(frozen=True, slots=True)
class _Batch:
    lines: list[str]
    characters: int
    dropped_before: int


class _Writer:
    """The thread. `backlog` is the difference of two counters of which each thread writes one, so it needs no lock."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._submitted = 0
        self._done = 0
        self._failure: str | None = None
        # A daemon: when the last line cannot be written the process must still be able to end.
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Characters that wait."""
        return self._submitted - self._done

    def submit(self, batch: _Batch) -> None:
        self._submitted += batch.characters
        self._queue.put(batch)

    def close(self, timeout: float) -> None:
        self._queue.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            _logger.warning("the access log's last lines could not be written: its reader takes nothing")

    def _run(self) -> None:
        while (batch := self._queue.get()) is not None:
            if batch.dropped_before:
                _logger.warning("%d access log lines were dropped: the reader was too slow", batch.dropped_before)
            try:
                for block in _blocks(batch.lines):
                    self._write(block)
                self._failure = None
            except OSError as error:
                self._report(error)
            self._done += batch.characters

    def _write(self, block: bytes) -> None:
        while block:
            try:
                block = block[os.write(self._descriptor, block) :]
            except BlockingIOError:
                # Whoever started us shares the descriptor and has made it non-blocking.
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()

    def _report(self, error: OSError) -> None:
        """Once for each kind of failure in a row: a full disk must not fill the error log, too."""
        if self._failure != error.strerror:
            self._failure = error.strerror
            _logger.warning("the access log cannot be written, lines are lost: %s", error.strerror)


def _blocks(lines: list[str]) -> list[bytes]:
    """Whole lines, joined as long as a block can be written atomically."""
    blocks = []
    block: list[str] = []
    size = 0
    for line in lines:
        if size + len(line) > _LINE_BYTES:
            blocks.append("".join(block).encode("ascii"))
            block, size = [], 0
        block.append(line)
        size += len(line)
    blocks.append("".join(block).encode("ascii"))
    return blocks


def _shortened(request: Request) -> Request:
    headers = [
        (name, _cut(value, _CUT_FIELD_BYTES))
        for name, value in request.headers_untrusted
        if name in (b"referer", b"user-agent")
    ]
    method, target = _cut(request.method, _CUT_METHOD_BYTES), _cut(request.target, _CUT_FIELD_BYTES)
    return Request(method, target, request.version, headers, request.keep_alive)


def _cut(value: bytes, length: int) -> bytes:
    return value if len(value) <= length else value[: length - 3] + b"..."


class _ApacheClock:
    """The time as Apache's %t has it, formatted once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def now(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._text = time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(second))
        return self._text


class _JsonClock(_ApacheClock):
    """The time as RFC 3339 has it, in UTC, with milliseconds."""

    def now(self) -> str:
        moment = time.time()
        second = int(moment)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{int((moment - second) * 1000):03d}Z"


def _is_plain(text: str) -> bool:
    """Nothing to escape in it, neither for Apache's formats nor for JSON. String methods take a tenth of what a regular
    expression does."""
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def _escaped(value_untrusted: bytes) -> str:
    """As Apache writes it: quotes and backslashes behind a backslash, what is not visible ASCII in hexadecimal."""
    text = value_untrusted.decode("latin-1")
    if _is_plain(text):
        return text
    return "".join(
        _ESCAPES.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}") for byte in value_untrusted
    )


def _common(
    now: str, connection: LoggedConnection, request: Request | None, status: int, size: int, duration: float
) -> str:
    """Apache's `%h %l %u %t "%r" %>s %b`."""
    line = "-" if request is None else _escaped(b"%b %b HTTP/%b" % (request.method, request.target, request.version))
    return f'{connection.remote} - - [{now}] "{line}" {status} {size or "-"}\n'


def _combined(
    now: str, connection: LoggedConnection, request: Request | None, status: int, size: int, duration: float
) -> str:
    """Apache's common format and `"%{Referer}i" "%{User-Agent}i"`."""
    common = _common(now, connection, request, status, size, duration)
    referer, user_agent = _clients_words(request)
    return f'{common[:-1]} "{_escaped(referer or b"-")}" "{_escaped(user_agent or b"-")}"\n'


def _json(
    now: str, connection: LoggedConnection, request: Request | None, status: int, size: int, duration: float
) -> str:
    """One JSON object, ASCII only; null for what the client did not send."""
    referer, user_agent = _clients_words(request)
    method = target = None
    if request is not None:
        method, target = request.method, request.target
    return (
        f'{{"time": "{now}", "remote": "{connection.remote}", "method": {_quoted(method)}, "path": {_quoted(target)},'
        f' "status": {status}, "bytes": {size}, "duration_ms": {duration * 1000:.3f},'
        f' "tls_version": "{connection.tls_version}", "cipher": "{connection.cipher}", "tx": "{connection.tx}",'
        f' "referer": {_quoted(referer)}, "user_agent": {_quoted(user_agent)}}}\n'
    )


def _clients_words(request: Request | None) -> tuple[bytes | None, bytes | None]:
    return (None, None) if request is None else (request.header(b"referer"), request.header(b"user-agent"))


def _quoted(value_untrusted: bytes | None) -> str:
    """A JSON string. Bytes that are not UTF-8 appear as `\\xNN`: lone surrogates would be refused by JSON readers."""
    if value_untrusted is None:
        return "null"
    text = value_untrusted.decode("latin-1")
    if _is_plain(text):
        return f'"{text}"'
    return json.dumps(value_untrusted.decode("utf-8", "backslashreplace"))
