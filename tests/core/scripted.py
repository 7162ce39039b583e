"""A socket and an event loop that follow a script, and a connection on top of them: no kernel, no time, no handshake.

The script says what each write meets (`takes`) and when the client's bytes come (`says`). What went out is decrypted with
a `RecordOpener` of its own, and every nonce that the server's keys were used with is noted.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import types
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, cast

from ktls_server.accesslog import LoggedConnection
from ktls_server.connection import Connection
from ktls_server.counters import Counters
from ktls_server.exchange import Handler, HttpVersion, Service
from ktls_server.handshake.session import Session
from ktls_server.http1.conversation import Http1
from ktls_server.kernel.probe import KernelTls
from ktls_server.keys.keylog import Tls12Secrets, Tls13Secrets
from ktls_server.keys.record_cipher import RecordOpener
from ktls_server.keys.schedule import next_traffic_secret, tls13_record_key
from ktls_server.keys.suites import TLS_1_3, CipherSuite
from ktls_server.net.channel import Channel
from ktls_server.operation.plain import refuse
from ktls_server.settings import Settings
from ktls_server.transport.choice import TransportPolicy, establish
from ktls_server.transport.interface import Transport
from tests.keys.memory_tls import split_records
from tests.tls.wire_client import HANDSHAKE, KEY_UPDATE, RecordSealer, key_update

BLOCK: Final = 0
"""The next write finds the socket full; the loop says `writable` in its next turn."""
NEVER_AGAIN: Final = -2
"""The socket is full from now on: the client does not read."""
RESET: Final = -1
"""The client resets the connection here."""


class ScriptedLoop:
    """As much of an event loop as `Channel` and `Connection` ask for."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.sock: ScriptedSocket | None = None
        self.reader: Callable[[], object] | None = None
        self.writer: Callable[[], object] | None = None

    def create_future(self) -> asyncio.Future[None]:
        return self._loop.create_future()

    def create_task(self, coroutine: Any) -> asyncio.Task[None]:
        return self._loop.create_task(coroutine)

    def add_reader(self, _fd: int, callback: Callable[[], object]) -> None:
        self.reader = callback
        self.look()

    def remove_reader(self, _fd: int) -> None:
        self.reader = None

    def add_writer(self, _fd: int, callback: Callable[[], object]) -> None:
        self.writer = callback
        self.look()

    def remove_writer(self, _fd: int) -> None:
        self.writer = None

    def look(self) -> None:
        """As epoll: whatever is ready is told in the next turn, and again while it stays ready."""
        self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        sock = self.sock
        if sock is None or sock.closed:
            assert self.reader is None, "a closed socket is still watched"
            assert self.writer is None, "a closed socket is still watched"
            return
        if self.reader is not None and sock.is_readable():
            self.reader()
            self.look()
        if self.writer is not None and not sock.is_full():
            self.writer()
            self.look()


class ScriptedSocket:
    """What `Channel` asks of a socket. `takes`: how many bytes each write takes, or BLOCK, RESET, NEVER_AGAIN; then all."""

    def __init__(self, loop: ScriptedLoop, takes: list[int], *, fin: bool = True) -> None:
        self._loop = loop
        self._fd = os.open("/dev/null", os.O_RDONLY)
        loop.sock = self
        self.takes = takes
        self.incoming: list[bytes] = []
        self.fin = fin
        self.closed = self.reset = self.write_ended = False
        self.sent = bytearray()
        self.writes = 0

    def fileno(self) -> int:
        return self._fd

    def says(self, data: bytes) -> None:
        self.incoming.append(data)
        self._loop.look()

    def is_readable(self) -> bool:
        return bool(self.incoming) or self.fin or self.reset

    def is_full(self) -> bool:
        return bool(self.takes) and self.takes[0] == NEVER_AGAIN

    def send(self, data: bytes | memoryview, _flags: int = 0) -> int:
        assert not self.closed, "a write to a closed socket"
        assert not self.write_ended, "a write after the end of the stream"
        self.writes += 1
        takes = self.takes.pop(0) if self.takes else len(data)
        if takes == NEVER_AGAIN:
            self.takes.insert(0, NEVER_AGAIN)
            raise BlockingIOError(errno.EAGAIN, "full")
        if takes == RESET or self.reset:
            self.reset = True
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        if takes == BLOCK:
            raise BlockingIOError(errno.EAGAIN, "full")
        taken = bytes(data[:takes])
        self.sent += taken
        return len(taken)

    def recv_into(self, buffer: memoryview) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def recv(self, size: int, flags: int = 0) -> bytes:
        assert not self.closed, "a read from a closed socket"
        if self.reset:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        if not self.incoming:
            if self.fin:
                return b""
            raise BlockingIOError(errno.EAGAIN, "nothing has come")
        data = self.incoming[0][:size]
        if not flags & socket.MSG_PEEK:
            rest = self.incoming.pop(0)[size:]
            if rest:
                self.incoming.insert(0, rest)
        return data

    def recvmsg(self, size: int, _space: int) -> tuple[bytes, list[object], int, None]:
        return self.recv(size), [], 0, None

    def getsockopt(self, _level: int, option: int, size: int = 0) -> int | bytes:
        return bytes(size) if size else 0

    def setsockopt(self, *_arguments: object) -> None:
        """SO_LINGER."""

    def shutdown(self, _how: int) -> None:
        self.write_ended = True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._fd)


