"""A connection driven through every await, and cut at every await, by a script in place of the socket."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ktls_server.accesslog import LoggedConnection
from ktls_server.exchange import Stage
from ktls_server.keys import record_cipher
from ktls_server.keys.suites import SUITES
from ktls_server.semantics.messages import FileSlice, Request, Response
from tests.core.scripted import BLOCK, NEVER_AGAIN, RESET, Nonces, Scene, is_whole
from tests.server.site import content
from tests.tls.wire_client import ALERT, APPLICATION_DATA, HANDSHAKE, UNEXPECTED_MESSAGE, get_request
from tests.waiting import eventually_async

KINDS = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
]
TLS13 = KINDS[0]
FILE_BYTES = 150_000
CLOSE_NOTIFY = (ALERT, b"\x01\x00")
REQUEST = get_request("/small")
SMALL = b"a small answer"


class House:
    """Answers /small from memory, /file from a file, /slow after waiting; counts the descriptors that it gave out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(content(FILE_BYTES))

    def __call__(self, request: Request, _client: LoggedConnection) -> Response | Awaitable[Response]:
        if request.target == b"/slow":
            return self._slow()
        if request.target == b"/file":
            fd = os.open(self.path, os.O_RDONLY)
            return Response(200, [], (b"before", FileSlice(fd, 0, FILE_BYTES), b"after"), FILE_BYTES + 11, fd)
        return Response(200, [], (SMALL,), len(SMALL))

    async def _slow(self) -> Response:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return Response(200, [], (SMALL,), len(SMALL))


BODIES = {"/small": SMALL, "/slow": SMALL, "/file": b"before" + content(FILE_BYTES) + b"after"}


