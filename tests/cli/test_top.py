"""`ktls-server top`: what the metrics say, read, turned into rates, and shown."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from rich.console import Console

from ktls_server.cli.samples import Sample, fetch, metrics_url, rates, read
from ktls_server.cli.top import view
from ktls_server.counters import Counters
from ktls_server.errors import ConfigurationError
from ktls_server.operation.metrics import ScoreboardCollector
from ktls_server.operation.scoreboard import ProcessState, Scoreboard
from tests.cli.conftest import Command
from tests.waiting import WAIT_SECONDS

COUNTERS = Counters(
    accepted=12,
    refused=Counter({"per_address": 3}),
    connections=Counter({("kernel", "TLSv1.3", "AES-128-GCM"): 7, ("userspace", "TLSv1.2", "AES-256-GCM"): 2}),
    handshake_failures=Counter({"plain_http": 1}),
    responses=Counter({404: 4, 200: 20}),
    body_bytes=Counter({"kernel": 5_000_000, "userspace": 1000}),
    timeouts=Counter({"request": 2}),
    accept_pauses=1,
)
STATE = ProcessState(
    open_connections={"idle": 4, "response": 1},
    connection_tasks=5,
    longest_turn_seconds=0.25,
    blocked_connections=1,
    waiting_passwords=2,
    certificate_days_left=30.5,
)


def exposition(workers: int = 2) -> str:
    """What the server itself would say, so that a metric that is renamed is missed here."""
    scoreboard = Scoreboard(workers)
    for worker in range(workers):
        scoreboard.enter(worker)
        scoreboard.write(COUNTERS, replace(STATE, certificate_days_left=30.5 - worker))
        scoreboard.leave()
    registry = CollectorRegistry()
    registry.register(ScoreboardCollector(scoreboard))
    return generate_latest(registry).decode()


@dataclass
class Answers:
    """What the server answers, to be changed while it runs."""

    port: int
    text: str
    status: int = 200


@contextlib.contextmanager
def answering(text: str) -> Iterator[Answers]:
    answers = Answers(0, text)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers.status if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(answers.text.encode())

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        answers.port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield answers
        finally:
            server.shutdown()
            thread.join()


def test_the_servers_own_metrics_are_read_over_all_workers() -> None:
    sample = read(exposition())
    assert (sample.accepted, sample.accept_pauses) == (24, 2)
    assert sample.connections == {"kernel TLSv1.3 AES-128-GCM": 14, "userspace TLSv1.2 AES-256-GCM": 4}
    assert sample.open_connections == {"idle": 8, "response": 2}
    assert sample.responses == {"200": 40, "404": 8}
    assert sample.body_bytes == {"kernel": 10_000_000, "userspace": 2000}
    assert sample.limits() == {"refused per_address": 6, "timeout request": 4, "accept pauses": 2}
    assert sample.handshake_failures == {"plain_http": 2}
    assert (sample.blocked_connections, sample.waiting_passwords, sample.certificate_days_left) == (2, 4, 29.5)
    assert list(sample.workers) == ["0", "1"]
    for worker in sample.workers.values():
        assert (worker.open_connections, worker.connection_tasks, worker.longest_turn_seconds) == (5, 5, 0.25)
        assert worker.resident_memory_bytes > 0
        assert worker.open_fds > 0


def test_a_server_that_has_done_nothing_is_read_and_shown() -> None:
    scoreboard = Scoreboard(1)
    registry = CollectorRegistry()
    registry.register(ScoreboardCollector(scoreboard))
    sample = read(generate_latest(registry).decode())
    assert "Open connections" in shown(sample, sample)


@pytest.mark.parametrize("text", ["", "<html>", "up 1\n", "ktls_worker_open_fds{worker=\n", "x" * 1000])
def test_what_is_not_the_servers_metrics_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the parser's own, or ours
        read(text)


def test_rates_are_by_the_second_and_never_negative() -> None:
    assert rates({"a": 10, "b": 5}, {"a": 30, "b": 2, "c": 4}, 2) == {"a": 10, "b": 1, "c": 2}
    assert rates({}, {"a": 1}, 0) == {"a": 1000}


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("9100", "http://127.0.0.1:9100/metrics"),
        ("host:9100", "http://host:9100/metrics"),
        ("[::1]:9100", "http://[::1]:9100/metrics"),
        ("http://host:1/", "http://host:1/metrics"),
        ("https://host/behind/metrics", "https://host/behind/metrics"),
    ],
)
def test_an_address_is_what_a_person_types(address: str, url: str) -> None:
    assert metrics_url(address) == url


@pytest.mark.parametrize("address", ["", "x:y", "0", "99999", "file:///etc/passwd", "http://", "a b", "host\x1b:1"])
def test_an_address_that_is_none_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(ConfigurationError, match="ktls-server top 9100"):
        metrics_url(address)


def test_once_prints_a_number_a_line(command: Command) -> None:
    with answering(exposition()) as server:
        outcome = command("top", str(server.port), "--once")
    assert (outcome.status, outcome.err) == (0, "")
    lines = dict(line.rsplit(": ", 1) for line in outcome.out.splitlines())
    assert lines["responses.200"] == "40"
    assert lines["connections.kernel TLSv1.3 AES-128-GCM"] == "14"
    assert lines["workers.1.open_connections"] == "5"
    assert all(float(value) >= 0 for value in lines.values())


def test_once_as_json_is_the_same_sample(command: Command) -> None:
    with answering(exposition()) as server:
        outcome = command("top", f"http://127.0.0.1:{server.port}/metrics", "--once", "--json")
    sample = json.loads(outcome.out)
    assert sample["responses"] == {"200": 40, "404": 8}
    assert sample["certificate_days_left"] == 29.5
    assert sample["workers"]["0"]["longest_turn_seconds"] == 0.25


def test_who_does_not_answer_or_is_another_is_one_line_with_what_to_do(command: Command) -> None:
    with answering("<html>") as server:
        outcome = command("top", str(server.port), "--once")
        assert outcome.status == 1
        assert "is not the metrics of a ktls-server; start it with --metrics-port" in outcome.err
        server.status = 503
        assert "(status 503)" in command("top", str(server.port), "--once").err
        port = str(server.port)
    outcome = command("top", port, "--once")
    assert outcome.status == 1
    assert outcome.err == (
        f"ktls-server: no server answers at http://127.0.0.1:{port}/metrics (Connection refused);"
        " start it with --metrics-port, and give that port\n"
    )


def test_a_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    with answering(exposition()) as server:
        assert fetch(metrics_url(str(server.port))).accepted == 24


def test_live_needs_a_terminal_and_json_needs_once(command: Command) -> None:
    assert "--once prints one sample" in command("top", "9100").err
    assert "give --once, too" in command("top", "9100", "--json").err


def shown(before: Sample, now: Sample, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, height=24, force_terminal=False)
    with console.capture() as capture:
        console.print(view("http://127.0.0.1:9100/metrics", before, now))
    return capture.get()


@pytest.mark.parametrize("width", [80, 120])
def test_the_view_has_rates_and_fits_the_terminal(width: int) -> None:
    before, now = read(exposition()), read(exposition())
    now.taken_at = before.taken_at + 2
    now.responses["200"] += 30
    now.body_bytes["kernel"] += 84_000_000
    now.refused["per_address"] += 10
    text = shown(before, now, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert len(text.splitlines()) <= 24
    rows = {line[:18].strip(): line[18:].split() for line in text.splitlines()}
    assert rows["Responses"] == ["15.0/s", "200", "15.0/s"]
    assert rows["Sent"] == ["42.0", "MB/s", "kernel", "42.0", "MB/s"]
    assert rows["Open connections"] == ["10", "idle", "8,", "response", "2"]
    assert rows["Limits that strike"][:5] == ["5.0/s", "refused", "per_address", "5.0/s", "(16),"]


def test_a_label_cannot_speak_to_the_terminal() -> None:
    sample = read(exposition() + 'ktls_responses_total{status="\x1b]0;owned\x07[bold]"} 9\n')
    later = read(exposition() + 'ktls_responses_total{status="\x1b]0;owned\x07[bold]"} 19\n')
    text = shown(sample, later)
    assert "\x1b" not in text
    assert "?]0;owned?[bold]" in text


TOP = "import sys; from ktls_server.__main__ import main; main(sys.argv[1:])"


@contextlib.contextmanager
def in_a_terminal(port: int) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TOP, "top", str(port), "--interval", "1"],
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    )
    os.close(slave)
    try:
        yield process, master
    finally:
        process.kill()
        process.communicate()
        os.close(master)


def until(master: int, word: bytes) -> bytes:
    said = b""
    deadline = time.monotonic() + WAIT_SECONDS
    while word not in said:
        assert time.monotonic() < deadline, said[-500:]  # it draws again and again
        readable, _, _ = select.select([master], [], [], WAIT_SECONDS)
        assert readable, said
        said += os.read(master, 65536)
    return said


LEAVE_ALTERNATE_SCREEN = b"\x1b[?1049l"


def test_ctrl_c_ends_it_and_gives_the_terminal_back() -> None:
    with answering(exposition()) as server, in_a_terminal(server.port) as (process, master):
        until(master, b"Worker")
        process.send_signal(signal.SIGINT)
        until(master, LEAVE_ALTERNATE_SCREEN)
        _, err = process.communicate(timeout=WAIT_SECONDS)
        assert (process.returncode, err) == (0, b"")


def test_a_server_that_goes_away_ends_it_with_a_line() -> None:
    with contextlib.ExitStack() as stack:
        with answering(exposition()) as server:
            process, master = stack.enter_context(in_a_terminal(server.port))
            until(master, b"Worker")
        until(master, LEAVE_ALTERNATE_SCREEN)
        _, err = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 1
        assert err.startswith(b"ktls-server: no server answers at http://127.0.0.1:")
        assert err.count(b"\n") == 1
