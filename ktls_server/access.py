"""Who may come in: answers an Authorization header at once where that is possible, else by threads, in a fair order.

    judge -> False   no credentials, or malformed ones
          -> True    credentials that were verified before, under the hash that the password file holds now
          -> future  a question, which waits for one of the threads
          raises     TryLater, where too many questions wait

A question is one pair of name and password. Requests that ask the same question share one verification and its verdict.
The threads take questions from one client after the other, so a client that asks many delays its own. `MAX_QUESTIONS` and
`MAX_QUESTIONS_OF_A_CLIENT` bound what waits; a request that is cancelled gives its place back.

Verified credentials are remembered as an HMAC under a key that this gate drew: never as a password. The HMAC covers the
user's hash, so a user whose password was changed, or who was removed, is not let in by what the gate remembers.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
from collections import OrderedDict, deque
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from .errors import TryLater
from .passwords import Authenticator, PasswordFile, credentials_of

_log = logging.getLogger(__name__)

THREADS: Final = 2
"""Passwords verified at one time: each takes tens of milliseconds of a core and, with Argon2, up to 64 MiB."""

MAX_QUESTIONS: Final = 64
"""Questions without an answer. At the 300 ms of a slow hash the last of them waits ten seconds, as long as people do."""

MAX_QUESTIONS_OF_A_CLIENT: Final = 4
"""Questions of one client: some users behind one address log in at the same moment, and no client fills the queue."""

RETRY_AFTER_SECONDS: Final = 5
"""When a client that was turned away may ask again: half of the longest queue is done by then."""


class _Question:
    """One pair of name and password, and the requests that wait for its verdict, by client."""

    __slots__ = ("authenticator", "authorization_untrusted", "digest", "running", "user_untrusted", "waiters")

    def __init__(
        self, authenticator: Authenticator, authorization_untrusted: bytes, user_untrusted: bytes, digest: bytes
    ) -> None:
        self.authenticator = authenticator
        self.authorization_untrusted = authorization_untrusted
        self.user_untrusted = user_untrusted
        self.digest = digest
        self.waiters: dict[str, set[asyncio.Future[bool]]] = {}
        self.running = False


class _Turns:
    """Questions that wait for a thread: one of each client in turn."""

    def __init__(self) -> None:
        self._of_client: OrderedDict[str, deque[_Question]] = OrderedDict()

    def add(self, client: str, question: _Question) -> None:
        """The client's questions are answered in the order in which they came."""
        self._of_client.setdefault(client, deque()).append(question)

    def remove(self, client: str, question: _Question) -> None:
        """The client does not ask any more."""
        questions = self._of_client[client]
        questions.remove(question)
        if not questions:
            del self._of_client[client]

    def next(self) -> _Question | None:
        """The first question of the client whose turn it is; other clients may ask it too. None where none waits."""
        if not self._of_client:
            return None
        client, questions = next(iter(self._of_client.items()))
        question = questions[0]
        self._of_client.move_to_end(client)
        for each in question.waiters:
            self.remove(each, question)
        return question