def bodies_in(data: bytes) -> list[bytes]:
    """The bodies of all responses in a stream; the last may be cut."""
    bodies = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        size = next((int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")), 0)
        bodies.append(rest[:size])
        data = rest[size:]
    return bodies


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "file")


@pytest.fixture(autouse=True)
def nonces(monkeypatch: pytest.MonkeyPatch) -> Nonces:
    nonces = Nonces()
    monkeypatch.setattr(record_cipher, "_aead", nonces.wrap(record_cipher._aead))
    return nonces


@pytest.fixture
async def complaints() -> AsyncIterator[list[dict[str, Any]]]:
    """What the loop's exception handler was told: "never retrieved" and the like."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    yield told
    assert told == []


async def settled(task: asyncio.Task[None]) -> None:
    """Wait until the connection is over, whatever ended it."""
    await asyncio.wait({task}, timeout=60)
    assert task.done(), "the connection never ended"
    if not task.cancelled():
        assert task.exception() is None
    await asyncio.sleep(0)


PATHS = ("/small", "/file", "/slow", "/small")

SCRIPTS = {
    "free": [],
    "blocks at each second write": [BLOCK, 1 << 20] * 40,
    "takes three bytes": [3, BLOCK, 3, 3, BLOCK] * 5 + [1 << 20] * 3 + [3, BLOCK, 1000, BLOCK],
    "takes odd parts": [16_411, BLOCK, 5, 1, 70_000, BLOCK, BLOCK, 40_000],
}


def hold_talk(scene: Scene, *, tls13: bool) -> None:
    """Requests in pieces and together, with KeyUpdates, empty records and an attempt to renegotiate between them."""
    client, sock = scene.client, scene.sock
    first = client.seal(get_request(PATHS[0]))
    sock.says(first[:3])
    sock.says(first[3:20])
    sock.says(first[20:])
    sock.says(client.seal(b"") + (client.key_update(requested=True) if tls13 else client.seal(b"\1\0\0\2\3\3", 22)))
    sock.says(client.seal(get_request(PATHS[1])[:9]) + client.seal(get_request(PATHS[1])[9:]))
    if tls13:
        sock.says(client.key_update(requested=True))
    sock.says(client.seal(get_request(PATHS[2]) + get_request(PATHS[3])))
    sock.says(client.seal(b"\x01\x00", ALERT))


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("complaints")
async def test_a_whole_talk(house: House, kind: str, script: str) -> None:
    tls13 = kind.startswith("TLS_")
    scene = Scene(SUITES[kind], house, list(SCRIPTS[script]))
    hold_talk(scene, tls13=tls13)
    await settled(scene.start())
    scene.assert_over()
    assert is_whole(bytes(scene.sock.sent))
    assert bodies_in(scene.data()) == [BODIES[path] for path in PATHS]
    opened = scene.opened()
    assert opened[-1] == CLOSE_NOTIFY
    assert opened.count(CLOSE_NOTIFY) == 1
    posted = [record for record in opened if record[0] != APPLICATION_DATA][:-1]
    if tls13:
        assert 1 <= len(posted) <= 2
        assert set(posted) == {(HANDSHAKE, b"\x18\0\0\1\0")}
    else:
        assert posted == [(ALERT, b"\x01\x64")]


ENDINGS: dict[str, Callable[[Scene, asyncio.Task[None]], object]] = {
    "cancelled": lambda _scene, task: task.cancel(),
    "aborted": lambda scene, _task: scene.connection.abort(),
    "interrupted": lambda scene, _task: scene.connection.interrupt(),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("kind", [TLS13, "ECDHE-ECDSA-AES128-GCM-SHA256"])
async def test_cut_at_every_await(
    house: House, complaints: list[dict[str, Any]], kind: str, script: str, ending: str, nonces: Nonces
) -> None:
    tls13 = kind.startswith("TLS_")
    expected = b""
    at, awaits = 0, 1
    descriptors = len(os.listdir("/proc/self/fd"))
    while at <= awaits:
        nonces.used.clear()
        scene = Scene(SUITES[kind], house, list(SCRIPTS[script]))
        hold_talk(scene, tls13=tls13)
        count = 0

        def at_await(task: asyncio.Task[None]) -> None:
            nonlocal count
            count += 1
            if count == at:  # noqa: B023
                asyncio.get_running_loop().call_soon(ENDINGS[ending], scene, task)  # noqa: B023

        await settled(scene.start(at_await))
        scene.assert_over()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert len(os.listdir("/proc/self/fd")) == descriptors
        if at == 0:
            awaits = count
            expected = b"".join(bodies_in(scene.data()))
        else:
            sent = b"".join(bodies_in(scene.data()))
            assert expected.startswith(sent)
            assert scene.opened().count(CLOSE_NOTIFY) <= 1
        at += 1
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
    assert awaits > 8


@pytest.mark.parametrize("writes_before", range(12))
async def test_reset_at_every_write(house: House, complaints: list[dict[str, Any]], writes_before: int) -> None:
    scene = Scene(SUITES[TLS13], house, [20_000, BLOCK] * (writes_before // 2) + [30] * (writes_before % 2) + [RESET])
    hold_talk(scene, tls13=True)
    await settled(scene.start())
    scene.assert_over()
    assert b"".join(BODIES[path] for path in PATHS).startswith(b"".join(bodies_in(scene.data())))
    assert complaints == []


async def test_a_task_that_is_cancelled_before_its_first_step_gives_everything_back(house: House) -> None:
    scene = Scene(SUITES[TLS13], house, [])
    task = scene.start(lambda _task: None)
    task.cancel()
    await settled(task)
    scene.assert_over()
    assert scene.sock.sent == b""


async def test_the_server_cancels_for_its_own_reasons_and_the_task_says_so(house: House) -> None:
    scene = Scene(SUITES[TLS13], house, [], fin=False)
    task = scene.start()
    await asyncio.sleep(0)
    task.cancel()
    await settled(task)
    assert task.cancelled()
    scene.assert_over()


async def test_posts_to_a_client_that_does_not_read_are_coalesced_watched_and_never_block_reading(house: House) -> None:
    scene = Scene(SUITES[TLS13], house, [7, NEVER_AGAIN], fin=False)
    for _ in range(100):
        scene.sock.says(scene.client.key_update(requested=True))
    task = scene.start()
    await eventually_async(lambda: not scene.sock.incoming, "all is read")
    assert len(scene.service.blocked) == 1
    assert scene.connection.stage is Stage.IDLE
    assert len(scene.sock.sent) == 7
    scene.sock.takes.clear()
    scene.loop.look()
    await eventually_async(lambda: len(scene.service.blocked) == 0, "the answers are out")
    assert 1 <= len(scene.opened()) <= 2
    scene.sock.says(scene.client.seal(REQUEST))
    await eventually_async(lambda: SMALL in scene.data(), "the answer")
    scene.connection.interrupt()
    scene.sock.fin = True
    await settled(task)
    scene.assert_over()
    assert scene.counters.key_updates["answer"] == len([record for record in scene.opened() if record[0] == HANDSHAKE])


async def test_posts_that_are_never_read_end_the_connection_at_their_deadline(house: House) -> None:
    scene = Scene(SUITES["ECDHE-ECDSA-AES128-GCM-SHA256"], house, [NEVER_AGAIN], fin=False)
    for _ in range(50):
        scene.sock.says(scene.client.seal(b"\1\0\0\2\3\3", 22))
    task = scene.start()
    await eventually_async(lambda: not scene.sock.incoming, "all is read")
    assert len(scene.service.blocked) == 1
    scene.connection.on_posts_deadline()
    await settled(task)
    scene.assert_over()
    assert scene.counters.timeouts == {"posts": 1}
    assert scene.sock.sent == b""


@pytest.mark.parametrize("content_type", [99, 20, 24])
async def test_a_fatal_alert_is_the_last_word_and_what_came_before_is_answered(house: House, content_type: int) -> None:
    scene = Scene(SUITES[TLS13], house, [5, BLOCK, 3, BLOCK], fin=True)
    scene.sock.says(scene.client.seal(REQUEST) + scene.client.seal(b"?", content_type) + scene.client.seal(REQUEST))
    await settled(scene.start())
    scene.assert_over()
    assert bodies_in(scene.data()) == [SMALL]
    assert scene.opened()[-1] == (ALERT, bytes((2, UNEXPECTED_MESSAGE)))
    assert [record[0] for record in scene.opened()] == [APPLICATION_DATA, ALERT]


async def test_a_flood_of_control_records_is_ended(house: House) -> None:
    scene = Scene(SUITES[TLS13], house, [], fin=False)
    for _ in range(600):
        scene.sock.says(scene.client.key_update(requested=False))
        scene.sock.says(scene.client.seal(b"x"))  # data among them: the silent bytes are not what ends it
    scene.sock.fin = True
    await settled(scene.start())
    scene.assert_over()
    assert scene.counters.key_updates["flood"] == 1
    assert scene.opened()[-1] == (ALERT, bytes((2, UNEXPECTED_MESSAGE)))


async def test_each_connection_of_a_pipeliner_gives_the_others_a_turn(house: House) -> None:
    """A hundred requests in one record: another task runs between any two answers."""
    scene = Scene(SUITES[TLS13], house, [])
    scene.sock.says(scene.client.seal(REQUEST * 100))
    task = scene.start()
    seen: set[int] = set()
    while not task.done():
        seen.add(scene.service.responses[200])
        await asyncio.sleep(0)
    assert len(seen) >= 100
    scene.assert_over()


@pytest.mark.parametrize("kept", [0, 4])
async def test_a_stream_that_ends_within_a_body_ends_in_order_without_an_answer(house: House, kept: int) -> None:
    scene = Scene(SUITES[TLS13], house, [])
    scene.sock.says(scene.client.seal(get_request("/small", "Content-Length: 8") + b"x" * kept))
    await settled(scene.start())
    scene.assert_over()
    assert scene.opened() == [CLOSE_NOTIFY]
    assert scene.service.responses == {}


async def test_a_file_whose_reading_fails_is_named_once_in_the_log_and_blames_nobody_else(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    scene = Scene(SUITES[TLS13], house, [])
    scene.sock.says(scene.client.seal(get_request("/file")))
    await settled(scene.start())
    scene.assert_over()
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert str(house.path) in line
    assert "Input/output error" in line
    assert CLOSE_NOTIFY not in scene.opened(), "the client must see that something is missing"


async def test_a_file_that_shrinks_is_cut_without_close_notify(house: House) -> None:
    house.path.write_bytes(content(FILE_BYTES - 1))
    scene = Scene(SUITES[TLS13], house, [])
    scene.sock.says(scene.client.seal(get_request("/file")))
    await settled(scene.start())
    scene.assert_over()
    assert bodies_in(scene.data()) == [b"before" + content(FILE_BYTES - 1)]
    assert CLOSE_NOTIFY not in scene.opened()


@pytest.mark.parametrize("between", [b"", b"\r\n"], ids=["nothing between", "data between"])
async def test_large_messages_are_endured_only_with_data_between(house: House, between: bytes) -> None:
    """ClientHellos of the largest record: five without application data are too many."""
    scene = Scene(SUITES["ECDHE-ECDSA-AES128-GCM-SHA256"], house, [])
    size = (1 << 14) - 4
    for _ in range(10):
        scene.sock.says(scene.client.seal(b"\x01" + size.to_bytes(3, "big") + bytes(size), HANDSHAKE))
        scene.sock.says(scene.client.seal(between))
    scene.sock.says(scene.client.seal(REQUEST))
    await settled(scene.start())
    scene.assert_over()
    assert bodies_in(scene.data()) == ([SMALL] if between else [])
    assert scene.counters.key_updates["flood"] == (0 if between else 1)
