"""The error log when nobody reads it, when it cannot be written, and in processes that were forked.

Each test logs in a process of its own, with something on standard error; a process that hangs fails by never ending.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ktls_server.operation import errorlog
from tests.operation.forking import in_a_child
from tests.operation.running import Place, fetch, running
from tests.waiting import WAIT_SECONDS, eventually_async

_log = logging.getLogger("ktls_server.test")

MODES = {"a process that serves": True, "the supervisor": False}


@pytest.fixture(params=list(MODES.values()), ids=list(MODES))
def by_thread(request: pytest.FixtureRequest) -> bool:
    threaded: bool = request.param
    return threaded


def logging_to(descriptor: int, work: Callable[[], object], by_thread: bool) -> int:
    """How a child ends that has `descriptor` as its standard error, logs what `work` logs, and flushes."""

    def child() -> None:
        signal.alarm(WAIT_SECONDS)
        os.dup2(descriptor, 2)
        errorlog.configure("info")
        if by_thread:
            errorlog.write_by_thread()
        work()
        errorlog.flush()

    return in_a_child(child)


def log_lines(count: int, length: int = 100) -> None:
    for number in range(count):
        _log.info("line %d %s", number, "x" * length)


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)


def read_all(reader: int) -> str:
    os.set_blocking(reader, False)
    pieces = []
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(reader, 65536):
            pieces.append(piece)
    return b"".join(pieces).decode()


@pytest.mark.parametrize("kind", ["pipe", "stream socket", "full pipe of another user"])
def test_thousands_of_lines_for_nobody_hold_up_nothing(
    kind: str, by_thread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as stack:
        if kind == "stream socket":
            reading, writing = (stack.enter_context(each) for each in socket.socketpair())
            reader, writer = reading.fileno(), writing.fileno()
        else:
            reader, writer = stack.enter_context(pipe())
        if kind == "full pipe of another user":

            def forbidden(path: str, flags: int, *_: object, **__: object) -> int:
                raise PermissionError

            monkeypatch.setattr(os, "open", forbidden)
        assert logging_to(writer, lambda: log_lines(20_000), by_thread) == 0
        assert os.get_blocking(writer), "others who have the same pipe are not bound"
        written = read_all(reader)
    numbers = [int(number) for number in re.findall(r"^.* line (\d+) x{100}$", written, re.MULTILINE)]
    assert numbers[:50] == list(range(50))


def test_what_waited_is_written_and_what_was_dropped_is_counted_when_somebody_reads(by_thread: bool) -> None:
    received: list[bytes] = []
    with pipe() as (reader, writer), pipe() as (go, told):

        def work() -> None:
            log_lines(10_000)
            os.write(told, b"x")
            for number in range(10_000, 10_100):
                errorlog.flush()
                log_lines(1)
                _log.info("afterwards %d", number)

        def read() -> None:
            os.read(go, 1)
            while piece := os.read(reader, 65536):
                received.append(piece)

        thread = threading.Thread(target=read)
        thread.start()
        assert logging_to(writer, work, by_thread) == 0
        os.close(writer)
        thread.join()
    lines = b"".join(received).decode().splitlines()
    dropped = [int(line.split()[0]) for line in lines if line.endswith("were dropped: nobody took them")]
    assert sum(dropped) > 0
    assert len(lines) == 10_000 + 200 + len(dropped) - sum(dropped)
    assert lines[-1].endswith("afterwards 10099")


@pytest.mark.parametrize("kind", ["full disk", "reader gone", "closed", "read-only"])
def test_what_cannot_be_written_breaks_nothing(kind: str, by_thread: bool) -> None:
    with pipe() as (reader, writer):
        match kind:
            case "full disk":
                os.dup2(full := os.open("/dev/full", os.O_WRONLY), writer)
                os.close(full)
            case "reader gone":
                os.close(reader)
            case "read-only":
                os.dup2(reader, writer)

        def work() -> None:
            if kind == "closed":
                os.close(2)
            log_lines(5_000)

        assert logging_to(writer, work, by_thread) == 0


def test_lines_are_counted_that_a_full_disk_did_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe() as (reader, writer):
        lines = errorlog._Lines(writer)
        full = True
        write = os.write

        def fail(descriptor: int, data: bytes) -> int:
            if full:
                raise OSError(28, "No space left on device")
            return write(descriptor, data)

        monkeypatch.setattr(os, "write", fail)
        for _ in range(7):
            lines.add(b"lost\n")
        full = False
        lines.add(b"kept\n")
        lines.close()
        assert read_all(reader) == "7 lines of the error log were dropped: nobody took them\nkept\n"


def test_a_forked_worker_does_not_write_what_waits_in_the_supervisor() -> None:
    """The supervisor has no thread, before the fork and after it; each worker has its own."""
    with pipe() as (reader, writer):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)

        def worker() -> None:
            assert " line 0 " in read_all(reader)
            errorlog.write_by_thread()
            _log.info("the worker's")
            errorlog.flush()
            written = read_all(reader)
            assert written.count("\n") == 1
            assert written.endswith(" the worker's\n")

        def supervise() -> None:
            log_lines(200)
            assert in_a_child(worker) == 0
            assert threading.active_count() == 1
            _log.info("more")
            assert re.findall(r" line (\d+) ", read_all(reader))[0] != "0"

        assert logging_to(writer, supervise, by_thread=False) == 0


def test_lines_logged_before_the_thread_begins_are_written_by_it(tmp_path: Path) -> None:
    with pipe() as (reader, writer):

        def work() -> None:
            log_lines(1000)
            errorlog.write_by_thread()

        received: list[bytes] = []

        def read() -> None:
            while piece := os.read(reader, 65536):
                received.append(piece)

        def child() -> int:
            return logging_to(writer, work, by_thread=False)

        thread = threading.Thread(target=read)
        thread.start()
        assert child() == 0
        os.close(writer)
        thread.join()
    assert b"".join(received).count(b"\n") == 1000


def test_a_record_that_cannot_be_formatted_says_where_and_not_what(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        errorlog.configure("info")
        _log.info("%d files of %s", "secret")
        logging.warning("percent %d", "topsecret")
        errorlog.flush()

    assert in_a_child(work) == 0
    logged = capfd.readouterr().err
    assert "a line of the log could not be written: TypeError in '%d files of %s' of ktls_server.test" in logged
    assert "secret" not in logged.replace("topsecret", "secret")


def test_pythons_warnings_go_the_same_way(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        import warnings

        errorlog.configure("warning")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old ways", DeprecationWarning, stacklevel=1)
        errorlog.flush()

    assert in_a_child(work) == 0
    assert re.search(r"WARNING \[\d+\] py\.warnings: .*DeprecationWarning: old ways", capfd.readouterr().err)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_server_whose_log_nobody_reads_serves_reloads_and_ends(place: Place, workers: str) -> None:
    with pipe() as (_reader, writer):
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * 4096)
        os.set_blocking(writer, True)
        dup = "import os, sys\nos.dup2(int(sys.argv[1]), 2)\nos.execv(sys.argv[2], sys.argv[2:])\n"
        into_the_pipe = (sys.executable, "-c", dup, str(writer))
        with running(
            place, "--log-level", "debug", "--workers", workers, prefix=into_the_pipe, pass_fds=(writer,)
        ) as server:
            for _ in range(100):
                socket.create_connection(("127.0.0.1", server.port)).close()  # a line each
            assert await fetch(server) == b"hello"
            server.signal(signal.SIGHUP)
            assert await fetch(server) == b"hello"
            if workers == "2":
                victim = server.workers()[0]
                os.kill(victim, signal.SIGKILL)
                await eventually_async(lambda: len({*server.workers()} - {victim}) == 2, "another worker")
            server.stop()
