"""Runs a command on a kernel that has kernel TLS: `python -m tests.kernels LANE [options] -- COMMAND...`."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from tests.kernels import ktls_check, qemu, uml
from tests.kernels.errors import EXIT_STATUS_NOT_RUN, EXIT_STATUS_TIMED_OUT, LaneFailed, LaneUnavailable
from tests.kernels.job import Job, guest_environment
from tests.kernels.machine import Lane, run_job
from tests.kernels.packages import say

USAGE = "%(prog)s LANE [--timeout S] [--memory SIZE] [--env NAME=V] [--count-instructions] {--self-test | -- COMMAND}"
SELF_TEST = (sys.executable, "-m", "tests.kernels.ktls_check")
FALSE_WORDS = ("", "0", "false", "no")


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for."""

    lane: str
    command: tuple[str, ...]
    extra_environment: dict[str, str]
    timeout: float
    memory_mib: int
    count_instructions: bool


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit status: the command's own wherever it ran."""
    request = parse(arguments)
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, leave)
    try:
        return LANES[request.lane](request)
    except LaneUnavailable as error:
        say(f"the {request.lane} lane cannot run here. {error}")
        return EXIT_STATUS_NOT_RUN
    except LaneFailed as error:
        say(str(error))
        return error.exit_status


def leave(signal_number: int, _frame: FrameType | None) -> NoReturn:
    """Turn the signal into an exception, so that the machine is powered off on the way out."""
    sys.exit(128 + signal_number)


def in_machine(lane: Lane, request: Request) -> int:
    """Boot the lane's kernel and run the command there."""
    job = Job(
        command=request.command,
        working_directory=os.getcwd(),
        environment=guest_environment(os.environ, request.extra_environment),
        modules=lane.modules,
    )
    return run_job(lane, job, timeout=request.timeout)


def in_user_mode_linux(request: Request) -> int:
    return in_machine(uml.prepare(request.memory_mib), request)


def in_qemu(request: Request) -> int:
    lane = qemu.prepare(request.lane, request.memory_mib, count_instructions=request.count_instructions)
    return in_machine(lane, request)


def natively(request: Request) -> int:
    """Run the command on the running kernel, which has to have kernel TLS."""
    reason = why_not_natively()
    if reason is not None:
        raise LaneUnavailable(f"This kernel has no kernel TLS ({reason}). Mend it with: modprobe tls")
    environment = {**os.environ, **request.extra_environment}
    try:
        done = subprocess.run(request.command, check=False, env=environment, timeout=request.timeout)
    except subprocess.TimeoutExpired as error:
        message = f"no end within {request.timeout:g} seconds (--timeout): killed"
        raise LaneFailed(message, exit_status=EXIT_STATUS_TIMED_OUT) from error
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def why_not_natively() -> str | None:
    try:
        ktls_check.check("AES-128-GCM")
    except (OSError, AssertionError) as error:
        return str(error)
    return None


def automatically(request: Request) -> int:
    """Run natively where the running kernel has kernel TLS, else in User Mode Linux.

    Where neither can be had the command is not run: that is a success on a developer's machine, with a line that
    cannot be overlooked, and a failure in CI.
    """
    if why_not_natively() is None:
        return natively(request)
    try:
        return in_user_mode_linux(request)
    except LaneUnavailable as error:
        in_ci = os.environ.get("CI", "").lower() not in FALSE_WORDS
        say(f"NOT RUN, NOTHING WAS TESTED WITH KERNEL TLS: neither this kernel nor User Mode Linux has it. {error}")
        return 1 if in_ci else 0


LANES: dict[str, Callable[[Request], int]] = {
    "auto": automatically,
    "native": natively,
    "uml": in_user_mode_linux,
    **dict.fromkeys(qemu.SOURCES, in_qemu),
}


def parse(arguments: list[str]) -> Request:
    """Return what the command line asks for. Ends the process with a usage message on an error."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kernels", usage=USAGE, description=__doc__, allow_abbrev=False
    )
    parser.add_argument("lane", choices=sorted(LANES))
    parser.add_argument("--timeout", type=float, default=600, metavar="S", help="wall-clock seconds (default: 600)")
    parser.add_argument("--memory", type=mebibytes, default="2G", metavar="SIZE", help="512M, 2G (default: 2G)")
    parser.add_argument("--env", action="append", type=assignment, default=[], metavar="NAME=VALUE")
    parser.add_argument("--self-test", action="store_true", help="run tests.kernels.ktls_check instead of a command")
    parser.add_argument("--count-instructions", action="store_true", help="a CPU clock that counts them: 2 ns each")
    end = arguments.index("--") if "--" in arguments else len(arguments)
    command = arguments[end + 1 :]
    options = parser.parse_args(arguments[:end])
    if bool(command) == options.self_test:
        parser.error("give either a command, after --, or --self-test")
    if options.count_instructions and options.lane not in qemu.SOURCES:
        parser.error("only the qemu lanes can count instructions")
    return Request(
        lane=options.lane,
        command=SELF_TEST if options.self_test else tuple(command),
        extra_environment=dict(options.env),
        timeout=options.timeout,
        memory_mib=options.memory,
        count_instructions=options.count_instructions,
    )


def mebibytes(size: str) -> int:
    """Parse a size with the suffix M or G."""
    factor = {"M": 1, "G": 1024}.get(size[-1:].upper())
    if factor is None or not size[:-1].isdecimal():
        raise argparse.ArgumentTypeError(f"{size!r} is no size like 512M or 2G")
    return int(size[:-1]) * factor


def assignment(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
