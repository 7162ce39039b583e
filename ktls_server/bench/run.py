"""The three measurements of `ktls-server bench`: both paths, the ladder, and a server that somebody else runs.

1. what to serve: a folder with one file of each size, and a certificate, both gone afterwards
2. the servers (subjects), started once and left running
3. the load clients, started once
4. rounds, one size after the other (measure.py)
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..certificates import certificate_in
from ..errors import SystemRefusal
from ..kernel.probe import KernelTls, probe
from ..keys.suites import SUITES
from .clients import ClientProcess, environment_with_suite
from .measure import LoadPlan, Series, Subject, client_count, measure
from .server_process import ServerProcess

KERNEL, USERSPACE = "kernel TLS", "userspace TLS"
PLAIN_READ, PLAIN_SENDFILE = "no TLS, read and send", "no TLS, sendfile"

# No connection may end before its round does.
_NO_LIMIT = "1000000000"


@dataclass(frozen=True, slots=True)
class Measurement:
    """All subjects with one file, in the order in which they are to be shown. `size` is None for somebody else's file."""

    size: int | None
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of the benchmark found. `notes` are sentences that belong beside the figures."""

    plan: LoadPlan
    loop: str | None
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How a run tells how far it is: `start` with the number of steps and `step` with the name of the next."""

    start: Callable[[int], None] = field(default=lambda steps: None)
    step: Callable[[str], None] = field(default=lambda name: None)


def compare_paths(sizes: Sequence[int], loop: str, plan: LoadPlan, progress: Progress) -> Outcome:
    """Kernel path and userspace path over the same folder. Raises SystemRefusal; see `measure`."""
    return _run(sizes, loop, plan, progress, ladder=False)


def climb_ladder(size: int, loop: str, plan: LoadPlan, progress: Progress) -> Outcome:
    """The same file without TLS by read and by sendfile, then with TLS in userspace and in the kernel."""
    return _run([size], loop, plan, progress, ladder=True)


def load_url(url: str, plan: LoadPlan, progress: Progress) -> Outcome:
    """A server that already runs: what its clients see; who encrypted as far as this machine's kernel knows."""
    with tempfile.TemporaryDirectory() as scratch, _clients(plan, Path(scratch)) as clients:
        progress.start(plan.rounds)
        (series,) = measure(clients, [Subject("server", url)], plan, progress.step)
    if series.kernel_connections >= series.connections:
        path = "the kernel of this machine encrypted all connections (TlsTxSw)"
    else:
        path = "the kernel of this machine did not encrypt them; what a kernel elsewhere does cannot be seen from here"
    notes = (path, "CPU time and memory of a server that was not started from here are not known")
    return Outcome(plan, None, (Measurement(None, (series,)),), notes)


def _run(sizes: Sequence[int], loop: str, plan: LoadPlan, progress: Progress, *, ladder: bool) -> Outcome:
    kernel = probe()
    reason = _why_not_in_kernel(kernel, plan)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder = scratch / "site"
        folder.mkdir()
        for size in sizes:
            _make_file(folder / _file_name(size), size)
        subjects = []
        if ladder:
            for name, how in ((PLAIN_READ, "read"), (PLAIN_SENDFILE, "sendfile")):
                subjects.append(stack.enter_context(_plain_server(name, folder, how, loop)))
        subjects.append(stack.enter_context(_tls_server(USERSPACE, scratch, folder, loop, kernel=False)))
        if reason is None:
            subjects.append(stack.enter_context(_tls_server(KERNEL, scratch, folder, loop, kernel=True)))
        clients = stack.enter_context(_clients(plan, scratch))
        progress.start(len(sizes) * plan.rounds * len(subjects))
        measurements = tuple(
            Measurement(size, tuple(measure(clients, _asked_for(subjects, size), plan, progress.step)))
            for size in sizes
        )
    notes = () if reason is None else (f"The kernel path was not measured: {reason}.",)
    return Outcome(plan, loop, measurements, notes)


def _why_not_in_kernel(kernel: KernelTls, plan: LoadPlan) -> str | None:
    if not kernel.available:
        return f"{kernel.reason}; {kernel.cure}" if kernel.cure else kernel.reason
    if not all(kernel.transmit(SUITES[name]) for name in plan.suites):
        return f"this kernel has no {plan.cipher} for TLS {plan.tls}"
    return None


def _make_file(path: Path, size: int) -> None:
    """Bytes of every value; written, not a hole, as a hole is cheaper to read than a file. Raises SystemRefusal."""
    block = bytes(range(256)) * 4096
    try:
        with path.open("wb") as file:
            for _ in range(size // len(block)):
                file.write(block)
            file.write(block[: size % len(block)])
    except OSError as error:
        raise SystemRefusal(
            f"a file of {size} bytes cannot be made in {path.parent} ({error.strerror}); choose a smaller --size, or"
            " set TMPDIR to a folder with room"
        ) from error


def _file_name(size: int) -> str:
    return f"{size}.bin"


def _asked_for(subjects: Sequence[Subject], size: int) -> list[Subject]:
    return [Subject(one.name, one.url + _file_name(size), one.pid, one.kernel) for one in subjects]


@contextlib.contextmanager
def _tls_server(name: str, scratch: Path, folder: Path, loop: str, *, kernel: bool) -> Iterator[Subject]:
    pair = certificate_in(scratch / "certificate")
    command = [
        *(sys.executable, "-m", "ktls_server", "serve", str(folder), "--port", "0", "--loop", loop),
        *("--cert", str(pair.cert), "--key", str(pair.key), "--ktls", "require" if kernel else "off"),
        *("--access-log", "off", "--max-requests", _NO_LIMIT, "--max-connections-per-address", _NO_LIMIT),
    ]
    with contextlib.closing(ServerProcess(command)) as server:
        yield Subject(name, server.url, server.pid, kernel)


@contextlib.contextmanager
def _plain_server(name: str, folder: Path, how: str, loop: str) -> Iterator[Subject]:
    command = [sys.executable, "-m", "ktls_server.bench.plain_server", str(folder), how, loop]
    with contextlib.closing(ServerProcess(command)) as server:
        yield Subject(name, server.url, server.pid, kernel=False)


@contextlib.contextmanager
def _clients(plan: LoadPlan, scratch: Path) -> Iterator[list[ClientProcess]]:
    environment = environment_with_suite(plan.suites[0], scratch) if plan.tls == "1.3" else None
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(contextlib.closing(ClientProcess("ktls_server.bench.load", environment)))
            for _ in range(client_count(plan.concurrency))
        ]