class _NoTls:
    """Stands for the SSLObject, which has nothing to do any more but to be let go."""

    def unwrap(self) -> None:
        raise ssl.SSLWantReadError


def session_of(suite: CipherSuite, **further: Any) -> Session:
    """A session whose secrets are known, as a handshake leaves it."""
    tls13 = suite.version == TLS_1_3
    size = 48 if "SHA384" in suite.name else 32
    return Session(
        tls=cast(ssl.SSLObject, _NoTls()),
        incoming=ssl.MemoryBIO(),
        outgoing=ssl.MemoryBIO(),
        version="TLSv1.3" if tls13 else "TLSv1.2",
        cipher=suite.name,
        suite=suite,
        secrets=Tls13Secrets(server=b"s" * size, client=b"c" * size) if tls13 else Tls12Secrets(b"m" * 48, b"r" * 32),
        server_random=b"R" * 32,
        transmit_sequence=2 if tls13 else 1,
        receive_sequence=0 if tls13 else 1,
        transmit_explicit_nonce=b"\xff" * 8 if suite.has_explicit_nonce else None,
        **further,
    )


class ClientOf:
    """The client's side of a session: seals what it says, and opens what went out."""

    def __init__(self, session: Session) -> None:
        assert session.suite is not None
        self._suite = session.suite
        self._secrets = session.secrets
        self._server_key, self._sequence = session.server_key(), session.transmit_sequence
        self._client_secret = session.secrets.client if isinstance(session.secrets, Tls13Secrets) else b""
        self.sealer = RecordSealer(session.suite, session.client_key(), session.receive_sequence)

    def seal(self, content: bytes, content_type: int = 23, *, padding: int = 0) -> bytes:
        return self.sealer.seal(content_type, content, padding=padding)

    def key_update(self, *, requested: bool) -> bytes:
        """The record, after which the client has another key."""
        record = self.seal(key_update(requested=requested), HANDSHAKE)
        self.next_key()
        return record

    def next_key(self) -> None:
        self._client_secret = next_traffic_secret(self._suite, self._client_secret)
        self.sealer = RecordSealer(self._suite, tls13_record_key(self._suite, self._client_secret), 0)

    def opened(self, wire: bytes) -> list[tuple[int, bytes]]:
        """Every whole record of `wire`. The last record may be cut; all others have to open, in sequence."""
        opener = RecordOpener(self._suite, self._server_key, self._sequence)
        secret = self._secrets.server if isinstance(self._secrets, Tls13Secrets) else b""
        records = []
        for record in split_records(wire):
            if len(record) < 5 or len(record) < 5 + int.from_bytes(record[3:5], "big"):
                break
            content_type, content = opener.open(record)
            records.append((content_type, content))
            if content_type == HANDSHAKE and content[0] == KEY_UPDATE:
                secret = next_traffic_secret(self._suite, secret)
                opener = RecordOpener(self._suite, tls13_record_key(self._suite, secret), 0)
        return records


