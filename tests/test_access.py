"""Who may come in: answers that take no time, questions that wait their turn, and what the gate remembers."""

from __future__ import annotations

import asyncio
import base64
import logging
import threading
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from ktls_server.access import MAX_QUESTIONS, MAX_QUESTIONS_OF_A_CLIENT, PasswordGate
from ktls_server.errors import BadRequest, TryLater
from ktls_server.passwords import Authenticator, PasswordFile, PasswordHash
from tests.waiting import eventually_async


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


class Desk:
    """Slow hashes that a test lets go on one by one. `asked` are the passwords, in the order in which they got a thread."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self._go_on = threading.Semaphore(0)

    def hash_of(self, password: bytes) -> PasswordHash:
        def verify(tried: bytes) -> bool:
            self.asked.append(tried)
            self._go_on.acquire()
            return tried == password

        return PasswordHash(b"hash of " + password, ("slow",), verify)

    def file(self, **users: str) -> SimpleNamespace:
        return SimpleNamespace(authenticator=self.authenticator(**users))

    def authenticator(self, **users: str) -> Authenticator:
        return Authenticator({user.encode(): self.hash_of(word.encode()) for user, word in users.items()})

    def let_go(self, count: int = 1) -> None:
        self._go_on.release(count)


@asynccontextmanager
async def gate_of(desk: Desk, file: SimpleNamespace, threads: int = 1) -> AsyncIterator[PasswordGate]:
    gate = PasswordGate(cast(PasswordFile, file), threads=threads)
    try:
        yield gate
    finally:
        gate.close()
        desk.let_go(1000)


def question(verdict: bool | Awaitable[bool]) -> asyncio.Future[bool]:
    assert isinstance(verdict, asyncio.Future), verdict
    return verdict


async def test_no_credentials_and_malformed_ones_are_answered_at_once() -> None:
    desk = Desk()
    async with gate_of(desk, desk.file(ann="1")) as gate:
        for authorization in (None, b"", b"Basic", b"Basic ???", b"Bearer abc", b"Basic YW5u"):
            assert gate.judge(authorization, "client") is False
        assert (gate.waiting, gate.refused) == (0, 0)


async def test_what_was_verified_is_answered_at_once_and_what_was_wrong_is_asked_again() -> None:
    desk = Desk()
    async with gate_of(desk, desk.file(ann="1")) as gate:
        desk.let_go(3)
        assert await question(gate.judge(basic("ann", "1"), "client")) is True
        assert gate.judge(basic("ann", "1"), "another") is True
        for _ in range(2):
            assert await question(gate.judge(basic("ann", "2"), "client")) is False
        assert gate.judge(basic("ann", "1"), "client") is True, "a wrong guess does not put the right user out"
        assert desk.asked == [b"1", b"2", b"2"]
        assert gate.waiting == 0


async def test_equal_questions_share_one_verification_whoever_asks() -> None:
    desk = Desk()
    async with gate_of(desk, desk.file(ann="1"), threads=2) as gate:
        same = [question(gate.judge(basic("ann", "1"), f"client {number % 50}")) for number in range(500)]
        assert gate.waiting == 1
        desk.let_go()
        assert await asyncio.gather(*same) == [True] * 500
        assert desk.asked == [b"1"]
        assert gate.waiting == 0


async def test_wrong_logins_of_one_client_do_not_starve_a_right_one_of_another() -> None:
    desk = Desk()
    async with gate_of(desk, desk.file(ann="1")) as gate:
        wrong, refused = [], 0
        for number in range(250):
            try:
                wrong.append(question(gate.judge(basic("ann", f"wrong {number}"), "attacker")))
            except TryLater:
                refused += 1
        assert len(wrong) == MAX_QUESTIONS_OF_A_CLIENT
        assert gate.refused == refused == 250 - MAX_QUESTIONS_OF_A_CLIENT
        right = question(gate.judge(basic("ann", "1"), "somebody"))
        desk.let_go(3)  # the attacker's first, which has the thread already, and one of each client
        assert await right is True
        assert desk.asked[2] == b"1"
        assert [answer.done() for answer in wrong] == [True, True, False, False]


async def test_clients_take_turns_and_each_ones_questions_keep_their_order() -> None:
    desk = Desk()
    async with gate_of(desk, desk.file(ann="1")) as gate:
        answers = [
            question(gate.judge(basic("ann", name), name[0])) for name in ("a1", "a2", "a3", "b1", "b2", "c1", "a4")
        ]
        desk.let_go(7)
        assert await asyncio.gather(*answers) == [False] * 7
        assert [name.decode() for name in desk.asked] == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"], (
            "a1 had the thread before the others came"
        )


async def test_all_questions_together_are_bounded() -> None:
    desk = Desk()
    async with gate_of(desk, desk.file(ann="1")) as gate:
        answers = [question(gate.judge(basic("ann", f"{number}"), f"{number}")) for number in range(MAX_QUESTIONS)]
        with pytest.raises(TryLater) as caught:
            gate.judge(basic("ann", "one more"), "one more")
        assert (caught.value.status, caught.value.close) == (503, False)
        assert caught.value.retry_after >= 1
        joined = question(gate.judge(basic("ann", "5"), "one more"))
        assert (gate.waiting, gate.refused) == (MAX_QUESTIONS, 1)
        desk.let_go(MAX_QUESTIONS)
        assert (await asyncio.gather(*answers)).count(True) == 1
        assert await joined is False
        assert gate.waiting == 0
        desk.let_go()
        assert await question(gate.judge(basic("ann", "one more"), "one more")) is False


async def test_a_request_that_is_cancelled_gives_its_place_back_before_and_after_its_turn() -> None:
    desk = Desk()
    async with gate_of(desk, desk.file(ann="1")) as gate:

        async def ask(password: str) -> bool:
            return await question(gate.judge(basic("ann", password), "client"))

        tasks = [asyncio.create_task(ask(f"{number}")) for number in range(MAX_QUESTIONS_OF_A_CLIENT)]
        await eventually_async(lambda: desk.asked == [b"0"], "the first has the thread")
        with pytest.raises(TryLater):
            gate.judge(basic("ann", "more"), "client")
        for number in (0, 2):
            tasks[number].cancel()
            await asyncio.wait([tasks[number]])
        await eventually_async(lambda: gate.waiting == MAX_QUESTIONS_OF_A_CLIENT - 2, "two places")
        others = [question(gate.judge(basic("ann", word), "client")) for word in ("1", "5")]
        assert gate.waiting == MAX_QUESTIONS_OF_A_CLIENT - 1, "the first of them joins a question that waits already"
        desk.let_go(10)
        assert await asyncio.gather(*others) == [True, False]
        assert desk.asked == [b"0", b"1", b"3", b"5"]
        assert await tasks[1] is True
        assert gate.waiting == 0
        assert gate._questions_of_client == {}


async def test_one_of_several_equal_requests_may_be_cancelled() -> None:
    desk = Desk()
    async with gate_of(desk, desk.file(ann="1")) as gate:
        blocker = question(gate.judge(basic("ann", "0"), "blocker"))
        same = [question(gate.judge(basic("ann", "1"), client)) for client in ("a", "a", "b")]
        same[0].cancel()
        same[2].cancel()
        await asyncio.sleep(0)
        desk.let_go(2)
        assert await same[1] is True
        assert await blocker is False
        assert gate._questions_of_client == {}


async def test_a_question_asked_again_while_its_cancelled_self_has_the_thread_is_answered() -> None:
    desk = Desk()
    async with gate_of(desk, desk.file(ann="1")) as gate:
        question(gate.judge(basic("ann", "1"), "client")).cancel()
        await asyncio.sleep(0)
        assert gate.waiting == 0
        again = question(gate.judge(basic("ann", "1"), "client"))
        assert gate.waiting == 1
        desk.let_go(2)
        assert await again is True
        assert gate.waiting == 0


async def test_a_removed_user_and_an_old_password_are_out_at_once_and_the_others_stay_in() -> None:
    desk = Desk()
    file = desk.file(ann="1", bob="2", eve="3")
    async with gate_of(desk, file) as gate:
        desk.let_go(3)
        for user, password in (("ann", "1"), ("bob", "2"), ("eve", "3")):
            assert await question(gate.judge(basic(user, password), "client")) is True
        file.authenticator = desk.authenticator(ann="1", bob="new")
        assert gate.judge(basic("ann", "1"), "client") is True
        old = question(gate.judge(basic("bob", "2"), "client"))
        removed = question(gate.judge(basic("eve", "3"), "client"))
        desk.let_go(2)
        assert await old is False
        assert await removed is False
        assert set(gate._verified) == {b"ann", b"bob"}


async def test_a_verdict_from_before_a_reload_is_not_remembered_for_a_user_who_is_gone() -> None:
    desk = Desk()
    file = desk.file(ann="1", eve="3")
    async with gate_of(desk, file) as gate:
        late = question(gate.judge(basic("eve", "3"), "client"))
        file.authenticator = desk.authenticator(ann="1")
        after = question(gate.judge(basic("eve", "3"), "client"))
        desk.let_go(2)
        assert await late is True, "the request came while she was there"
        assert await after is False, "it does not share the verdict of before"
        assert gate._verified == {}


async def test_a_failure_of_the_library_is_not_the_clients_and_says_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    class Panic(BaseException):
        pass

    def verify(password: bytes) -> bool:
        raise Panic(password)

    file = SimpleNamespace(authenticator=Authenticator({b"ann": PasswordHash(b"", (), verify)}))
    async with gate_of(Desk(), file) as gate:
        with caplog.at_level(logging.DEBUG), pytest.raises(BadRequest) as caught:
            await question(gate.judge(basic("ann", "topsecret"), "client"))
        assert caught.value.status == 503
        assert "Panic" in caplog.text
        assert "topsecret" not in caplog.text + repr(caught.value)
        assert gate.waiting == 0


async def test_what_is_remembered_and_shown_holds_no_password() -> None:
    desk = Desk()
    file = desk.file(ann="topsecret")
    async with gate_of(desk, file) as gate, gate_of(desk, file) as other:
        desk.let_go(2)
        for each in (gate, other):
            assert await question(each.judge(basic("ann", "topsecret"), "client"))
            ((user, digest),) = each._verified.items()
            assert (user, len(digest)) == (b"ann", 32)
            assert "topsecret" not in repr(each) + repr(vars(each))
        assert gate._verified != other._verified, "each has a key of its own"


async def test_closing_cancels_those_who_wait() -> None:
    desk = Desk()
    async with gate_of(desk, desk.file(ann="1")) as gate:
        answers = [question(gate.judge(basic("ann", f"{number}"), "client")) for number in range(3)]
        gate.close()
        assert all(answer.cancelled() for answer in answers)
        await asyncio.sleep(0)
        assert gate.waiting == 0
        desk.let_go()


def test_a_loop_that_ends_before_its_threads_leaves_no_noise(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk()
    kept: list[PasswordGate] = []

    async def leave_behind() -> None:
        gate = PasswordGate(cast(PasswordFile, desk.file(ann="1")), threads=1)
        gate.judge(basic("ann", "1"), "client")
        kept.append(gate)
        gate.close()

    asyncio.run(leave_behind())
    desk.let_go()
    kept[0]._threads.shutdown(wait=True)
    assert capfd.readouterr().err == caplog.text == ""
