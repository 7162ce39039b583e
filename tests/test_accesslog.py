"""The access log: formats, escaping, and a writer that never holds up the loop and loses nothing it need not."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ktls_server import accesslog
from ktls_server.accesslog import AccessLog, Format, LoggedConnection
from ktls_server.semantics.messages import Request

CONNECTION = LoggedConnection("192.0.2.7", "TLSv1.3", "TLS_AES_128_GCM_SHA256", "kernel")
FORMATS: tuple[Format, ...] = ("common", "combined", "json")
PIPE_BUF = 4096


def request(target: bytes = b"/a?b=c", method: bytes = b"GET", **headers: bytes) -> Request:
    fields = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return Request(method, target, b"1.1", fields)


@dataclass
class Loop:
    """Stands for the event loop: keeps what was scheduled."""

    scheduled: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.scheduled.append((delay, callback))

    def run_scheduled(self) -> None:
        callbacks = [callback for _, callback in self.scheduled]
        self.scheduled.clear()
        for callback in callbacks:
            callback()


@dataclass
class Pipe:
    """A pipe with our end to read from."""

    reader: int
    writer: int

    def read_all(self) -> bytes:
        """What was written until now, then the writing end is closed."""
        os.close(self.writer)
        self.writer = -1
        with open(self.reader, "rb", closefd=False) as file:
            return file.read()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe(*os.pipe())
    yield pipe
    for descriptor in (pipe.reader, pipe.writer):
        if descriptor >= 0:
            os.close(descriptor)


@pytest.fixture
def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-02:30")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: 1795373985.125)


@pytest.fixture(autouse=True)
def restored_time_zone() -> Iterator[None]:
    yield
    time.tzset()


def one_line(pipe: Pipe, format: Format, request: Request | None, size: int = 1234) -> str:
    log = AccessLog(format, Loop().call_later, pipe.writer)
    log.write(CONNECTION, request, 200, size, 0.0123456)
    log.close()
    return pipe.read_all().decode("ascii")


def test_the_common_format_is_apaches(pipe: Pipe, fixed_clock: None) -> None:
    assert one_line(pipe, "common", request()) == (
        '192.0.2.7 - - [22/Nov/2026:21:29:45 +0230] "GET /a?b=c HTTP/1.1" 200 1234\n'
    )


def test_the_combined_format_adds_referer_and_user_agent(pipe: Pipe, fixed_clock: None) -> None:
    assert one_line(pipe, "combined", request(referer=b"https://a/", user_agent=b"curl/8")) == (
        '192.0.2.7 - - [22/Nov/2026:21:29:45 +0230] "GET /a?b=c HTTP/1.1" 200 1234 "https://a/" "curl/8"\n'
    )


def test_what_is_not_there_is_a_dash(pipe: Pipe, fixed_clock: None) -> None:
    assert one_line(pipe, "combined", None, size=0) == (
        '192.0.2.7 - - [22/Nov/2026:21:29:45 +0230] "-" 200 - "-" "-"\n'
    )


def test_a_json_line_has_these_keys_and_values(pipe: Pipe, fixed_clock: None) -> None:
    assert json.loads(one_line(pipe, "json", request(user_agent=b"curl/8"))) == {
        "time": "2026-11-22T18:59:45.125Z",
        "remote": "192.0.2.7",
        "method": "GET",
        "path": "/a?b=c",
        "status": 200,
        "bytes": 1234,
        "duration_ms": 12.346,
        "tls_version": "TLSv1.3",
        "cipher": "TLS_AES_128_GCM_SHA256",
        "tx": "kernel",
        "referer": None,
        "user_agent": "curl/8",
    }


def test_a_json_line_without_a_request_has_nulls(pipe: Pipe) -> None:
    entry = json.loads(one_line(pipe, "json", None))
    assert (entry["method"], entry["path"], entry["status"]) == (None, None, 200)


def test_the_time_moves_on(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([100.0, 100.9, 101.0])
    monkeypatch.setattr(time, "time", lambda: next(moments))
    log = AccessLog("json", Loop().call_later, pipe.writer)
    for _ in range(3):
        log.write(CONNECTION, request(), 200, 0, 0.0)
    log.close()
    times = [json.loads(line)["time"] for line in pipe.read_all().splitlines()]
    assert times == ["1970-01-01T00:01:40.000Z", "1970-01-01T00:01:40.900Z", "1970-01-01T00:01:41.000Z"]


# Escaping


@pytest.mark.parametrize(
    ("sent", "apache", "in_json"),
    [
        (b'/"', '/\\"', '/"'),
        (b"/\\x", "/\\\\x", "/\\x"),
        (b"/\r\nfake", "/\\r\\nfake", "/\r\nfake"),
        (b"/\x1b[31m", "/\\x1b[31m", "/\x1b[31m"),
        (b"/\x7f\x00", "/\\x7f\\x00", "/\x7f\x00"),
        ("/ä".encode(), "/\\xc3\\xa4", "/ä"),
        (b"/\xe4", "/\\xe4", "/\\xe4"),
        (b"/\x9b31m", "/\\x9b31m", "/\\x9b31m"),
    ],
)
def test_what_a_client_sent_is_escaped(pipe: Pipe, sent: bytes, apache: str, in_json: str) -> None:
    for format in FORMATS:
        reader, writer = os.pipe()
        line = one_line(Pipe(reader, writer), format, request(sent))
        os.close(reader)
        if format == "json":
            assert json.loads(line)["path"] == in_json
        else:
            assert f'"GET {apache} HTTP/1.1"' in line


@given(
    format=st.sampled_from(FORMATS),
    method=st.binary(max_size=9000),
    target=st.binary(max_size=9000),
    referer=st.binary(max_size=9000),
    user_agent=st.one_of(st.binary(max_size=9000), st.integers(0, 9000).map(lambda length: b"\xff" * length)),
)
def test_whatever_comes_is_one_printable_line_that_fits_an_atomic_write(
    format: Format, method: bytes, target: bytes, referer: bytes, user_agent: bytes
) -> None:
    log = AccessLog(format, Loop().call_later, os.open(os.devnull, os.O_WRONLY))
    log.write(CONNECTION, request(target, method, referer=referer, user_agent=user_agent), 200, 1, 0.0)
    (line,) = log._lines
    log.close()
    os.close(log._writer._descriptor)
    assert re.fullmatch(r"[\x20-\x7e]+\n", line)
    assert len(line) <= PIPE_BUF
    if format == "json":
        assert json.loads(line)["status"] == 200


@pytest.mark.parametrize("format", FORMATS)
def test_a_field_that_is_too_long_is_cut_and_marked(pipe: Pipe, format: Format) -> None:
    line = one_line(pipe, format, request(b"/" + b"a" * 8000))
    assert "/aaaa" in line
    assert "aaa..." in line


# When lines are written


def test_lines_wait_for_one_scheduled_flush(pipe: Pipe) -> None:
    loop = Loop()
    log = AccessLog("common", loop.call_later, pipe.writer)
    for _ in range(3):
        log.write(CONNECTION, request(), 200, 1, 0.0)
    assert [delay for delay, _ in loop.scheduled] == [0.1]
    loop.run_scheduled()
    assert os.read(pipe.reader, PIPE_BUF).count(b"\n") == 3
    assert loop.scheduled == [], "an idle server has no timer"
    log.write(CONNECTION, request(), 200, 1, 0.0)
    assert len(loop.scheduled) == 1
    log.close()


def test_many_lines_are_not_kept_until_the_timer(pipe: Pipe) -> None:
    log = AccessLog("common", Loop().call_later, pipe.writer)
    while not log._writer.backlog:
        log.write(CONNECTION, request(b"/" + b"a" * 1000), 200, 1, 0.0)
        assert log._characters < 40_000
    assert os.read(pipe.reader, 65536).endswith(b'HTTP/1.1" 200 1\n')
    log.close()


def test_close_writes_what_is_left_without_the_loop(pipe: Pipe) -> None:
    log = AccessLog("common", Loop().call_later, pipe.writer)
    log.write(CONNECTION, request(b"/last"), 200, 1, 0.0)
    log.close()
    assert b"/last" in pipe.read_all()


def test_the_order_is_kept_and_nothing_is_lost(pipe: Pipe) -> None:
    log = AccessLog("common", Loop().call_later, pipe.writer)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(iter(lambda: os.read(pipe.reader, 1 << 16), b"")))
    reader.start()
    for number in range(20_000):
        log.write(CONNECTION, request(b"/%d" % number), 200, 1, 0.0)
    log.close()
    os.close(pipe.writer)
    pipe.writer = -1
    reader.join(10)
    numbers = [int(number) for number in re.findall(rb'"GET /(\d+) ', b"".join(received))]
    assert numbers == list(range(20_000))


def test_each_write_to_the_pipe_is_whole_lines_that_the_kernel_keeps_together(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []

    def write(descriptor: int, data: bytes) -> int:
        written.append(bytes(data))
        return len(data)

    monkeypatch.setattr(os, "write", write)
    log = AccessLog("common", Loop().call_later, pipe.writer)
    for number in range(1000):
        log.write(CONNECTION, request(b"/" + b"a" * number), 200, 1, 0.0)
    log.close()
    assert b"".join(written).count(b"\n") == 1000
    assert all(block.endswith(b"\n") and len(block) <= PIPE_BUF for block in written)
    assert len(written) < 300


def test_a_reader_that_is_stuck_never_blocks_and_the_dropped_lines_are_counted(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accesslog, "_BACKLOG_CHARACTERS", 200_000)
    log = AccessLog("common", Loop().call_later, pipe.writer)
    total = 20_000
    for number in range(total):
        log.write(CONNECTION, request(b"/%d" % number), 200, 1, 0.0)
    assert log._writer.backlog < 300_000

    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(iter(lambda: os.read(pipe.reader, 1 << 16), b"")))
    reader.start()
    with caplog.at_level(logging.WARNING):
        log.close()
    os.close(pipe.writer)
    pipe.writer = -1
    reader.join(10)
    kept = b"".join(received).count(b"\n")
    dropped = sum(int(number) for number in re.findall(r"(\d+) access log lines were dropped", caplog.text))
    assert dropped > 0
    assert kept + dropped == total


def test_a_reader_that_takes_nothing_does_not_keep_the_process_from_ending(
    pipe: Pipe, caplog: pytest.LogCaptureFixture
) -> None:
    log = AccessLog("common", Loop().call_later, pipe.writer)
    for _ in range(2000):
        log.write(CONNECTION, request(), 200, 1, 0.0)
    with caplog.at_level(logging.WARNING):
        log.close(timeout=0.05)
    assert "its reader takes nothing" in caplog.text
    assert log._writer._thread.daemon
    os.set_blocking(pipe.reader, False)
    while log._writer._thread.is_alive():
        with suppress(BlockingIOError):
            os.read(pipe.reader, 65536)


def test_a_non_blocking_pipe_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    log = AccessLog("common", Loop().call_later, pipe.writer)
    for _ in range(2000):
        log.write(CONNECTION, request(), 200, 1, 0.0)
    closing = threading.Thread(target=log.close)
    closing.start()
    received = b""
    while received.count(b"\n") < 2000:
        received += os.read(pipe.reader, 65536)
    closing.join(10)
    assert not closing.is_alive()


def test_a_reader_that_went_away_is_reported_once_and_the_server_goes_on(
    pipe: Pipe, caplog: pytest.LogCaptureFixture
) -> None:
    os.close(pipe.reader)
    pipe.reader = -1
    log = AccessLog("common", Loop().call_later, pipe.writer)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            log.write(CONNECTION, request(), 200, 1, 0.0)
            log.flush()
        log.close()
    assert caplog.text.count("Broken pipe") == 1
    assert log._writer.backlog == 0
