"""Counters, the memory that workers share, and what Prometheus is told."""

import logging
import os
import re
import struct
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ktls_server.accesslog import LoggedConnection
from ktls_server.counters import HANDSHAKE_FAILURES, Counters
from ktls_server.errors import BadRequest
from ktls_server.exchange import Stage
from ktls_server.operation import errorlog
from ktls_server.operation.metrics import MetricsThread, is_alive
from ktls_server.operation.scoreboard import ProcessState, Scoreboard
from ktls_server.semantics.messages import Request
from ktls_server.settings import Settings

CLIENT = LoggedConnection("127.0.0.1", "", "", "plain")


def some_counters() -> Counters:
    counters = Counters(starts=1, accepted=3, accept_pauses=1)
    counters.connections["kernel", "TLSv1.3", "TLS_AES_128_GCM_SHA256"] = 2
    counters.responses[200] = 5
    counters.timeouts["idle"] = 1
    counters.body_bytes["kernel"] = 1000
    counters.handshake_failures["no_shared_cipher"] = 1
    counters.key_updates["answer"] = 4
    return counters


def test_statistics_survive_the_trip_to_another_process() -> None:
    board = Scoreboard(2)
    assert board.enter(1) == Counters(starts=1)
    board.write(some_counters(), ProcessState(open_connections={"idle": 7}, connection_tasks=7))
    board.leave()
    counters, state = board.read(1)
    assert counters == some_counters()
    assert (state.pid, state.open_connections, state.connection_tasks) == (os.getpid(), {"idle": 7}, 7)
    assert state.resident_bytes > 1_000_000
    assert state.open_descriptors >= 3
    assert board.read(0)[0] == Counters()


def test_a_successor_counts_on_from_what_its_predecessor_wrote() -> None:
    board = Scoreboard(1)
    board.enter(0)
    board.write(some_counters(), ProcessState())
    board.leave()
    successor = board.enter(0)
    board.leave()
    assert successor.starts == 2
    assert successor.responses[200] == 5


def test_what_a_dying_worker_wrote_halfway_counts_as_nothing() -> None:
    board = Scoreboard(1)
    board.enter(0)
    board.write(some_counters(), ProcessState())
    board.leave()
    (length,) = struct.unpack_from("=I", board._memory)
    board._memory[length : length + 4] = b"torn"
    assert board.read(0)[0] == Counters()


def test_every_label_that_can_be_counted_fits_into_a_slot() -> None:
    counters = some_counters()
    for name in ("refused", "redirects", "body_bytes", "timeouts", "key_updates", "certificate_reloads"):
        getattr(counters, name).update({f"a label of thirty characters {n:02}": 2**62 for n in range(10)})
    counters.responses.update(dict.fromkeys(range(100, 600), 2**62))
    counters.handshake_failures.update(dict.fromkeys(HANDSHAKE_FAILURES, 2**62))
    for cipher in range(50):
        for path in ("kernel", "userspace"):
            counters.connections[path, "TLSv1.3", f"ECDHE-ECDSA-CHACHA20-POLY1305-{cipher}"] = 2**62
    board = Scoreboard(1)
    board.enter(0)
    stages = dict.fromkeys((stage.value for stage in Stage), 2**31)
    board.write(counters, ProcessState(open_connections=stages, connection_tasks=2**31))
    board.leave()
    assert board.read(0)[0] == counters


def test_a_client_cannot_make_up_labels() -> None:
    counters = Counters()
    for reason in ("made_up", "plain_http", "another"):
        counters.count_handshake_failure(reason)
    assert counters.handshake_failures == {"other": 2, "plain_http": 1}


def test_numbers_of_several_processes_are_summed() -> None:
    total = Counters()
    total.add(some_counters())
    total.add(some_counters())
    assert (total.accepted, total.responses[200]) == (6, 10)


@pytest.fixture
def board() -> Scoreboard:
    """Two workers, of which the first was replaced once."""
    board = Scoreboard(2)
    for worker in (0, 0, 1):
        counters = board.enter(worker)
        counters.add(some_counters())
        counters.starts -= 1
        state = ProcessState(open_connections={"idle": 2, "response": 1}, connection_tasks=3)
        board.write(counters, state)
        board.leave()
    return board


def ask(board: Scoreboard, target: bytes, method: bytes = b"GET") -> tuple[int, str]:
    response = MetricsThread(Settings(), [], board).answer(Request(method, target, b"1.1", []), CLIENT)
    (body,) = response.body
    assert isinstance(body, bytes)
    return response.status, body.decode()


def test_prometheus_can_read_the_sum_of_all_workers(board: Scoreboard) -> None:
    status, text = ask(board, b"/metrics")
    assert status == 200
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["ktls_connections_accepted_total",] == 9
    assert samples["ktls_connections_total", "TLS_AES_128_GCM_SHA256", "TLSv1.3", "kernel"] == 6
    assert samples["ktls_responses_total", "200"] == 15
    assert samples["ktls_response_body_bytes_total", "kernel"] == 3000
    assert samples["ktls_handshake_failures_total", "no_shared_cipher"] == 3
    assert samples["ktls_timeouts_total", "idle"] == 3
    assert samples["ktls_key_updates_total", "answer"] == 12
    for worker in ("0", "1"):
        assert samples["ktls_open_connections", worker, "idle"] == 2
        assert samples["ktls_worker_connection_tasks", worker] == 3
        assert samples["ktls_worker_resident_memory_bytes", worker] > 1_000_000
        assert samples["ktls_worker_open_fds", worker] >= 3
    assert samples["ktls_worker_restarts_total", "0"] == 1
    assert samples["ktls_worker_restarts_total", "1"] == 0


def test_other_paths_and_methods_are_refused(board: Scoreboard) -> None:
    for target, method, expected in ((b"/", b"GET", 404), (b"/metrics", b"POST", 405)):
        with pytest.raises(BadRequest) as refused:
            ask(board, target, method)
        assert refused.value.status == expected


def test_health_needs_an_event_loop_that_turned_lately(board: Scoreboard, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(board, b"/healthz") == (200, "ok\n")
    now = board.read(0)[1].written_at
    monkeypatch.setattr("time.monotonic", lambda: now + 60)
    assert not is_alive(board)
    assert ask(board, b"/healthz")[0] == 503
    assert not is_alive(Scoreboard(1))


def test_the_error_log_has_times_but_not_in_the_journal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    errorlog.configure("warning")
    logging.getLogger("ktls_server.test").info("not worth it")
    logging.getLogger("ktls_server.test").warning("first\nsecond")
    logged = capfd.readouterr().err
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING ", logged)
    assert logged.endswith(f" [{os.getpid()}] ktls_server.test: first\nsecond\n")
    monkeypatch.setattr(errorlog, "goes_to_journal", lambda: True)
    errorlog.configure("debug")
    logging.getLogger("ktls_server.test").warning("first\nsecond")
    assert capfd.readouterr().err == "<4>ktls_server.test: first\n<4>second\n"


def test_the_journal_is_known_by_its_device_and_inode(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as null:
        monkeypatch.setattr(sys, "stderr", null)
        status = os.fstat(null.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert errorlog.goes_to_journal()
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        assert not errorlog.goes_to_journal()
