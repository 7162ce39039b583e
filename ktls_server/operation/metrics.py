"""`/metrics` for Prometheus and `/healthz` for whoever restarts what hangs, by plain HTTP.

    GET /metrics   what all workers counted, summed, and how each process is
    GET /healthz   200 while the event loop of some worker turns, 503 otherwise

It runs on an event loop of its own, in a thread of each worker: which worker answers makes no difference, since each can
read the numbers of all. A scrape costs the loop that serves TLS no more than a few milliseconds of the interpreter, and
at most one in half a second is computed, however many ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..accesslog import LoggedConnection
from ..counters import Counters
from ..errors import BadRequest
from ..semantics.messages import Request, Response
from ..semantics.target import parse_target
from ..settings import Settings
from .plain import plain_connections, text
from .scoreboard import ProcessState, Scoreboard

_CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
_CONNECTIONS: Final = 8
_TICK_SECONDS: Final = 0.5
_KEPT_SECONDS: Final = 0.5
_STALE_SECONDS: Final = 5.0
"""A loop writes its numbers every half second; one that missed ten of those does not serve anybody."""


class MetricsThread:
    """Serves on `listeners` from `start` to `stop`."""

    def __init__(self, settings: Settings, listeners: list[socket.socket], scoreboard: Scoreboard) -> None:
        self._settings = settings
        self._listeners = listeners
        self._scoreboard = scoreboard
        self._text = b""
        self._text_until = 0.0
        registry = CollectorRegistry()
        registry.register(ScoreboardCollector(scoreboard))
        self._registry = registry
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.SelectorEventLoop()
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close the listeners."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._done.set)
            self._thread.join()

    def _run(self) -> None:
        assert self._loop is not None
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        counters = Counters()
        connections = plain_connections(
            self._settings,
            self.answer,
            self._listeners,
            loop,
            counters=counters,
            responses=counters.responses,
            connections=_CONNECTIONS,
        )
        connections.start()
        while not self._done.is_set():
            connections.check_deadlines()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._done.wait(), _TICK_SECONDS)
        connections.stop()
        connections.abort()
        await connections.wait_until_empty()

    def answer(self, request_untrusted: Request, _client: LoggedConnection) -> Response:
        """The answer to one request. Raises BadRequest."""
        path = parse_target(request_untrusted.target).path
        if path not in (b"/metrics", b"/healthz"):
            raise BadRequest(404, "Here are /metrics and /healthz.")
        if request_untrusted.method not in (b"GET", b"HEAD"):
            raise BadRequest(405, "Only GET and HEAD.")
        if path == b"/metrics":
            return text(200, self._metrics(), _CONTENT_TYPE)
        if is_alive(self._scoreboard):
            return text(200, b"ok\n")
        return text(503, b"no event loop turns\n")

    def _metrics(self) -> bytes:
        now = time.monotonic()
        if now >= self._text_until:
            self._text = generate_latest(self._registry)
            self._text_until = now + _KEPT_SECONDS
        return self._text


def is_alive(scoreboard: Scoreboard) -> bool:
    """Whether some worker has written its numbers lately."""
    newest = max(scoreboard.read(worker)[1].written_at for worker in range(scoreboard.workers))
    return time.monotonic() - newest < _STALE_SECONDS


class ScoreboardCollector(Collector):
    """Turns what the workers wrote into Prometheus's families, at the moment of a scrape."""

    def __init__(self, scoreboard: Scoreboard) -> None:
        self._scoreboard = scoreboard

    def collect(self) -> Iterator[Metric]:
        """All families."""
        counters = Counters()
        states = []
        restarts = []
        for worker in range(self._scoreboard.workers):
            counted, state = self._scoreboard.read(worker)
            counters.add(counted)
            states.append(state)
            restarts.append(max(counted.starts - 1, 0))
        yield from _counters(counters)
        yield from _gauges(states)
        family = CounterMetricFamily(
            "ktls_worker_restarts", "Processes that took the place of one that had died.", labels=["worker"]
        )
        for worker, count in enumerate(restarts):
            family.add_metric([str(worker)], count)
        yield family


