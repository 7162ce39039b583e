"""The supervisor by itself: its workers are stand-ins that note what they are told, so no server has to start.

It runs in a process of its own, since it takes over signals and buries every child. A supervisor that would go on for ever
is ended by its alarm clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import selectors
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from ktls_server.errors import ConfigurationError, SystemRefusal
from ktls_server.operation import errorlog, supervisor
from ktls_server.operation.client_counts import ClientCounts
from ktls_server.operation.preparation import Prepared
from ktls_server.operation.worker import ABORT, READY, RELOAD, STOP
from ktls_server.settings import Settings
from tests.operation.forking import in_a_child
from tests.waiting import WAIT_SECONDS, eventually

WorkerStub = Callable[["Scene", int, "Channel"], Awaitable[None]]


class Channel:
    """A worker's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)

    def ready(self) -> None:
        self._sock.send(READY)

    async def command(self) -> bytes:
        """The next; empty when the supervisor is gone."""
        return await asyncio.get_running_loop().sock_recv(self._sock, 16)


class Readable:
    """Certificates or passwords: counts how often they were read, and says in which process."""

    def __init__(self, scene: Scene, name: str) -> None:
        self._scene = scene
        self._name = name
        self.reloads = 0

    def reload(self) -> bool:
        self.reloads += 1
        self._scene.note(f"{os.getpid() == self._scene.supervisor} reads {self._name}")
        return True


class Scene:
    """One supervisor with two stand-ins. What happened is in `notes`, one line each."""

    def __init__(
        self, folder: Path, worker: WorkerStub, announced: Callable[[Scene], None], grace: float = 3600
    ) -> None:
        self._notes = folder / "notes"
        self._log = folder / "log"
        self._worker = worker
        self._announced = announced
        self._grace = grace
        self.supervisor = 0
        self.prepared = SimpleNamespace()

    def note(self, line: str) -> None:
        with self._notes.open("a") as file:
            file.write(f"{line}\n")

    @property
    def notes(self) -> list[str]:
        return self._notes.read_text().splitlines() if self._notes.exists() else []

    @property
    def log(self) -> str:
        return self._log.read_text()

    def run(self) -> int:
        """How the supervisor's process ends."""
        return in_a_child(self._supervise)

    def _supervise(self) -> None:
        signal.alarm(WAIT_SECONDS)
        with self._log.open("wb") as log:
            os.dup2(log.fileno(), 2)
        errorlog.configure("info")
        self.supervisor = os.getpid()
        self.prepared = SimpleNamespace(
            settings=Settings(workers=2, grace=self._grace, loop="asyncio"),
            certificates=Readable(self, "certificates"),
            passwords=Readable(self, "passwords"),
            client_counts=ClientCounts(2),
            close_listeners=lambda: None,
        )

        async def serve(_prepared: Prepared, number: int, channel: socket.socket) -> None:
            await self._worker(self, number, Channel(channel))

        # Nothing to undo: this process ends here.
        vars(supervisor)["serve_supervised"] = serve
        supervisor.run(cast(Prepared, self.prepared), lambda: self._announced(self))


def end(scene: Scene) -> None:
    os.kill(scene.supervisor, signal.SIGTERM)


def leave_alone(_scene: Scene) -> None:
    pass


async def obey(scene: Scene, number: int, channel: Channel) -> None:
    channel.ready()
    while await channel.command() not in (STOP, ABORT, b""):
        pass


def test_workers_are_told_to_stop_and_the_end_is_an_end_in_order(tmp_path: Path) -> None:
    async def worker(scene: Scene, number: int, channel: Channel) -> None:
        channel.ready()
        scene.note(f"{number}: {(await channel.command()).decode()}")

    scene = Scene(tmp_path, worker, end)
    assert scene.run() == 0
    assert sorted(scene.notes) == ["0: stop", "1: stop"]
    assert scene.log == ""


