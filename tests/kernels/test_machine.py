"""One boot from the host's side, with a shell script in the place of the machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.errors import EXIT_STATUS_NOT_RUN, EXIT_STATUS_TIMED_OUT, LaneFailed, LaneUnavailable
from tests.kernels.job import Job, guest_environment
from tests.kernels.machine import Lane, Start, run_job, write_init
from tests.kernels.uml import command_line, memory_directory
from tests.waiting import eventually

JOB = Job(command=("true",), working_directory="/", environment={"CI": "true"}, modules=("tls.ko",))


def scripted(script: str) -> Lane:
    """Return a lane whose machine is a shell script that runs in the run directory."""

    def boot(start: Start, _run_directory: Path, _init: Path) -> subprocess.Popen[bytes]:
        return start(["sh", "-c", script])

    return Lane(modules=(), boot=boot)


def test_the_commands_output_and_exit_status_become_ours(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    lane = scripted("echo booting; printf out >stdout; printf err >stderr; printf 7 >status")
    assert run_job(lane, JOB, timeout=10) == 7
    assert capfdbinary.readouterr() == (b"out", b"err")


def test_output_is_passed_on_while_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The machine ends only after its first words have come out on our side.
    output = tmp_path / "output"
    script = f"printf first >stdout; until grep -q first {output}; do sleep 0.05; done; printf 0 >status"
    with output.open("w") as standard_output:
        monkeypatch.setattr(sys, "stdout", standard_output)
        assert run_job(scripted(script), JOB, timeout=10) == 0


def test_a_machine_that_stops_before_pid_1_is_a_lane_that_cannot_be_had() -> None:
    with pytest.raises(LaneUnavailable, match="no ptrace here"):
        run_job(scripted("echo no ptrace here; exit 1"), JOB, timeout=10)


def test_a_machine_that_stops_before_the_command_has_ended_has_failed() -> None:
    with pytest.raises(LaneFailed, match="Kernel panic") as caught:
        run_job(scripted("touch status; echo Kernel panic"), JOB, timeout=10)
    assert caught.value.exit_status == EXIT_STATUS_NOT_RUN


def test_a_machine_that_does_not_end_is_ended_with_all_its_processes(tmp_path: Path) -> None:
    script = f"touch status; sleep 1000 & echo $$ $! >{tmp_path}/pids; wait"
    with pytest.raises(LaneFailed, match="no end within 2 seconds") as caught:
        run_job(scripted(script), JOB, timeout=2)
    assert caught.value.exit_status == EXIT_STATUS_TIMED_OUT
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    # Those that are killed with their group are gone a moment later, not at once.
    eventually(lambda: not any(map(is_running, pids)), f"the end of processes {pids}")


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    # An orphan waits as a zombie until PID 1 reaps it; not every container's PID 1 does.
    return state not in ("Z", "X")


def test_nothing_of_a_run_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_job(scripted("printf 0 >status"), JOB, timeout=10)
    assert os.listdir(tmp_path) == []


def test_the_job_reaches_the_guest_as_it_was(tmp_path: Path) -> None:
    job = Job(command=("sh", "-c", "echo 'a b' \"$X\"\n"), working_directory="/ä", environment={"X": "1"}, modules=())
    job.write_to(tmp_path)
    assert Job.read_from(tmp_path) == job


def test_paths_with_blanks_and_quotes_survive_in_the_init_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = tmp_path / "arguments"
    python = tmp_path / "my python's"
    python.write_text(f'#!/bin/sh\nfor word in "$@"; do echo "$word"; done >{arguments}\n')
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    run_directory = tmp_path / "run $HOME"
    run_directory.mkdir()
    subprocess.run([write_init(run_directory)], check=True)
    assert arguments.read_text().splitlines() == ["-B", "-m", "tests.kernels.guest", str(run_directory)]


@pytest.mark.parametrize("name", ["PATH", "HOME", "CI", "PYTHONPATH", "PYTHONHASHSEED", "LC_ALL"])
def test_the_named_variables_are_kept(name: str) -> None:
    assert guest_environment({name: "value"}, {})[name] == "value"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "API_TOKEN", "TERM", "TMPDIR", "SSLKEYLOGFILE"])
def test_other_variables_stay_outside_unless_passed(name: str) -> None:
    assert name not in guest_environment({name: "value"}, {})
    assert guest_environment({name: "value"}, {name: "other"})[name] == "other"


def test_the_guests_memory_goes_where_there_is_room_for_it(tmp_path: Path) -> None:
    assert memory_directory(1, [tmp_path, Path("/elsewhere")]) == tmp_path
    assert memory_directory(1 << 40, [tmp_path, Path("/elsewhere")]) == Path("/elsewhere")
    assert memory_directory(1, [tmp_path / "absent", Path("/elsewhere")]) == Path("/elsewhere")


def test_user_mode_linux_gets_its_memory_and_its_init() -> None:
    words = command_line(Path("/k/linux.uml"), Path("/r/init"), Path("/r"), 512)
    assert "mem=512M" in words
    assert "init=/r/init" in words
