"""Several workers: what one of them does to the others when it dies (nothing), and what they share (the port, tickets).

Which worker serves a connection is decided by stopping the others (SIGSTOP): a stopped process accepts nothing.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from ktls_server import certificates
from ktls_server.operation import supervisor
from ktls_server.operation.supervisor import STABLE_SECONDS
from tests.operation.running import Connection, Cut, Place, Running, connect, fetch, metric, running, scrape
from tests.waiting import eventually, eventually_async


@contextlib.contextmanager
def only(server: Running, worker: int) -> Iterator[None]:
    """Nobody but this worker runs."""
    others = [pid for pid in server.workers() if pid != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
        eventually(lambda: state_of(pid) == "T", f"{pid} stopped")  # noqa: B023 - called before the next turn
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def state_of(pid: int) -> str:
    """As ps shows it (proc_pid_stat(5)); empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def visit(server: Running, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """One request; the socket still knows its session and certificate afterwards."""
    with socket.create_connection(("127.0.0.1", server.port)) as plain:
        tls = context.wrap_socket(plain, server_hostname="localhost", session=session)
        tls.sendall(b"GET /hello.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while tls.recv(4096):
            pass
        return tls


@pytest.mark.kernel_matrix("session tickets good at every worker")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_of_one_worker_is_resumed_by_another_and_by_the_one_that_takes_its_place(
    place: Place, version: ssl.TLSVersion
) -> None:
    with running(place, "--workers", "2") as server:
        context = server.context
        context.minimum_version = context.maximum_version = version
        first, second = server.workers()
        with only(server, first), visit(server, context) as visited:
            session = visited.session
            assert session is not None
            assert not visited.session_reused
        with only(server, second), visit(server, context, session) as visited:
            assert visited.session_reused
        os.kill(second, signal.SIGKILL)
        eventually(lambda: len(set(server.workers()) - {first, second}) == 1, "another worker")
        (third,) = set(server.workers()) - {first, second}
        with only(server, third), visit(server, context, session) as visited:
            assert visited.session_reused


async def open_to(server: Running, worker: int, count: int) -> list[Connection]:
    with only(server, worker):
        connections = [await connect(server) for _ in range(count)]
        for connection in connections:
            await connection.get("/hello.txt")
    return connections


async def test_killing_a_worker_under_load_harms_no_connection_of_another(place: Place, loop: str) -> None:
    expected = (place.site / "middle.bin").read_bytes()
    with running(place, "--workers", "2", "--loop", loop, "--metrics-port", "0") as server:
        victim, survivor = server.workers()
        doomed = await open_to(server, victim, 8)
        others = await open_to(server, survivor, 8)
        answered = 0
        replaced = asyncio.Event()

        def accepted() -> float:
            return metric(scrape(server.metrics_port)[1], "ktls_connections_accepted_total")

        async def keep_asking(connection: Connection) -> None:
            nonlocal answered
            enough = False
            while not enough:
                enough = replaced.is_set()
                assert await connection.get("/middle.bin") == (200, expected, False)
                answered += 1

        async def ask_until_cut(connection: Connection) -> None:
            async def ask_for_ever() -> None:
                while True:
                    await connection.get("/middle.bin")

            with pytest.raises(Cut):
                await ask_for_ever()
            connection.abort()

        async with asyncio.TaskGroup() as group:
            for connection in others:
                group.create_task(keep_asking(connection))
            for connection in doomed:
                group.create_task(ask_until_cut(connection))
            await eventually_async(
                lambda: answered > 100 and accepted() >= 16, "a load, and both workers' counts of it"
            )
            os.kill(victim, signal.SIGKILL)
            await eventually_async(lambda: len({*server.workers()} - {victim}) == 2, "another worker")
            (newcomer,) = {*server.workers()} - {victim, survivor}
            with only(server, newcomer):
                assert await fetch(server) == b"hello"
            replaced.set()
        for connection in others:
            connection.abort()
        await eventually_async(
            lambda: metric(scrape(server.metrics_port)[1], "ktls_worker_restarts_total") == 1, "the restart counted"
        )
        # The dead worker's eight, the survivor's eight, the newcomer's one.
        await eventually_async(lambda: accepted() == 17, "every worker's connections counted, the dead one's too")
        assert f"(process {victim}) was killed by SIGKILL; another takes its place" in server.errors()


async def test_a_connection_that_waits_to_be_accepted_survives_the_worker_that_dies(place: Place) -> None:
    with running(place, "--workers", "2") as server:
        first, second = server.workers()
        os.kill(second, signal.SIGSTOP)
        os.kill(first, signal.SIGSTOP)
        waiting = asyncio.create_task(fetch(server))
        await asyncio.sleep(0.1)
        os.kill(first, signal.SIGKILL)
        assert await waiting == b"hello"
        os.kill(second, signal.SIGCONT)


def test_pauses_grow_while_a_worker_goes_on_dying_and_begin_anew_once_one_has_lived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: now))
    empty = supervisor._Place(0)

    def pause_after(lifetime: float) -> float:
        """Seconds from the death of a worker that lived so long to the next start."""
        nonlocal now
        empty.started, now = now, now + lifetime
        supervisor._Supervisor._schedule(cast(supervisor._Supervisor, None), empty)
        return empty.due - now

    assert [pause_after(1) for _ in range(10)] == [0, 0.25, 0.5, 1, 2, 5, 10, 30, 30, 30]
    assert [pause_after(STABLE_SECONDS), pause_after(1)] == [0, 0.25]


