"""One boot, seen from the host: start the machine, pass its output on while it runs, end it in time, always.

A lane is described by a `Lane`; what differs between User Mode Linux and QEMU is only how the processes that make up
the machine are started.
"""

import contextlib
import ctypes
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.kernels.errors import EXIT_STATUS_NOT_RUN, EXIT_STATUS_TIMED_OUT, LaneFailed, LaneUnavailable
from tests.kernels.job import CONSOLE, STATUS, STDERR, STDOUT, Job
from tests.kernels.packages import PROJECT

PR_SET_PDEATHSIG = 1  # linux/prctl.h
POLL_SECONDS = 0.05
CONSOLE_LINES_SHOWN = 40

# Starts one process of the machine in the run directory, given its command line.
Start = Callable[[list[str]], subprocess.Popen[bytes]]


@dataclass(frozen=True, slots=True)
class Lane:
    """A kernel that is on the disk, ready to be booted.

    `boot` starts the machine's processes with the function that it is given and returns the one whose end is the
    machine's; the paths are the run directory, where its console goes, and the program that is to be PID 1.
    """

    modules: tuple[str, ...]
    boot: Callable[[Start, Path, Path], subprocess.Popen[bytes]]


def run_job(lane: Lane, job: Job, *, timeout: float) -> int:
    """Boot the lane, run the job in it, and return the job's exit status.

    Standard output and error of the job are passed on to ours while it runs. `timeout` is in seconds of wall-clock
    time and counts from the boot. Where the job has no exit status: raises LaneUnavailable if the machine did not boot,
    LaneFailed if it crashed or came to no end.
    """
    run_directory = Path(tempfile.mkdtemp(prefix="ktls-kernel-"))
    try:
        job.write_to(run_directory)
        init = write_init(run_directory)
        for name in (STDOUT, STDERR):
            (run_directory / name).touch()
        with (
            machine_processes(run_directory) as start,
            (run_directory / STDOUT).open("rb") as stdout,
            (run_directory / STDERR).open("rb") as stderr,
        ):
            deadline = time.monotonic() + timeout
            machine = lane.boot(start, run_directory, init)
            while machine.poll() is None and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
                pass_on(stdout, sys.stdout.buffer)
                pass_on(stderr, sys.stderr.buffer)
            timed_out = machine.poll() is None
            pass_on(stdout, sys.stdout.buffer)
            pass_on(stderr, sys.stderr.buffer)
        return exit_status(run_directory, timeout if timed_out else None)
    finally:
        shutil.rmtree(run_directory)


def exit_status(run_directory: Path, timed_out_after: float | None) -> int:
    """Return what the guest wrote down, or raise what its silence means."""
    status = run_directory / STATUS
    if status.exists() and (written := status.read_text(encoding="ascii")):
        return int(written)
    console = (run_directory / CONSOLE).read_text(encoding="utf-8", errors="replace").splitlines()
    last_words = "\n".join(["Its kernel's last words:", *console[-CONSOLE_LINES_SHOWN:]])
    if timed_out_after is not None:
        message = f"no end within {timed_out_after:g} seconds (--timeout): powered off. {last_words}"
        raise LaneFailed(message, exit_status=EXIT_STATUS_TIMED_OUT)
    # PID 1 makes the status file before anything else.
    if not status.exists():
        raise LaneUnavailable(f"The machine did not boot. {last_words}")
    message = f"the machine stopped before the command had ended. {last_words}"
    raise LaneFailed(message, exit_status=EXIT_STATUS_NOT_RUN)


def write_init(run_directory: Path) -> Path:
    """Write the program that the guest's kernel starts as PID 1: this Python, running `tests.kernels.guest`.

    The kernel gives it no environment to speak of, and its command line is too short for a job.
    """
    init = run_directory / "init"
    python, project, run = (shlex.quote(str(word)) for word in (sys.executable, PROJECT, run_directory))
    init.write_text(f"#!/bin/sh\ncd {project} && exec {python} -B -m tests.kernels.guest {run}\n", encoding="utf-8")
    init.chmod(0o700)
    return init


def pass_on(source: BinaryIO, target: BinaryIO) -> None:
    """Copy what has been added to `source` since the last time."""
    if added := source.read():
        target.write(added)
        target.flush()


@contextlib.contextmanager
def machine_processes(run_directory: Path) -> Iterator[Start]:
    """Give a function that starts processes, and end every one of them, with its children, on the way out."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        with (run_directory / CONSOLE).open("ab") as console:
            process = subprocess.Popen(
                command,
                cwd=run_directory,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 (no threads here)
            )
        processes.append(process)
        return process

    try:
        yield start
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def die_with_parent() -> None:
    """Ask for SIGKILL when our own process dies in a way that runs no `finally`."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