def test_the_second_signal_cuts_what_the_first_left(tmp_path: Path) -> None:
    async def worker(scene: Scene, number: int, channel: Channel) -> None:
        channel.ready()
        commands = [await channel.command()]
        if number == 0:
            os.kill(scene.supervisor, signal.SIGINT)
        commands.append(await channel.command())
        scene.note(f"{number}: {b' '.join(commands).decode()}")

    scene = Scene(tmp_path, worker, end)
    assert scene.run() == 0
    assert sorted(scene.notes) == ["0: stop abort", "1: stop abort"]


@pytest.mark.parametrize("signals", [1, 2])
def test_a_worker_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: int) -> None:
    """After the grace period and a margin; after the second signal, whatever the grace period is."""
    monkeypatch.setattr(supervisor, "STOP_MARGIN_SECONDS", 0.1)
    monkeypatch.setattr(supervisor, "ABORT_SECONDS", 0.1)

    async def worker(scene: Scene, number: int, channel: Channel) -> None:
        channel.ready()
        await channel.command()
        if number == 0 and signals == 2:
            os.kill(scene.supervisor, signal.SIGTERM)
        if number == 0:
            scene.note(str(os.getpid()))
            await asyncio.sleep(WAIT_SECONDS)

    scene = Scene(tmp_path, worker, end, grace=0.1 if signals == 1 else 3600)
    assert scene.run() == 0
    (pid,) = map(int, scene.notes)
    assert f"worker 0 (process {pid}) does not end and is killed" in scene.log
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_worker_that_cannot_start_ends_the_start(tmp_path: Path) -> None:
    async def worker(scene: Scene, number: int, channel: Channel) -> None:
        if number == 1:
            raise ConfigurationError("the reason")
        await obey(scene, number, channel)

    def check() -> None:
        with pytest.raises(SystemRefusal, match="a worker could not start"):
            scene._supervise()

    scene = Scene(tmp_path, worker, leave_alone)
    assert in_a_child(check) == 0
    assert scene.log.endswith("worker 1 cannot start: the reason\n")
    assert scene.log.count("\n") == 1


def test_after_the_start_a_worker_that_cannot_start_is_tried_again(tmp_path: Path) -> None:
    async def worker(scene: Scene, number: int, channel: Channel) -> None:
        scene.note(f"{number} begins")
        begun = scene.notes.count(f"{number} begins")
        if number == 1 and begun == 2:
            raise ConfigurationError("only once")
        channel.ready()
        if number == 1 and begun == 1:
            await asyncio.to_thread(eventually, lambda: "announced" in scene.notes, "the announcement")
            os._exit(7)
        if begun == 3:
            end(scene)
        await obey(scene, number, channel)

    scene = Scene(tmp_path, worker, lambda scene: scene.note("announced"))
    assert scene.run() == 0
    assert scene.notes.count("1 begins") == 3
    assert "ended with status 7; another takes its place" in scene.log
    assert "worker 1 cannot start: only once" in scene.log


