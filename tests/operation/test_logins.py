"""Passwords, the served folder and the limit of a client on whole servers: what an operator changes while they run."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import ssl
from pathlib import Path

import bcrypt
import pytest

from tests.operation.running import Connection, Place, Running, connect, fetch, running
from tests.operation.test_workers import only
from tests.waiting import eventually_async

CHEAP = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
DEAR = bcrypt.hashpw(b"right", bcrypt.gensalt(10)).decode()


async def login(server: Running, password: str, *, user: str = "ann", source: str = "127.0.0.1") -> str:
    """The status, and for a 503 when to come again."""
    connection = await connect(server, source=source)
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    connection.writer.write(
        f"GET /hello.txt HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {credentials}\r\n\r\n".encode()
    )
    head = (await connection.reader.readuntil(b"\r\n\r\n")).decode()
    connection.abort()
    later = re.search(r"(?i)\r\nretry-after: (\d+)\r\n", head)
    return head[9:12] + (f" later {later[1]}" if later else "")


async def test_wrong_logins_of_one_client_keep_nobody_else_out(own_place: Place) -> None:
    file = own_place.scratch / "htpasswd"
    file.write_text(f"ann:{DEAR}\n")
    with running(own_place, "--auth-file", str(file)) as server:
        async with asyncio.TaskGroup() as group:
            wrong = [group.create_task(login(server, f"wrong {number}", source="127.0.0.2")) for number in range(60)]
            right = [group.create_task(login(server, "right", source=f"127.0.0.{number}")) for number in range(3, 9)]
        assert {answer.result() for answer in right} == {"200"}
        refused = [answer.result() for answer in wrong]
        assert set(refused) <= {"401", "503 later 5"}
        assert "503 later 5" in refused
        assert await login(server, "right", source="127.0.0.2") == "200", "its own right password as well"
        server.stop()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_user_who_is_removed_is_out_in_every_worker_and_a_mistake_changes_nothing(
    own_place: Place, workers: str
) -> None:
    file = own_place.scratch / "htpasswd"
    file.write_text(f"ann:{CHEAP}\nbob:{CHEAP}\n")

    async def of_all(server: Running, user: str) -> set[str]:
        if workers == "1":
            return {await login(server, "right", user=user)}
        answers = set()
        for worker in server.workers():
            with only(server, worker):
                answers.add(await login(server, "right", user=user))
        return answers

    with running(own_place, "--auth-file", str(file), "--workers", workers) as server:
        assert await of_all(server, "ann") == await of_all(server, "bob") == {"200"}
        file.write_text(f"bob:{CHEAP}\n")
        server.signal(signal.SIGHUP)
        while await of_all(server, "ann") != {"401"}:
            pass
        assert await of_all(server, "bob") == {"200"}
        file.write_text("bob\n")
        server.signal(signal.SIGHUP)
        readers = 1 if workers == "1" else 1 + int(workers)
        await eventually_async(
            lambda: server.errors().count("the passwords stay as they were") == readers, "one line of each process"
        )
        assert await of_all(server, "bob") == {"200"}
        server.stop()


async def test_a_deployment_that_changes_the_link_is_served_after_a_reload(tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    releases = {name: tmp_path / name for name in ("first", "second")}
    for name, folder in releases.items():
        folder.mkdir()
        (folder / "hello.txt").write_text(name)
    current = tmp_path / "current"
    current.symlink_to("first")
    linked = Place(current, place.certificate, place.key, place.scratch)
    with running(linked, "--workers", "2") as server:
        download = await connect(server)
        assert await download.get("/hello.txt") == (200, b"first", False)
        temporary = tmp_path / "temporary"
        temporary.symlink_to("second")
        temporary.rename(current)
        assert await fetch(server) == b"first"
        server.signal(signal.SIGHUP)
        for worker in server.workers():
            with only(server, worker):
                while await fetch(server) != b"second":
                    pass
        assert await download.get("/hello.txt") == (200, b"second", False), "an open connection goes on"
        download.abort()
        server.stop()


async def test_the_limit_of_a_client_counts_over_all_workers(place: Place) -> None:
    with running(place, "--workers", "2", "--max-connections-per-address", "3") as server:
        first, second = server.workers()
        held: list[Connection] = []
        for worker, count in ((first, 2), (second, 1)):
            with only(server, worker):
                for _ in range(count):
                    held.append(await connect(server))
                    assert (await held[-1].get("/hello.txt"))[0] == 200
        for worker in (first, second):
            with only(server, worker):
                with pytest.raises((ssl.SSLError, OSError, EOFError)):
                    await connect(server)
                assert await fetch(server, source="127.0.0.9") == b"hello"
        os.kill(first, signal.SIGKILL)
        # A successor begins at zero: the two of the dead worker are gone.
        await eventually_async(lambda: len({*server.workers()} - {first}) == 2, "another worker")
        for _ in range(2):
            held.append(await connect(server))
            assert (await held[-1].get("/hello.txt"))[0] == 200
        for connection in held:
            connection.abort()
