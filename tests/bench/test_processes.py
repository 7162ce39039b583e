"""CPU time and memory of another process, against what that process says of itself."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ktls_server.bench.processes import cpu_seconds, peak_resident_bytes, process_tree, resident_bytes

BUSY = "import time\nwhile time.process_time() < 0.3: pass\nprint(time.process_time(), flush=True)\ninput()"
CHILD_THAT_IS_BUSY = (
    "import subprocess, sys\n"
    f"child = subprocess.Popen([sys.executable, '-c', {BUSY!r}])\n"
    "raise SystemExit(child.wait())"
)
THREAD_THAT_WAS_BUSY = (
    "import threading, time\n"
    "def work():\n"
    "    while time.thread_time() < 0.3: pass\n"
    "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
    "print(time.process_time(), flush=True); input()"
)
MEMORY_THAT_WAS_GIVEN_BACK = (
    "import mmap\n"
    "memory = mmap.mmap(-1, 64 << 20); memory.write(b'x' * (64 << 20)); print(0, flush=True); input()\n"
    "memory.close(); print(0, flush=True); input()"
)


@contextmanager
def script(text: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            # The end of its input ends each of them.
            assert process.stdin is not None
            process.stdin.close()


def said(process: subprocess.Popen[str]) -> float:
    assert process.stdout is not None
    return float(process.stdout.readline())


def test_cpu_time_of_a_process_is_what_it_counts_itself() -> None:
    with script(BUSY) as process:
        own = said(process)
        assert own <= cpu_seconds(process.pid) < own + 0.1


def test_cpu_time_of_threads_that_have_ended_is_counted() -> None:
    with script(THREAD_THAT_WAS_BUSY) as process:
        own = said(process)
        assert own >= 0.3
        assert cpu_seconds(process.pid) >= own


def test_cpu_time_of_children_is_counted() -> None:
    with script(CHILD_THAT_IS_BUSY) as process:
        own = said(process)
        assert len(process_tree(process.pid)) == 2
        assert cpu_seconds(process.pid) >= own


def test_memory_that_is_given_back_is_in_the_peak_and_not_in_what_is_resident() -> None:
    with script(MEMORY_THAT_WAS_GIVEN_BACK) as process:
        said(process)
        assert resident_bytes(process.pid) > 64 << 20
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        said(process)
        assert resident_bytes(process.pid) < 64 << 20
        assert peak_resident_bytes(process.pid) > 64 << 20


def test_a_process_that_is_gone_has_used_nothing() -> None:
    with script("") as process:
        pass
    assert cpu_seconds(process.pid) == 0
    assert resident_bytes(process.pid) == 0
