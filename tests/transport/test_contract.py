"""What every transport does alike: whoever seals, what was sent arrives byte by byte, and what was posted in its order.

Real sockets with small buffers, so that nearly every write is a partial one; the peer opens the records by hand.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ktls_server.errors import ConnectionLost, FileChanged, FileUnreadable
from ktls_server.handshake.records import CLOSE_NOTIFY
from ktls_server.handshake.session import Session
from ktls_server.kernel.probe import KernelTls, probe
from ktls_server.keys.keylog import (
    CLIENT_RANDOM,
    CLIENT_TRAFFIC_SECRET_0,
    SERVER_TRAFFIC_SECRET_0,
    KeyLog,
    Tls12Secrets,
    Tls13Secrets,
)
from ktls_server.keys.suites import SUITES, TLS_1_3
from ktls_server.net.channel import Channel
from ktls_server.transport.choice import TransportPolicy, establish
from ktls_server.transport.interface import Transport
from ktls_server.transport.writer import EXHAUSTED
from tests.core.scripted import ClientOf, is_whole
from tests.keys.memory_tls import connect, split_records
from tests.server.site import content
from tests.tls.wire_client import ALERT, APPLICATION_DATA, HANDSHAKE

KINDS = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
]
KEY_UPDATE = (HANDSHAKE, b"\x18\0\0\1\0")
NO_RENEGOTIATION = b"\x01\x64"
FATAL = b"\x02\x0a"
NO_LIMIT = 1 << 24


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "path" in metafunc.fixturenames:
        # OpenSSL keeps to max_fragment_length by itself.
        ours = ["userspace"] if "short_records" in metafunc.function.__name__ else ["userspace", "openssl"]
        metafunc.parametrize("path", ["kernel"] if metafunc.config.getoption("--ktls-kernel") else ours)
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", KINDS)


class Ends:
    """A transport, and its peer, who reads when it is told to."""

    def __init__(self, path: str, kind: str, near: socket.socket, far: socket.socket) -> None:
        self.path, self._suite = path, SUITES[kind]
        self.near, self.far = near, far
        self.is_tls13 = self._suite.version == TLS_1_3
        self.counts: Counter[str] = Counter()
        self.wire = bytearray()

    def establish(self, *, record_limit: int = NO_LIMIT, max_plaintext_bytes: int = 1 << 14) -> Transport:
        with KeyLog() as key_log:
            handshake = connect(self._suite, key_log)
        logged = handshake.logged
        explicit = None
        if self._suite.has_explicit_nonce:
            finished = split_records(handshake.flights[-1])[-1]
            explicit = ((int.from_bytes(finished[5:13], "big") + 1) % (1 << 64)).to_bytes(8, "big")
        session = Session(
            tls=handshake.server.tls,
            incoming=handshake.server.incoming,
            outgoing=handshake.server.outgoing,
            version="TLSv1.3" if self.is_tls13 else "TLSv1.2",
            cipher=self._suite.name,
            suite=self._suite,
            secrets=Tls13Secrets(server=logged[SERVER_TRAFFIC_SECRET_0][1], client=logged[CLIENT_TRAFFIC_SECRET_0][1])
            if self.is_tls13
            else Tls12Secrets(logged[CLIENT_RANDOM][1], logged[CLIENT_RANDOM][0]),
            server_random=handshake.server_random,
            transmit_sequence=handshake.server_sequence,
            receive_sequence=handshake.client_sequence,
            transmit_explicit_nonce=explicit,
            max_plaintext_bytes=max_plaintext_bytes,
        )
        self.client = ClientOf(session)
        if self.path == "openssl":
            session = replace(session, secrets=None)
        kernel = probe() if self.path == "kernel" else KernelTls()
        policy = TransportPolicy(kernel, kernel.available, False, record_limit)
        transport = establish(Channel(self.near, asyncio.get_running_loop()), session, policy, self.counts)
        if self.path == "kernel" and (max_plaintext_bytes == 1 << 14 or kernel.payload_limit):
            assert transport.writer.path == "kernel"
        else:
            assert transport.writer.path == "userspace"
        self.transport = transport
        self.can_update = self.is_tls13 and (self.path == "userspace" or (self.path == "kernel" and kernel.rekey))
        return transport

    def suite_is_unlimited(self) -> bool:
        return "CHACHA20" in self._suite.name

    async def read_on(self) -> None:
        """Read until the stream ends."""
        while data := await asyncio.get_running_loop().sock_recv(self.far, 1 << 16):
            self.wire += data

    async def records(self) -> list[tuple[int, bytes]]:
        """All records, once the transport has sent its last."""
        self.transport.channel.close()
        self.transport.writer.close()
        await asyncio.wait_for(self.read_on(), 60)
        assert is_whole(bytes(self.wire)), "the stream ends within a record"
        return self.client.opened(bytes(self.wire))

    async def fill(self) -> bytes:
        """Write until the socket takes no more; returns what it took."""
        block, taken = content(100_000), b""
        for _ in range(1000):
            count = self.transport.writer.write(block)
            taken += block[:count]
            if count < len(block) or not self.transport.writer.flush():
                return taken
        raise AssertionError("the socket is never full")


@pytest.fixture
def ends(path: str, kind: str) -> Iterator[Ends]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        far.connect(listener.getsockname())
        near, _ = listener.accept()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
    for sock in (near, far):
        sock.setblocking(False)
    yield Ends(path, kind, near, far)
    near.close()
    far.close()


def data_of(records: list[tuple[int, bytes]]) -> bytes:
    return b"".join(piece for content_type, piece in records if content_type == APPLICATION_DATA)


def others(records: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    return [record for record in records if record[0] != APPLICATION_DATA]


async def test_bytes_and_files_of_all_sizes_arrive(ends: Ends, tmp_path: Path) -> None:
    writer = ends.establish().writer
    data = content(300_001)
    (tmp_path / "file").write_bytes(data)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    reading = asyncio.create_task(ends.read_on())
    expected = b""
    for size in (1, 100, 16384, 16385, 70_000):
        await writer.send(b"head", more=True)
        await writer.send_file(fd, size, size)
        await writer.send(data[:size])
        await writer.finish(data[:size], writer.write(data[:size], more=True), more=True)
        expected += b"head" + data[size : 2 * size] + data[:size] * 2
    await writer.send_file(fd, 0, len(data))
    os.close(fd)
    expected += data
    await writer.close_notify()
    ends.near.shutdown(socket.SHUT_WR)
    await asyncio.wait_for(reading, 60)
    records = await ends.records()
    assert data_of(records) == expected
    assert others(records) == [(ALERT, CLOSE_NOTIFY)]
    assert max(len(piece) for _, piece in records) <= 1 << 14
    assert records[0][1] == b"head" + data[1:2], "head and file share a record"


async def test_what_is_posted_comes_once_in_order_and_between_records(ends: Ends) -> None:
    """The peer does not read: a hundred requests for the same thing are one answer when it does."""
    writer = ends.establish().writer
    blocked: list[bool] = []
    writer.watch(blocked.append)
    expected = await ends.fill()
    for _ in range(100):
        if ends.is_tls13:
            writer.post_key_update()
        else:
            writer.post_warning(NO_RENEGOTIATION)
    assert writer.must_close == (ends.is_tls13 and not ends.can_update)
    writer.post_alert(CLOSE_NOTIFY)
    writer.post_alert(FATAL)
    reading = asyncio.create_task(ends.read_on())
    await asyncio.wait_for(writer.drain(), 60)
    await writer.close_notify()
    with pytest.raises(ConnectionLost):
        writer.write(b"too late")
    ends.near.shutdown(socket.SHUT_WR)
    await asyncio.wait_for(reading, 60)
    records = await ends.records()
    assert data_of(records) == expected
    # OpenSSL refuses renegotiations by itself.
    posted = [KEY_UPDATE] if ends.can_update else []
    if not ends.is_tls13 and ends.path != "openssl":
        posted = [(ALERT, NO_RENEGOTIATION)]
    # One may have begun its way when the others came: these make one more.
    assert others(records) in ([*posted, (ALERT, CLOSE_NOTIFY)], [*posted * 2, (ALERT, CLOSE_NOTIFY)])
    assert records[-1] == (ALERT, CLOSE_NOTIFY)
    if posted:
        assert blocked == [True, False]
    assert ends.counts["answer"] == others(records).count(KEY_UPDATE)
    assert ends.counts["refused"] == (ends.is_tls13 and not ends.can_update)


async def test_posts_while_a_response_is_being_sent(ends: Ends, tmp_path: Path) -> None:
    """Between records of it; and what comes after is under the new key."""
    writer = ends.establish().writer
    data = content(400_000)
    (tmp_path / "file").write_bytes(data)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    sending = asyncio.create_task(writer.send_file(fd, 0, len(data)))
    await asyncio.sleep(0)
    if ends.is_tls13:
        writer.post_key_update()
    else:
        writer.post_warning(NO_RENEGOTIATION)
    reading = asyncio.create_task(ends.read_on())
    await asyncio.wait_for(sending, 60)
    os.close(fd)
    await writer.send(b"next")
    await writer.close_notify()
    ends.near.shutdown(socket.SHUT_WR)
    await asyncio.wait_for(reading, 60)
    records = await ends.records()
    assert data_of(records) == data + b"next"
    if ends.can_update:
        assert others(records) == [KEY_UPDATE, (ALERT, CLOSE_NOTIFY)]
        assert records.index(KEY_UPDATE) < len(records) - 3, "it did not wait for the end of the file"


async def test_what_waits_for_more_goes_out_before_what_is_posted(ends: Ends) -> None:
    writer = ends.establish().writer
    await writer.send(b"held", more=True)
    await writer.close_notify()
    assert await ends.records() == [(APPLICATION_DATA, b"held"), (ALERT, CLOSE_NOTIFY)]


async def test_nothing_follows_a_fatal_alert(ends: Ends, tmp_path: Path) -> None:
    writer = ends.establish().writer
    (tmp_path / "file").write_bytes(b"file")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    await writer.send(b"before")
    writer.post_alert(FATAL)
    writer.post_key_update()
    with pytest.raises(ConnectionLost):
        await writer.send(b"after")
    with pytest.raises(ConnectionLost):
        await writer.send_file(fd, 0, 4)
    os.close(fd)
    await writer.close_notify()
    await writer.drain()
    records = await ends.records()
    assert data_of(records) == b"before"
    assert others(records) == ([] if ends.path == "openssl" else [(ALERT, FATAL)])


async def test_a_cancelled_sender_leaves_whole_records_for_the_next_word(ends: Ends) -> None:
    writer = ends.establish().writer
    data = content(1_000_000)
    sending = asyncio.create_task(writer.send(data))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not sending.done()
    sending.cancel()
    await asyncio.wait({sending})
    reading = asyncio.create_task(ends.read_on())
    await asyncio.wait_for(writer.close_notify(), 60)
    ends.near.shutdown(socket.SHUT_WR)
    await asyncio.wait_for(reading, 60)
    records = await ends.records()
    assert data.startswith(data_of(records))
    assert others(records) == [(ALERT, CLOSE_NOTIFY)]


async def test_a_drain_that_the_peer_never_lets_finish_ends_with_the_channel(ends: Ends) -> None:
    writer = ends.establish().writer
    await ends.fill()
    draining = asyncio.create_task(writer.close_notify())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not draining.done()
    draining.cancel()
    ends.transport.channel.reset()
    writer.close()
    await asyncio.wait({draining})
    assert draining.cancelled()


async def test_a_file_that_shrinks(ends: Ends, tmp_path: Path) -> None:
    writer = ends.establish().writer
    (tmp_path / "file").write_bytes(content(30_000))
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    reading = asyncio.create_task(ends.read_on())
    with pytest.raises(FileChanged):
        await writer.send_file(fd, 0, 30_001)
    os.close(fd)
    ends.near.shutdown(socket.SHUT_WR)
    await asyncio.wait_for(reading, 60)
    assert data_of(await ends.records()) == content(30_000)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
async def test_a_file_whose_reading_fails(ends: Ends, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    writer = ends.establish().writer

    def fail(*_arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    for name in ("pread", "preadv", "sendfile"):
        monkeypatch.setattr(os, name, fail)
    fd = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(FileUnreadable) as caught:
        await writer.send_file(fd, 0, 100)
    os.close(fd)
    assert caught.value.errno == code


async def test_short_records_for_a_client_that_asked_for_them(ends: Ends, tmp_path: Path) -> None:
    writer = ends.establish(max_plaintext_bytes=512).writer
    data = content(100_001)
    (tmp_path / "file").write_bytes(data)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    reading = asyncio.create_task(ends.read_on())
    await writer.send(b"head", more=True)
    await writer.send_file(fd, 0, len(data))
    os.close(fd)
    await writer.send(data)
    await writer.send(data[:511])
    await writer.send(data[:512])
    await writer.close_notify()
    ends.near.shutdown(socket.SHUT_WR)
    await asyncio.wait_for(reading, 60)
    records = await ends.records()
    assert data_of(records) == b"head" + data * 2 + data[:511] + data[:512]
    assert max(len(piece) for _, piece in records) == 512


async def test_the_limit_of_a_key(ends: Ends) -> None:
    """Where the key can change it does, in time. Else the connection is to close, and a response has some room left."""
    limit = 100
    writer = ends.establish(record_limit=limit).writer
    reading = asyncio.create_task(ends.read_on())
    sends = 0
    announced = 0
    try:
        while sends < 3 * limit:
            announced = announced or (sends if writer.must_close else 0)
            await writer.send(b"x")
            sends += 1
    except ConnectionLost:
        pass
    await writer.close_notify()
    ends.near.shutdown(socket.SHUT_WR)
    await asyncio.wait_for(reading, 60)
    records = await ends.records()
    assert data_of(records) == b"x" * sends
    updates = others(records).count(KEY_UPDATE)
    if ends.suite_is_unlimited():
        assert (sends, updates, announced) == (3 * limit, 0, 0)
    elif ends.can_update:
        assert (sends, announced) == (3 * limit, 0)
        assert updates >= 3
        assert ends.counts["limit"] == updates
    else:
        assert updates == 0
        assert announced == limit // 2  # a write is counted as two records
        assert sends == int((1 - EXHAUSTED) * limit) // 2
        assert EXHAUSTED > 1 - 2**0.5, "the AEAD's own limit lies there (RFC 9846 section 5.5)"