def _counters(counters: Counters) -> Iterator[Metric]:
    plain = (
        ("ktls_connections_accepted", "TCP connections accepted.", counters.accepted),
        (
            "ktls_accept_pauses",
            "Times that accepting stopped for want of descriptors or places.",
            counters.accept_pauses,
        ),
    )
    for name, help_text, value in plain:
        yield CounterMetricFamily(name, help_text, value=value)
    family = CounterMetricFamily(
        "ktls_connections",
        "Connections whose handshake is complete, by who encrypts.",
        labels=["path", "version", "cipher"],
    )
    for labels, count in counters.connections.items():
        family.add_metric(labels, count)
    yield family
    by_label = (
        ("ktls_connections_refused", "Connections closed to keep a limit.", "limit", counters.refused),
        ("ktls_handshake_failures", "TLS handshakes that failed.", "reason", counters.handshake_failures),
        ("ktls_responses", "HTTPS responses.", "status", counters.responses),
        ("ktls_redirects", "Plain HTTP requests sent on to HTTPS.", "status", counters.redirects),
        ("ktls_response_body_bytes", "Bytes of response bodies, before encryption.", "path", counters.body_bytes),
        ("ktls_timeouts", "Connections ended for being over a time limit.", "stage", counters.timeouts),
        ("ktls_key_updates", "TLS 1.3 key changes.", "kind", counters.key_updates),
        (
            "ktls_http2_errors",
            "HTTP/2 streams and connections that ended by an error or a limit.",
            "reason",
            counters.http2_errors,
        ),
        (
            "ktls_certificate_reloads",
            "Times that certificates were read again.",
            "outcome",
            counters.certificate_reloads,
        ),
    )
    for name, help_text, label, counter in by_label:
        family = CounterMetricFamily(name, help_text, labels=[label])
        for key, count in counter.items():
            family.add_metric([str(key)], count)
        yield family


def _gauges(states: list[ProcessState]) -> Iterator[Metric]:
    stages = GaugeMetricFamily("ktls_open_connections", "Connections that stand.", labels=["worker", "stage"])
    tasks = GaugeMetricFamily("ktls_worker_connection_tasks", "Tasks that drive connections.", labels=["worker"])
    resident = GaugeMetricFamily("ktls_worker_resident_memory_bytes", "Memory of the process.", labels=["worker"])
    descriptors = GaugeMetricFamily("ktls_worker_open_fds", "Descriptors of the process.", labels=["worker"])
    age = GaugeMetricFamily(
        "ktls_worker_silence_seconds", "Time since the event loop wrote these numbers.", labels=["worker"]
    )
    turn = GaugeMetricFamily(
        "ktls_worker_longest_turn_seconds",
        "Longest time that one step held the event loop in the last interval.",
        labels=["worker"],
    )
    blocked = GaugeMetricFamily(
        "ktls_blocked_connections",
        "Connections whose client does not read what it made the server say.",
        labels=["worker"],
    )
    passwords = GaugeMetricFamily("ktls_waiting_passwords", "Passwords that wait to be verified.", labels=["worker"])
    days = GaugeMetricFamily("ktls_certificate_days_left", "Days until the first certificate ends.", labels=["worker"])
    now = time.monotonic()
    for worker, state in enumerate(states):
        label = str(worker)
        turn.add_metric([label], state.longest_turn_seconds)
        blocked.add_metric([label], state.blocked_connections)
        passwords.add_metric([label], state.waiting_passwords)
        if state.certificate_days_left is not None:
            days.add_metric([label], state.certificate_days_left)
        for stage, count in state.open_connections.items():
            stages.add_metric([label, stage], count)
        tasks.add_metric([label], state.connection_tasks)
        resident.add_metric([label], state.resident_bytes)
        descriptors.add_metric([label], state.open_descriptors)
        age.add_metric([label], now - state.written_at)
    yield from (stages, tasks, resident, descriptors, age, turn, blocked, passwords, days)
