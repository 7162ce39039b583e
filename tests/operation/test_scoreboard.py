"""The numbers of a process where the kernel does not tell them."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from ktls_server.counters import Counters
from ktls_server.operation.scoreboard import ProcessState, Scoreboard
from tests.operation.running import Place, metric, running, scrape
from tests.operation.test_startup import WITHOUT_PROC
from tests.waiting import eventually


def refuse(monkeypatch: pytest.MonkeyPatch, code: int, *names: str) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    for name in names:
        monkeypatch.setattr(os, name, refused)


def test_without_proc_the_numbers_are_served_without_memory_and_a_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    board = Scoreboard(1)
    with monkeypatch.context() as patched:
        refuse(patched, errno.ENOENT, "open", "stat", "listdir")
        counters = board.enter(0)
        board.write(counters, ProcessState(open_connections={"idle": 3}, connection_tasks=3))
        board.leave()
    (message,) = caplog.messages
    assert "/proc/self cannot be read (No such file or directory); mount /proc" in message
    counters, state = board.read(0)
    assert counters == Counters(starts=1)
    assert (state.pid, state.open_connections) == (os.getpid(), {"idle": 3})
    assert (state.resident_bytes, state.open_descriptors) == (0, 0)


def test_a_process_without_descriptors_left_has_as_many_as_it_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Scoreboard(1)
    counters = board.enter(0)
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", lambda _path: os.stat_result((0,) * 10))
        refuse(patched, errno.EMFILE, "listdir")
        board.write(counters, ProcessState())
    board.leave()
    state = board.read(0)[1]
    assert state.open_descriptors == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert state.resident_bytes > 1_000_000


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_without_proc_has_metrics(place: Place, workers: str) -> None:
    with running(place, "--metrics-port", "0", "--workers", workers, prefix=WITHOUT_PROC) as server:
        eventually(
            lambda: metric(scrape(server.metrics_port)[1], "ktls_worker_silence_seconds") < 60, "numbers of all workers"
        )
        assert server.errors().count("the metrics say 0 for memory and descriptors") == int(workers)
        server.stop()
