"""One process that serves: an event loop, its connections, their time limits, and an end in good order.

It serves alone, or as one of several that a supervisor forked from itself; then commands come over a socket pair, whose
end means that the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from ..access import PasswordGate
from ..accesslog import AccessLog
from ..beginning import TlsBeginning
from ..certificates import ValidityWatch
from ..counters import Counters
from ..errors import ConfigurationError
from ..exchange import HANDLER_SECONDS, HttpVersion, Service, Stage
from ..handlers import FilesHandler
from ..http1.conversation import Http1
from ..http2.conversation import Http2
from ..keys.keylog import KeyLog
from ..net.listening import port_of
from ..transport.choice import TransportPolicy
from . import systemd
from .connections import Connections
from .metrics import MetricsThread
from .plain import plain_connections
from .preparation import Prepared, open_site, reopen_site
from .redirect import redirect
from .scoreboard import ProcessState

_log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.5
"""How often the time limits are looked at: what a limit may be late by."""

CERTIFICATE_CHECK_TICKS: Final = 10
"""Certificates are looked at every five seconds, to see whether they were replaced."""

PASSWORD_THREADS: Final = 2
"""Passwords verified at one time: each takes tens of milliseconds of a core and, with Argon2, 64 MiB."""

READY: Final = b"ready"
STOP: Final = b"stop"
ABORT: Final = b"abort"
RELOAD: Final = b"reload"
"""What goes over the socket pair: the first from the worker, the others to it."""


class Worker:
    """Everything that one event loop serves. `place` is its number among the workers."""

    def __init__(self, prepared: Prepared, place: int = 0) -> None:
        """Call it inside the loop that will serve. Raises ConfigurationError."""
        settings = prepared.settings
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._certificates = prepared.certificates
        self._scoreboard = prepared.scoreboard
        self._key_log = self._open_key_log()
        access_log = None
        if settings.access_log != "off":
            access_log = AccessLog(settings.access_log, self._loop.call_later)
        counters = Counters() if prepared.scoreboard is None else prepared.scoreboard.enter(place)
        # One thread: large folders are listed one after the other, and what was listed a moment ago is not listed again.
        self._listing_thread = ThreadPoolExecutor(1, "listing")
        self._passwords = prepared.passwords
        self._gate = None if self._passwords is None else PasswordGate(self._passwords)
        self._files = FilesHandler(open_site(settings, self._elsewhere), self._gate)
        self.service = Service(
            settings=settings,
            handler=self._files.handler,
            refuse=lambda status, explanation: self._files.site.error(status, explanation, close=True),
            counters=counters,
            responses=counters.responses,
            body_bytes=counters.body_bytes,
            access_log=access_log,
        )
        policy = TransportPolicy(
            kernel=prepared.kernel,
            transmit=settings.ktls != "off",
            receive=settings.ktls_rx == "on",
            record_limit=settings.aead_record_limit,
        )
        versions: dict[str, HttpVersion] = {"http/1.1": Http1()}
        if settings.http2:
            versions["h2"] = Http2()
        begin = TlsBeginning(self._certificates.contexts, self._key_log, policy, counters, versions)
        prepared.client_counts.enter(place)
        self._connections = Connections(self.service, begin, prepared.listeners, self._loop, prepared.client_counts)
        self._redirects = plain_connections(
            settings,
            lambda request, _client: redirect(request, redirect_port),
            prepared.redirect_listeners,
            self._loop,
            counters=Counters(),
            responses=counters.redirects,
        )
        redirect_port = settings.public_port or port_of(prepared.listeners[0])
        self._metrics = None
        if prepared.scoreboard is not None:
            self._metrics = MetricsThread(settings, prepared.metrics_listeners, prepared.scoreboard)
        self._tick_handle: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._tick_due = time.monotonic()
        self._passwords_refused = 0
        # What is wrong with a certificate at the start is said by whoever started the server.
        self._validity = ValidityWatch(settings.cert)
        self._validity.news()
        self._is_first = place == 0

    def start(self) -> None:
        """Begin to accept."""
        self._watch_files()
        self._connections.start()
        self._redirects.start()
        if self._metrics is not None:
            self._metrics.start()
        self._tick()

    def _elsewhere(self, function: Callable[[], object]) -> Awaitable[object]:
        return self._loop.run_in_executor(self._listing_thread, function)

    def _tick(self) -> None:
        now = time.monotonic()
        # A step that was under way when this was due made it late.
        self.service.note_turn(now - self._tick_due)
        self._tick_due = now + TICK_SECONDS
        self._tick_handle = self._loop.call_later(TICK_SECONDS, self._tick)
        self._connections.check_deadlines()
        self._redirects.check_deadlines()
        self._ticks += 1
        if self._ticks % CERTIFICATE_CHECK_TICKS == 0:
            self._watch_files()
        self._publish()

    def _publish(self) -> None:
        if self._scoreboard is None:
            return
        service, gate = self.service, self._gate
        waiting = 0
        if gate is not None:
            waiting = gate.waiting
            service.counters.refused["passwords"] += gate.refused - self._passwords_refused
            self._passwords_refused = gate.refused
        state = ProcessState(
            open_connections={stage.value: len(service.stages[stage]) for stage in Stage},
            connection_tasks=self._connections.tasks,
            longest_turn_seconds=service.longest_turn,
            blocked_connections=len(service.blocked),
            waiting_passwords=waiting,
            certificate_days_left=min((each.days_left() for each in self._validity.read), default=None),
        )
        service.longest_turn = 0.0
        self._scoreboard.write(service.counters, state)

    def _watch_files(self) -> None:
        """Read what was replaced: certificates, keys, passwords. Ticket keys have their time as well."""
        self._certificates.rotate_ticket_keys()
        if self._certificates.changed():
            self._reload_certificates()
        if self._passwords is not None and self._passwords.changed():
            self._passwords.reload()
        for complaint in self._validity.news():
            if self._is_first:  # of the workers, who all see it
                _log.warning("%s", complaint)

    def _reload_certificates(self) -> None:
        outcome = "done" if self._certificates.reload() else "failed"
        self.service.counters.certificate_reloads[outcome] += 1
        self._validity.reload()

    def reload(self) -> None:
        """Read certificates, keys and passwords again, and open the folder that the path leads to now."""
        self._reload_certificates()
        if self._passwords is not None:
            self._passwords.reload()
        before = self._files.site
        self._files.site = reopen_site(self._settings, before, self._elsewhere)
        if self._files.site is not before:
            self.service.handler = self._files.handler
            # A handler that waits (for a thread that lists a folder) may use it for so long.
            self._loop.call_later(HANDLER_SECONDS, before.close)

    async def stop(self) -> None:
        """Accept nobody, let responses in flight finish within the grace period, end the rest, close everything."""
        service = self.service
        service.draining = True
        self._connections.stop()
        self._redirects.stop()
        self._connections.drain()
        self._connections.hasten(service.time_limit(Stage.IDLE))
        self._redirects.abort()
        await self._redirects.wait_until_empty()
        await self._connections.wait_until_empty(self._settings.grace)
        self.abort()
        await self._connections.wait_until_empty()
        self._close()

    @property
    def busy(self) -> int:
        """Responses in flight."""
        return len(self.service.stages[Stage.RESPONSE]) + len(self.service.stages[Stage.HANDLER])

    def abort(self) -> None:
        """Cut every connection."""
        self._connections.abort()

    def _close(self) -> None:
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        self._publish()
        if self._metrics is not None:
            self._metrics.stop()
        if self._scoreboard is not None:
            self._scoreboard.leave()
        if self.service.access_log is not None:
            self.service.access_log.close()
        if self._gate is not None:
            self._gate.close()
        self._listing_thread.shutdown(cancel_futures=True)
        self._files.site.close()
        if self._key_log is not None:
            self._key_log.close()

    def _open_key_log(self) -> KeyLog | None:
        """None where /proc is not mounted. Raises ConfigurationError where that will not do."""
        key_log = KeyLog()
        try:
            self._certificates.contexts.attach(key_log)
        except OSError as error:
            key_log.close()
            problem = f"no keys can be taken out of OpenSSL, because /proc/self/fd cannot be used ({error.strerror})"
            if self._settings.ktls == "require":
                raise ConfigurationError(f"{problem}, and kernel TLS is required. Mount /proc.") from error
            _log.warning("%s: OpenSSL encrypts for all connections, which costs more; mount /proc", problem)
            return None
        return key_log


async def serve_alone(prepared: Prepared, announce: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; a second one cuts what is left. SIGHUP reloads the certificates."""
    worker = Worker(prepared)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_stop_signal() -> None:
        if stop.is_set():
            worker.abort()
        elif sys.stderr.isatty() and worker.busy:
            print(f"finishing {worker.busy} responses; Ctrl-C again ends at once", file=sys.stderr)
        stop.set()

    def on_reload_signal() -> None:
        systemd.notify_reloading()
        worker.reload()
        systemd.notify_ready()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_stop_signal)
    loop.add_signal_handler(signal.SIGHUP, on_reload_signal)
    if os.getpid() == 1:
        # Orphans of a container become children of its first process: the kernel buries them for whoever ignores SIGCHLD.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    worker.start()
    announce()
    systemd.notify_ready()
    await stop.wait()
    systemd.notify_stopping()
    await worker.stop()
    _ignore_signals(loop, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def serve_supervised(prepared: Prepared, place: int, channel: socket.socket) -> None:
    """Serve as one of several until the supervisor says so or is gone, or SIGTERM comes.

    Signals that a terminal or a service manager sends to all processes of a group mean nothing here, or no more than
    what the supervisor says: it gets them, too, and only it counts them.
    """
    worker = Worker(prepared, place)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_command() -> None:
        command = channel.recv(16)
        if command == RELOAD:
            worker.reload()
            return
        if command == ABORT:
            worker.abort()
        stop.set()
        if not command:
            loop.remove_reader(channel.fileno())

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    loop.add_reader(channel.fileno(), on_command)
    worker.start()
    channel.send(READY)
    await stop.wait()
    await worker.stop()
    _ignore_signals(loop, signal.SIGTERM)


def _ignore_signals(loop: asyncio.AbstractEventLoop, *numbers: signal.Signals) -> None:
    """All is closed: a signal that comes while the interpreter ends must not change the exit status."""
    for number in numbers:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


def new_loop(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the event loop that `--loop` names."""
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    import uvloop

    return uvloop.new_event_loop