def test_a_worker_that_dies_again_and_again_is_replaced_each_time(place: Place) -> None:
    with running(place, "--workers", "2") as server:
        for _ in range(3):
            before = server.workers()
            os.kill(before[0], signal.SIGKILL)
            eventually(lambda: len({*server.workers()} - {before[0]}) == 2, "another worker")  # noqa: B023
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_workers_end_when_their_supervisor_was_killed(place: Place, loop: str) -> None:
    with running(place, "--workers", "2", "--loop", loop) as server:
        workers = server.workers()
        server.signal(signal.SIGKILL)
        server.wait()
        # They become another's children; it may take its time to bury them.
        eventually(lambda: all(state_of(pid) in ("", "Z") for pid in workers), "the end of the workers")
        assert server.errors() == ""


def test_an_interrupt_from_the_terminal_reaches_the_whole_group_and_counts_once(place: Place) -> None:
    with running(place, "--workers", "2", prefix=("setsid",)) as server:
        os.killpg(server.pid, signal.SIGINT)
        assert server.wait() == 0
        assert server.errors() == ""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_reload_changes_the_certificate_of_every_worker_and_of_those_to_come(own_place: Place, workers: str) -> None:
    with running(own_place, "--workers", workers) as server:
        old = own_place.certificate.read_bytes()
        context = ssl.create_default_context(cafile=str(own_place.certificate))
        fresh = own_place.scratch / "fresh"
        fresh.mkdir()
        pair = certificates.certificate_in(fresh, ("localhost",))
        context.load_verify_locations(pair.cert)

        def shown() -> bytes:
            with visit(server, context) as visited:
                certificate = visited.getpeercert(binary_form=True)
            assert certificate is not None
            return ssl.DER_cert_to_PEM_cert(certificate).strip().encode()

        def everybody_shows(expected: bytes) -> bool:
            if workers == "1":
                return shown() == expected.strip()
            for worker in server.workers():
                with only(server, worker):
                    if shown() != expected.strip():
                        return False
            return True

        assert everybody_shows(old)
        shutil.copy(pair.key, own_place.key)
        shutil.copy(pair.cert, own_place.certificate)
        server.signal(signal.SIGHUP)
        eventually(lambda: everybody_shows(pair.cert.read_bytes()), "the new certificate")
        if workers == "2":
            victim = server.workers()[0]
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: len({*server.workers()} - {victim}) == 2, "another worker")
            assert everybody_shows(pair.cert.read_bytes())

        own_place.key.write_text("no key")
        server.signal(signal.SIGHUP)
        eventually(lambda: "the certificates stay as they were" in server.errors(), "the refusal")
        assert everybody_shows(pair.cert.read_bytes())


@pytest.mark.kernel_matrix("a key log of its own in every worker")
def test_no_worker_can_read_the_key_log_of_another(place: Place) -> None:
    def key_logs(pid: int) -> set[int]:
        found = set()
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if "key log" in os.readlink(entry):
                    found.add(entry.stat().st_ino)
        return found

    with running(place, "--workers", "2") as server:
        first, second = server.workers()
        os.kill(first, signal.SIGKILL)
        eventually(lambda: len({*server.workers()} - {first}) == 2, "another worker")
        (third,) = {*server.workers()} - {first, second}
        with only(server, third), visit(server, server.context):
            pass
        logs = [key_logs(pid) for pid in (server.pid, second, third)]
        assert [len(log) for log in logs] == [0, 1, 1]
        assert logs[1].isdisjoint(logs[2])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_as_process_1_of_a_container_it_ends_in_order_and_buries_orphans(place: Place, workers: str) -> None:
    """A PID namespace of its own, as containers have: its first process gets no default signal handlers."""
    unshare: tuple[str, ...] = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        unshare = ("unshare", "--map-root-user", *unshare[1:])
    with running(place, "--workers", workers, prefix=unshare) as server:
        (process_1,) = server.workers()  # unshare has one child
        # Its child ends at once and leaves an orphan, who ends a moment later.
        orphaned = "import os, time\nif not os.fork():\n time.sleep(0.2)\n os.execvp('true', ['orphan-of-test'])"
        enter = ["nsenter", "--pid", "--target", str(process_1), sys.executable, "-c", orphaned]
        subprocess.run(enter, check=True)

        def children() -> list[str]:
            return Path(f"/proc/{process_1}/task/{process_1}/children").read_text().split()

        expected = 0 if workers == "1" else int(workers)
        eventually(lambda: len(children()) == expected, "the orphan buried")
        os.kill(process_1, signal.SIGTERM)
        assert server.wait() == 0
        assert server.errors() == ""