class PasswordGate:
    """Asks a password file on behalf of one event loop, on which all its methods are called."""

    def __init__(self, passwords: PasswordFile, *, threads: int = THREADS) -> None:
        """Call it inside the loop that will ask, and after the last fork: it has threads."""
        self._passwords = passwords
        self._authenticator = passwords.authenticator
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(threads, "password")
        self._idle_threads = threads
        self._secret = os.urandom(32)
        # One HMAC a user: a user has one password.
        self._verified: dict[bytes, bytes] = {}
        self._questions: dict[bytes, _Question] = {}
        self._questions_of_client: dict[str, int] = {}
        self._turns = _Turns()
        self.refused = 0
        """Requests for which there was no place."""

    def __repr__(self) -> str:
        return f"<PasswordGate with {self.waiting} questions waiting>"

    @property
    def waiting(self) -> int:
        """Questions without an answer."""
        return len(self._questions)

    def judge(self, authorization_untrusted: bytes | None, client: str) -> bool | Awaitable[bool]:
        """Whether the sender of this Authorization field may come in. `client` is who counts as one client.

        Raises TryLater where too many questions wait.
        """
        credentials = credentials_of(authorization_untrusted)
        if credentials is None or authorization_untrusted is None:
            return False
        if self._passwords.authenticator is not self._authenticator:
            self._follow_reload()
        user = credentials.user_untrusted
        hashed = self._authenticator.hash_of(user)
        # A hash holds no NUL and a name no colon, so the three cannot be cut differently.
        content = b"%b\0%b:%b" % (hashed or b"", user, credentials.password_untrusted)
        digest = hmac.digest(self._secret, content, "sha256")
        if hmac.compare_digest(self._verified.get(user, b""), digest):
            return True
        question = self._questions.get(digest)
        if question is None:
            question = _Question(self._authenticator, authorization_untrusted, user, digest)
        return self._wait(question, client)

    def close(self) -> None:
        """Cancel every request that waits, and end the threads once they have answered what they are at."""
        for question in list(self._questions.values()):
            for waiters in list(question.waiters.values()):
                for waiter in list(waiters):
                    waiter.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _follow_reload(self) -> None:
        """Forget users who are gone. The HMACs of the others cover their hashes, and so need no look."""
        self._authenticator = self._passwords.authenticator
        for user in [user for user in self._verified if self._authenticator.hash_of(user) is None]:
            del self._verified[user]

    # Questions

    def _wait(self, question: _Question, client: str) -> asyncio.Future[bool]:
        """The verdict's future for one more request. Raises TryLater."""
        waiters = question.waiters.get(client)
        if waiters is None:
            self._take_place(question, client)
            waiters = question.waiters[client] = set()
        waiter = self._loop.create_future()
        waiters.add(waiter)
        waiter.add_done_callback(lambda waiter: self._leave(question, client, waiter))
        self._run_next()
        return waiter

    def _take_place(self, question: _Question, client: str) -> None:
        is_new = question.digest not in self._questions
        held = self._questions_of_client.get(client, 0)
        if held >= MAX_QUESTIONS_OF_A_CLIENT or (is_new and len(self._questions) >= MAX_QUESTIONS):
            self.refused += 1
            raise TryLater("Too many passwords wait to be verified.", retry_after=RETRY_AFTER_SECONDS)
        self._questions_of_client[client] = held + 1
        self._questions[question.digest] = question
        if not question.running:
            self._turns.add(client, question)

    def _leave(self, question: _Question, client: str, waiter: asyncio.Future[bool]) -> None:
        """The request has its verdict, or was cancelled. With its last request a client gives up its place."""
        waiters = question.waiters.get(client)
        if waiters is None:
            return
        waiters.discard(waiter)
        if waiters:
            return
        del question.waiters[client]
        if not question.running:
            self._turns.remove(client, question)
        self._give_place_back(client)
        if not question.waiters:
            self._forget(question)

    def _give_place_back(self, client: str) -> None:
        self._questions_of_client[client] -= 1
        if not self._questions_of_client[client]:
            del self._questions_of_client[client]

    def _forget(self, question: _Question) -> None:
        if self._questions.get(question.digest) is question:
            del self._questions[question.digest]

    # Threads

    def _run_next(self) -> None:
        while self._idle_threads:
            question = self._turns.next()
            if question is None:
                return
            question.running = True
            self._idle_threads -= 1
            self._threads.submit(self._verify, question)

    def _verify(self, question: _Question) -> None:
        """On a thread. An error's text is not logged: it could hold what the client sent."""
        verdict: bool | None = None
        try:
            verdict = question.authenticator.verify(question.authorization_untrusted)
        except BaseException as error:  # a panic in bcrypt's Rust is no Exception
            _log.error("a password could not be verified: %s", type(error).__name__)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._answer, question, verdict)

    def _answer(self, question: _Question, verdict: bool | None) -> None:
        """None says that there is no verdict, by a fault that is not the client's."""
        self._idle_threads += 1
        if verdict and self._authenticator.hash_of(question.user_untrusted) is not None:
            self._verified[question.user_untrusted] = question.digest
        self._forget(question)
        waiting, question.waiters = question.waiters, {}
        for client, waiters in waiting.items():
            self._give_place_back(client)
            for waiter in waiters:
                if waiter.done():
                    continue
                if verdict is None:
                    failure = TryLater("Passwords cannot be verified now.", retry_after=RETRY_AFTER_SECONDS)
                    waiter.set_exception(failure)
                else:
                    waiter.set_result(verdict)
        self._run_next()
