"""Several workers: forks them from one prepared process, replaces those that die, and passes on what it is told.

The supervisor serves nobody and has no event loop and no threads, so that it can fork at any time, and little in it
can fail. It waits in one place, for signals and for its workers, and does what is due.

All workers accept from the same listening sockets, not each from one of its own (SO_REUSEPORT). That would tie a connection to
a worker before the worker has accepted it: what waits for a worker that dies is lost with its listener, and what waits for a
busy worker waits although another is free. In a shared queue a connection belongs to nobody yet. systemd hands over one socket,
too. docs/performance.md compares both.

    fork -> STARTING -> (ready) -> RUNNING -> (dies) -> due again, at once the first time, then after growing pauses
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from ..errors import KtlsServerError, SystemRefusal
from . import errorlog, systemd
from .preparation import Prepared
from .worker import ABORT, RELOAD, STOP, new_loop, serve_supervised

_log = logging.getLogger(__name__)

PAUSES_SECONDS: Final = (0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Before a worker is started again, by how many died in its place one after another."""

STABLE_SECONDS: Final = 60.0
"""A worker that lived for so long has shown that it can: the next death counts as the first."""

STOP_MARGIN_SECONDS: Final = 5.0
"""How long after the grace period a worker may still exist before it is killed. Closing takes it little more than
`accesslog.CLOSE_SECONDS`."""

ABORT_SECONDS: Final = 2.0
"""How long after the second signal."""

EXIT_CANNOT_START: Final = 3

_OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(slots=True)
class _Place:
    """One of the workers' places, and who is in it. `pid` is 0 while it is empty; it is due to be filled at `due`."""

    number: int
    pid: int = 0
    channel: socket.socket | None = None
    ready: bool = False
    started: float = 0.0
    deaths: int = 0
    due: float = 0.0


def run(prepared: Prepared, announce: Callable[[], None]) -> None:
    """Serve with `--workers` processes until SIGTERM or SIGINT. Raises SystemRefusal where a worker cannot start."""
    _Supervisor(prepared, announce).run()


