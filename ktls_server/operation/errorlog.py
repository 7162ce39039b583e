"""The error log: Python's `logging`, to standard error, set up in this one place. A line never holds up who logs it.

    a record -> formatted -> waits in `_Lines` -> standard error

Standard error may be a pipe that nobody reads. So lines wait, `MAX_WAITING_BYTES` at most; further ones are dropped and
counted, and the log gets the number once there is room again. Who writes the lines depends on the process:

- A process that serves has a thread for it, which may block: `write_by_thread`.
- The supervisor forks, and so has no thread. It writes what can be written without waiting, and the rest with a later line
  or by `flush`.

Under systemd each line carries its priority as sd-daemon(3) describes, and no time, since the journal has its own.
What a client does is at most a debug line.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import stat
import sys
import threading
import time
from collections import deque
from typing import Final

_log = logging.getLogger(__name__)

MAX_WAITING_BYTES: Final = 256 * 1024
"""Some thousand lines: all that a disturbance of a minute has to say."""

FLUSH_SECONDS: Final = 0.5
"""How long the end waits for a reader of the last lines. It comes on top of the grace period and `accesslog.CLOSE_SECONDS`."""

# PIPE_BUF of linux/limits.h: poll(2) calls a pipe writable when it has room for so much.
_PIECE_BYTES: Final = 4096

_DESCRIPTOR: Final = 2

_PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""SD_DEBUG, SD_INFO, SD_WARNING, SD_ERR, SD_CRIT."""


class _JournalFormatter(logging.Formatter):
    """Each line of a message, a traceback's too, with its priority: the journal takes every line for an entry."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 5)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class _Lines:
    """Lines that wait for `descriptor`, which is borrowed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._without_waiting = _WithoutWaiting(descriptor)
        # Each with the number of dropped lines that it tells of.
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._by_thread = False
        self._pid = os.getpid()
        self.dropped = 0
        """Lines that were dropped since the last that said so."""

    def write_by_thread(self) -> None:
        """From now on a thread of this process writes. What waited in the parent of a forked process stays with the parent."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._waiting.clear()
            self._bytes = self.dropped = 0
            self._changed = threading.Condition()
            self._thread = None
        self._by_thread = True
        if self._waiting:
            self._start_thread()

    def add(self, line: bytes) -> None:
        """Have the line written. Never waits. Calls have to come one at a time, as a logging.Handler makes them."""
        with self._changed:
            if self._bytes + len(line) > MAX_WAITING_BYTES:
                self.dropped += 1
                return
            told = self.dropped
            if told:
                line = b"%d lines of the error log were dropped: nobody took them\n" % told + line
                self.dropped = 0
            self._waiting.append((line, told))
            self._bytes += len(line)
            if self._by_thread:
                self._start_thread()
                self._changed.notify_all()
            else:
                self._write_without_waiting()

    def flush(self, seconds: float) -> None:
        """Return once all lines are written, or after so many seconds."""
        until = time.monotonic() + seconds
        with self._changed:
            while self._waiting:
                left = until - time.monotonic()
                if left <= 0:
                    return
                if self._by_thread:
                    self._changed.wait(left)
                else:
                    self._without_waiting.wait(left)
                    self._write_without_waiting()

    def close(self) -> None:
        """Close what was opened to write without waiting."""
        self._without_waiting.close()

    def _write_without_waiting(self) -> None:
        while self._waiting:
            try:
                written = self._without_waiting.write(self._waiting[0][0])
            except OSError:
                self._drop_first()
                continue
            if not written:
                return
            self._take(written)

    def _start_thread(self) -> None:
        if self._thread is None:
            # A daemon: when the last line cannot be written the process must still be able to end.
            self._thread = threading.Thread(target=self._run, name="error log", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                piece = self._waiting[0][0][:_PIECE_BYTES]
            try:
                written = os.write(self._descriptor, piece)
            except BlockingIOError:
                # Somebody who has the same pipe made it non-blocking.
                select.select([], [self._descriptor], [])
                continue
            except OSError:
                written = 0
            with self._changed:
                if written:
                    self._take(written)
                else:
                    self._drop_first()
                self._changed.notify_all()

    def _take(self, written: int) -> None:
        self._bytes -= written
        line, told = self._waiting[0]
        if written < len(line):
            self._waiting[0] = line[written:], told
        else:
            self._waiting.popleft()

    def _drop_first(self) -> None:
        """Nobody can read it any more (EPIPE, EIO), or there is no room on the disk (ENOSPC)."""
        line, told = self._waiting.popleft()
        self._bytes -= len(line)
        self.dropped += 1 + told


class _WithoutWaiting:
    """Writes to a descriptor what it takes at once.

    O_NONBLOCK on the descriptor itself would bind all who have it: the shell, the other workers. So a socket is asked for each
    call, and a pipe or a terminal is opened a second time. Where that is not allowed (a pipe that root made) the descriptor is
    asked for room first, and only another process that takes the room in that moment could still make the write wait.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._socket: socket.socket | None = None
        self._asks_for_room = self._is_opened = False
        with contextlib.suppress(OSError):
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISSOCK(mode):
                self._socket = socket.socket(fileno=os.dup(descriptor))
            elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
                self._asks_for_room = True
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC
                self._descriptor = os.open(f"/proc/self/fd/{descriptor}", flags)
                self._asks_for_room, self._is_opened = False, True

    def write(self, line: bytes) -> int:
        """How many bytes it took, 0 where it would have to wait. Raises OSError."""
        try:
            if self._socket is not None:
                return self._socket.send(line, socket.MSG_DONTWAIT)
            if self._asks_for_room and not self._has_room(0):
                return 0
            return os.write(self._descriptor, line[:_PIECE_BYTES])
        except BlockingIOError:
            return 0

    def wait(self, seconds: float) -> None:
        """Return once there is room, or after so many seconds."""
        if self._has_room(seconds):
            # There may be room for less than a line: do not spin.
            time.sleep(min(seconds, 0.01))

    def _has_room(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))

    def close(self) -> None:
        """Close what was opened."""
        if self._socket is not None:
            self._socket.close()
        elif self._is_opened:
            os.close(self._descriptor)