def is_whole(wire: bytes) -> bool:
    """Whether the last record is not cut."""
    return sum(map(len, split_records(wire))) == len(wire) and (
        not wire or len(split_records(wire)[-1]) == 5 + int.from_bytes(split_records(wire)[-1][3:5], "big")
    )


class Scene:
    """One connection over a scripted socket, from the end of its handshake on."""

    def __init__(
        self, suite: CipherSuite, handler: Handler, takes: list[int], *, fin: bool = True, **further: Any
    ) -> None:
        self.loop = ScriptedLoop()
        self.sock = ScriptedSocket(self.loop, takes, fin=fin)
        session = session_of(suite, **further)
        self.client = ClientOf(session)
        self._session = session
        self.counters = Counters()
        self.service = Service(
            settings=Settings(),
            handler=handler,
            refuse=refuse,
            counters=self.counters,
            responses=Counter(),
            body_bytes=Counter(),
            access_log=None,
        )
        self.connection = Connection(
            self.service,
            self._begin,
            cast(socket.socket, self.sock),
            "192.0.2.1",
            cast(asyncio.AbstractEventLoop, self.loop),
        )

    async def _begin(self, address: str, channel: Channel) -> tuple[Transport, LoggedConnection, HttpVersion]:
        await asyncio.sleep(0)  # as a handshake waits
        policy = TransportPolicy(KernelTls(), False, False, 1 << 24)
        transport = establish(channel, self._session, policy, self.counters.key_updates)
        return transport, LoggedConnection(address, "", "", "userspace"), Http1()

    def start(self, at_await: Callable[[asyncio.Task[None]], object] | None = None) -> asyncio.Task[None]:
        """Begin; `at_await` is called at each await of the connection, with its task."""
        if at_await is None:
            return self.connection.start(cast(asyncio.AbstractEventLoop, self.loop))
        run = self.connection.run()
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(_run_watched(run, lambda: at_await(task)))
        self.connection._task = task

        def forget(_task: asyncio.Task[None]) -> None:
            self.connection.release()
            run.close()

        task.add_done_callback(forget)
        return task

    def opened(self) -> list[tuple[int, bytes]]:
        return self.client.opened(bytes(self.sock.sent))

    def data(self) -> bytes:
        return b"".join(content for content_type, content in self.opened() if content_type == 23)

    def assert_over(self) -> None:
        """The socket is closed, and nobody knows of the connection any more."""
        assert self.sock.closed
        assert {stage: len(watched) for stage, watched in self.service.stages.items() if len(watched)} == {}
        assert len(self.service.blocked) == 0
        assert self.loop.reader is None
        assert self.loop.writer is None


async def _run_watched(run: Awaitable[None], at_await: Callable[[], object]) -> None:
    await _watched(run, at_await)


@types.coroutine
def _watched(awaitable: Awaitable[None], at_await: Callable[[], object]) -> Generator[Any, Any, None]:
    """Runs `awaitable`; calls `at_await` each time that it is about to wait."""
    steps = awaitable.__await__()
    go_on: Callable[[], Any] = lambda: next(steps)  # noqa: E731
    while True:
        try:
            waits_for = go_on()
        except StopIteration:
            return
        at_await()
        try:
            yield waits_for
        except BaseException as error:
            thrown = error
            go_on = lambda: steps.throw(thrown)  # noqa: B023, E731
        else:
            go_on = lambda: next(steps)  # noqa: E731


class Nonces:
    """Every nonce of every key that was used to seal; one that comes twice fails the test."""

    def __init__(self) -> None:
        self.used: set[tuple[bytes, bytes]] = set()

    def wrap(self, make: Callable[[CipherSuite, bytes], Any]) -> Callable[[CipherSuite, bytes], Any]:
        def aead(suite: CipherSuite, key: bytes) -> Any:
            return _NotingAead(make(suite, key), key, self.used)

        return aead


class _NotingAead:
    def __init__(self, aead: Any, key: bytes, used: set[tuple[bytes, bytes]]) -> None:
        self._aead, self._key, self._used = aead, key, used
        self.decrypt = aead.decrypt

    def encrypt_into(self, nonce: bytes, *arguments: Any) -> int:
        assert (self._key, bytes(nonce)) not in self._used, "a nonce was used twice"
        self._used.add((self._key, bytes(nonce)))
        return cast(int, self._aead.encrypt_into(nonce, *arguments))