class _Supervisor:
    def __init__(self, prepared: Prepared, announce: Callable[[], None]) -> None:
        self._prepared = prepared
        self._announce: Callable[[], None] | None = announce
        self._places = [_Place(number) for number in range(prepared.settings.workers)]
        self._selector = selectors.DefaultSelector()
        self._wake_up, self._signals_arrive = socket.socketpair()
        self._stopping = False
        self._kill_at = float("inf")
        self._cannot_start = False

    def run(self) -> None:
        self._wake_up.setblocking(False)
        self._signals_arrive.setblocking(False)
        self._selector.register(self._wake_up, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._signals_arrive.fileno())
        for number in _SIGNALS:
            # The number arrives at the wake-up socket; a handler only has to exist.
            signal.signal(number, lambda _number, _frame: None)
        # What exists now is never freed: workers share its pages for longer if the collector leaves them alone.
        gc.freeze()
        while not self._stopping or any(place.pid for place in self._places):
            self._fill_places()
            for key, _events in self._selector.select(self._seconds_until_due()):
                if key.data is None:
                    self._on_signals()
                else:
                    self._on_message(key.data)
            if time.monotonic() >= self._kill_at:
                self._kill()
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            # All is closed: one that comes while the interpreter ends must not change the exit status.
            signal.signal(number, signal.SIG_IGN)
        self._close()
        if self._cannot_start:
            raise SystemRefusal("a worker could not start; the lines above say why")

    def _close(self) -> None:
        self._selector.close()
        self._wake_up.close()
        self._signals_arrive.close()

    def _seconds_until_due(self) -> float | None:
        if self._stopping:
            next_time = self._kill_at
        else:
            next_time = min((place.due for place in self._places if not place.pid), default=float("inf"))
        return None if next_time == float("inf") else max(0.0, next_time - time.monotonic())

    # Workers

    def _fill_places(self) -> None:
        for place in self._places:
            if not self._stopping and not place.pid and time.monotonic() >= place.due:
                self._start(place)

    def _start(self, place: _Place) -> None:
        """Fork a worker for the place. Where the system refuses (no descriptors, no processes) it is tried again later."""
        place.started = time.monotonic()
        theirs: socket.socket | None = None
        try:
            theirs = self._open_channel(place)
            # Signals that come before the child has its own handlers wait.
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            place.pid = os.fork()
            if not place.pid:
                self._become_worker(place.number, theirs)
        except OSError as error:
            self._hang_up(place)
            self._schedule(place)
            pause = max(0.0, place.due - time.monotonic())
            _log.error("cannot start worker %d: %s; tried again in %.2f seconds", place.number, error.strerror, pause)
        finally:
            if theirs is not None:
                theirs.close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _open_channel(self, place: _Place) -> socket.socket:
        """The worker's end of a new channel. Raises OSError, and then nothing is left open."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.setblocking(False)
            self._selector.register(ours, selectors.EVENT_READ, place)
        except OSError:
            ours.close()
            theirs.close()
            raise
        place.channel, place.ready = ours, False
        return theirs

    def _become_worker(self, number: int, channel: socket.socket) -> NoReturn:
        """What the child does from fork to exit. It keeps nothing of the supervisor's: no socket, no handler."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for each in _SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            for each in (signal.SIGINT, signal.SIGHUP):
                signal.signal(each, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self._close()
            for place in self._places:
                if place.channel is not None:
                    place.channel.close()
            os.environ.pop("NOTIFY_SOCKET", None)
            errorlog.write_by_thread()
            with asyncio.Runner(loop_factory=new_loop(self._prepared.settings.loop)) as runner:
                runner.run(serve_supervised(self._prepared, number, channel))
            status = 0
        except KtlsServerError as error:
            _log.error("worker %d cannot start: %s", number, error)
            status = EXIT_CANNOT_START
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in _OUT_OF_RESOURCES:
                _log.error("worker %d ends: %s", number, error.strerror)
            else:
                _log.exception("worker %d ended by a fault of this server; please report it", number)
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            errorlog.flush()
            os._exit(status)

    def _on_message(self, place: _Place) -> None:
        if place.channel is None:
            return  # It was buried a moment ago: its signal came first.
        try:
            ready = bool(place.channel.recv(16))
        except OSError:
            ready = False
        if not ready:
            self._hang_up(place)  # it died: SIGCHLD says so, too
            return
        place.ready = True
        if self._announce is not None and all(each.ready for each in self._places):
            self._announce()
            self._announce = None
            systemd.notify_ready()

    def _hang_up(self, place: _Place) -> None:
        if place.channel is not None:
            self._selector.unregister(place.channel)
            place.channel.close()
            place.channel = None

    def _reap(self) -> None:
        """Collect every child that ended; as process 1 of a container that means strangers' children, too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for place in self._places:
                if place.pid == pid:
                    self._on_death(place, os.waitstatus_to_exitcode(status))

    def _on_death(self, place: _Place, exit_code: int) -> None:
        pid, was_ready = place.pid, place.ready
        self._hang_up(place)
        place.pid, place.ready = 0, False
        self._prepared.client_counts.clear(place.number)
        if self._stopping:
            return
        if exit_code == EXIT_CANNOT_START and not was_ready and self._announce is not None:
            self._cannot_start = True
            self._stop()
            return
        self._schedule(place)
        how = f"was killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"ended with status {exit_code}"
        _log.warning("worker %d (process %d) %s; another takes its place", place.number, pid, how)

    def _schedule(self, place: _Place) -> None:
        now = time.monotonic()
        if now - place.started >= STABLE_SECONDS:
            place.deaths = 0
        place.due = now + PAUSES_SECONDS[min(place.deaths, len(PAUSES_SECONDS) - 1)]
        place.deaths += 1

    # Signals

    def _on_signals(self) -> None:
        for number in self._wake_up.recv(4096):
            match number:
                case signal.SIGCHLD:
                    self._reap()
                case signal.SIGHUP:
                    self._reload()
                case signal.SIGTERM | signal.SIGINT:
                    if self._stopping:
                        self._abort()
                    else:
                        systemd.notify_stopping()
                        self._stop()

    def _tell(self, command: bytes) -> None:
        for place in self._places:
            if place.channel is not None:
                # A worker that takes nothing any more will be killed when its time is over.
                with contextlib.suppress(OSError):
                    place.channel.send(command)

    def _reload(self) -> None:
        """The supervisor reads certificates and passwords, too: later workers are forked with what it has."""
        systemd.notify_reloading()
        self._prepared.certificates.reload()
        if self._prepared.passwords is not None:
            self._prepared.passwords.reload()
        self._tell(RELOAD)
        systemd.notify_ready()

    def _stop(self) -> None:
        self._stopping = True
        self._kill_at = time.monotonic() + self._prepared.settings.grace + STOP_MARGIN_SECONDS
        # The workers close theirs: with the last one, connections are refused.
        self._prepared.close_listeners()
        self._tell(STOP)

    def _abort(self) -> None:
        self._kill_at = min(self._kill_at, time.monotonic() + ABORT_SECONDS)
        self._tell(ABORT)

    def _kill(self) -> None:
        self._kill_at = float("inf")
        for place in self._places:
            if place.pid:
                _log.warning("worker %d (process %d) does not end and is killed", place.number, place.pid)
                os.kill(place.pid, signal.SIGKILL)