class _Handler(logging.Handler):
    """From records to lines."""

    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception as error:
            # Not the arguments, which may hold what a client sent.
            text = f"a line of the log could not be written: {type(error).__name__} in {record.msg!r} of {record.name}"
        self.lines.add(text.encode("utf-8", "backslashreplace") + b"\n")

    def flush(self) -> None:
        """Called by logging.shutdown when the interpreter ends."""
        self.lines.flush(FLUSH_SECONDS)

    def close(self) -> None:
        super().close()
        self.lines.close()


def configure(level: str) -> None:
    """Send every record of at least `level` (debug, info, warning, error) to standard error, and Python's warnings."""
    former = _handler()
    if former is not None:
        former.close()
    handler = _Handler(_Lines(_DESCRIPTOR))
    if goes_to_journal():
        handler.setFormatter(_JournalFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    sys.unraisablehook = _log_unraisable


def write_by_thread() -> None:
    """Call it in a process that serves and will not fork: from now on a thread writes the lines."""
    handler = _handler()
    if handler is not None:
        handler.lines.write_by_thread()


def flush() -> None:
    """Wait until all lines are written, for `FLUSH_SECONDS` at most: for a process that ends by os._exit."""
    handler = _handler()
    if handler is not None:
        handler.flush()


def _handler() -> _Handler | None:
    return next((each for each in logging.getLogger().handlers if isinstance(each, _Handler)), None)


def _log_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    """Log what was raised where nobody could catch it.

    A server name that is not ASCII is one of those: CPython decodes it inside OpenSSL's callback, then refuses the handshake.
    Its own report would write a traceback and the client's bytes for each.
    """
    if isinstance(unraisable.exc_value, UnicodeDecodeError) and isinstance(unraisable.object, bytes):
        _log.debug("a client asked for a server name that is not ASCII")
    else:
        exception = unraisable.exc_value or unraisable.exc_type()
        _log.error("an exception that nobody could catch", exc_info=exception)


def goes_to_journal() -> bool:
    """Whether standard error is the journal's socket: JOURNAL_STREAM holds its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):  # Python has no stream where the descriptor was closed at the start
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