def sockets_of_pairs() -> int:
    """How many descriptors of this process are ends of a channel between supervisor and worker."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as sock:
            count += (sock.family, sock.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return count


def test_a_worker_keeps_nothing_of_the_supervisors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker's channel kept open would hide the supervisor's death from it."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))

    async def worker(scene: Scene, number: int, channel: Channel) -> None:
        notify = os.environ.get("NOTIFY_SOCKET")
        scene.note(f"{number}: {sockets_of_pairs()} {notify}")
        await obey(scene, number, channel)

    scene = Scene(tmp_path, worker, end)
    assert scene.run() == 0
    assert sorted(scene.notes) == ["0: 1 None", "1: 1 None"]


def test_workers_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    async def worker(scene: Scene, number: int, channel: Channel) -> None:
        channel.ready()
        scene.note(f"{number}: {await channel.command()!r}")

    scene = Scene(tmp_path, worker, lambda scene: os.kill(os.getpid(), signal.SIGKILL))
    assert scene.run() == -signal.SIGKILL
    eventually(lambda: sorted(scene.notes) == ["0: b''", "1: b''"], "both workers' ends")


def test_a_reload_is_the_supervisors_too_and_later_workers_have_it(tmp_path: Path) -> None:
    async def worker(scene: Scene, number: int, channel: Channel) -> None:
        reloads = scene.prepared.certificates.reloads, scene.prepared.passwords.reloads
        scene.note(f"{number} has {reloads}")
        channel.ready()
        if reloads == (1, 1):
            end(scene)
            return
        assert await channel.command() == RELOAD
        scene.note(f"{number} told")
        if reloads == (0, 0) and number == 0:
            os._exit(0)
        await channel.command()

    scene = Scene(tmp_path, worker, lambda scene: os.kill(scene.supervisor, signal.SIGHUP))
    assert scene.run() == 0
    assert scene.notes.count("True reads certificates") == scene.notes.count("True reads passwords") == 1
    assert "0 has (1, 1)" in scene.notes
    assert scene.notes.count("1 told") == 1


class Refusal:
    """Refuses a number of times, then does what `function` does."""

    def __init__(self, function: Callable[..., object], code: int, times: int) -> None:
        self._function = function
        self._code = code
        self._left = times

    def __call__(self, *arguments: object, **options: object) -> object:
        if self._left:
            self._left -= 1
            raise OSError(self._code, os.strerror(self._code))
        return self._function(*arguments, **options)


@pytest.mark.parametrize(
    ("target", "name", "code"),
    [
        (socket, "socketpair", errno.EMFILE),
        (socket, "socketpair", errno.ENFILE),
        (selectors.DefaultSelector, "register", errno.ENOSPC),
        (os, "fork", errno.EAGAIN),
    ],
)
def test_what_the_system_refuses_while_a_worker_is_replaced_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: object, name: str, code: int
) -> None:
    monkeypatch.setattr(supervisor, "PAUSES_SECONDS", (0.0, 0.01))

    async def worker(scene: Scene, number: int, channel: Channel) -> None:
        scene.note(f"{number} begins")
        channel.ready()
        if scene.notes.count("0 begins") == 2:
            end(scene)
        elif number == 0:
            await asyncio.to_thread(eventually, lambda: "announced" in scene.notes, "the announcement")
            os._exit(7)
        await obey(scene, number, channel)

    def announced(scene: Scene) -> None:
        refusal = Refusal(getattr(target, name), code, times=3)

        def replaced(*arguments: object, **options: object) -> object:
            return refusal(*arguments, **options)

        setattr(target, name, replaced)
        scene.note("announced")

    def check() -> None:
        before = len(os.listdir("/proc/self/fd"))
        scene._supervise()
        # The log's own.
        assert len(os.listdir("/proc/self/fd")) <= before + 1

    scene = Scene(tmp_path, worker, announced)
    assert in_a_child(check) == 0
    assert scene.log.count(f"cannot start worker 0: {os.strerror(code)}; tried again in ") == 3
    assert "Traceback" not in scene.log


def test_a_worker_without_descriptors_ends_with_one_line(tmp_path: Path) -> None:
    async def worker(scene: Scene, number: int, channel: Channel) -> None:
        scene.note(f"{number} begins")
        if number == 0 and scene.notes.count("0 begins") == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        await obey(scene, number, channel)

    scene = Scene(tmp_path, worker, end)
    assert scene.run() == 0
    assert "worker 0 ends: Too many open files\n" in scene.log
    assert "Traceback" not in scene.log


def test_the_connections_of_a_dead_worker_count_no_more(tmp_path: Path) -> None:
    """Not even while its place is empty."""

    async def worker(scene: Scene, number: int, channel: Channel) -> None:
        counts = scene.prepared.client_counts
        scene.note(f"{number} begins")
        begun = scene.notes.count("0 begins")
        if number == 0 and begun == 2:
            scene.note(f"left: {sum(counts._cells)}")
            end(scene)
        elif number == 0:
            counts.enter(0)
            counts.add("192.0.2.1")
            channel.ready()
            os._exit(7)
        await obey(scene, number, channel)

    scene = Scene(tmp_path, worker, leave_alone)
    assert scene.run() == 0
    assert "left: 0" in scene.notes
