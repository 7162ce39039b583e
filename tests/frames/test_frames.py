"""Frames over files: headers from memory, payloads from a file, byte for byte, in full records, whoever encrypts."""

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ktls_server.errors import FrameSpoilt
from ktls_server.handshake.session import Session
from ktls_server.kernel.probe import KernelTls, probe
from ktls_server.keys.keylog import CLIENT_TRAFFIC_SECRET_0, SERVER_TRAFFIC_SECRET_0, KeyLog, Tls13Secrets
from ktls_server.keys.record_cipher import RecordOpener
from ktls_server.keys.suites import SUITES
from ktls_server.net.channel import Channel
from ktls_server.transport.choice import TransportPolicy, establish
from ktls_server.transport.interface import Frame, Transport
from tests.keys.memory_tls import connect, split_records
from tests.server.conftest import paths_to_test
from tests.server.site import content

SUITE = SUITES["TLS_AES_128_GCM_SHA256"]
FULL = 16384 - 9
"""Payload of a frame that fills a record together with its header of nine bytes."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "path" in metafunc.fixturenames:
        metafunc.parametrize("path", paths_to_test(metafunc.config))


class Peer(threading.Thread):
    """Reads all that comes, and opens it."""

    def __init__(self, sock: socket.socket, opener: RecordOpener) -> None:
        super().__init__(daemon=True)
        self._sock, self._opener = sock, opener
        self.wire = bytearray()
        self.may_read = threading.Event()
        self.may_read.set()
        self.start()

    def run(self) -> None:
        # Some tests reset the connection, or end while this still reads.
        with contextlib.suppress(OSError):
            while data := self._sock.recv(1 << 16):
                self.wire += data
                self.may_read.wait()

    def records(self) -> list[bytes]:
        """The content of every record, once the stream has ended."""
        self.join(60)
        assert not self.is_alive()
        opened = [self._opener.open(record) for record in split_records(bytes(self.wire))]
        assert {content_type for content_type, _ in opened} <= {23}
        return [data for _, data in opened]


@dataclass
class Ends:
    transport: Transport
    peer: Peer

    def finish(self) -> list[bytes]:
        self.transport.channel.close()
        self.transport.writer.close()
        return self.peer.records()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    near.setblocking(False)
    yield near, far
    near.close()
    far.close()


@pytest.fixture
async def ends(path: str, pair: tuple[socket.socket, socket.socket]) -> Ends:
    with KeyLog() as key_log:
        connection = connect(SUITE, key_log)
    logged = connection.logged
    session = Session(
        tls=connection.server.tls,
        incoming=connection.server.incoming,
        outgoing=connection.server.outgoing,
        version="TLSv1.3",
        cipher=SUITE.name,
        suite=SUITE,
        secrets=Tls13Secrets(server=logged[SERVER_TRAFFIC_SECRET_0][1], client=logged[CLIENT_TRAFFIC_SECRET_0][1]),
        server_random=connection.server_random,
        transmit_sequence=connection.server_sequence,
    )
    opener = RecordOpener(SUITE, session.server_key(), session.transmit_sequence)
    kernel = probe() if path == "kernel" else KernelTls()
    channel = Channel(pair[0], asyncio.get_running_loop())
    policy = TransportPolicy(kernel, kernel.available, False, 1 << 24)
    transport = establish(channel, session, policy)
    assert transport.writer.path == path
    return Ends(transport, Peer(pair[1], opener))


def frames_of(sizes: list[int]) -> list[Frame]:
    return [Frame(b"header %02d" % (number % 100), size) for number, size in enumerate(sizes)]


def expected(frames: list[Frame], data: bytes) -> bytes:
    pieces: list[bytes] = []
    position = 0
    for header, size in frames:
        pieces += (header, data[position : position + size])
        position += size
    return b"".join(pieces)


async def send_all(transport: Transport, frames: list[Frame], fd: int) -> None:
    offset = 0
    while frames:
        sent = await transport.writer.send_frames(frames, fd, offset)
        assert 1 <= sent <= len(frames)
        offset += sum(frame.payload_bytes for frame in frames[:sent])
        frames = frames[sent:]


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([FULL] * 200, id="many full records"),
        pytest.param([1], id="one byte"),
        pytest.param([1, 2, 16384, 5000, FULL, 3] * 20, id="of all sizes"),
        pytest.param([FULL] * 3 + [100_000, 1_000_000, 7], id="larger than a record"),
    ],
)
async def test_frames_arrive_whole_and_in_order(ends: Ends, tmp_path: Path, sizes: list[int]) -> None:
    data = content(sum(sizes))
    (tmp_path / "file").write_bytes(data)
    frames = frames_of(sizes)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    await send_all(ends.transport, frames, fd)
    os.close(fd)
    records = ends.finish()
    assert b"".join(records) == expected(frames, data)
    if set(sizes) == {FULL}:
        assert {len(record) for record in records} == {16384}, "header and payload share one record"


@pytest.mark.parametrize("left", [0, 5000, FULL, 3 * FULL + 1, 20 * FULL - 1])
async def test_a_file_that_ends_early_spoils_one_frame_and_nothing_behind_it(
    ends: Ends, tmp_path: Path, left: int
) -> None:
    """The frame is completed with zeros: the connection goes on, the stream has to be reset."""
    frames = frames_of([FULL] * 20)
    data = content(left)
    (tmp_path / "file").write_bytes(data)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    offset, sent_before = 0, 0
    spoilt = None
    while spoilt is None:
        try:
            sent = await ends.transport.writer.send_frames(frames[sent_before:], fd, offset)
        except FrameSpoilt as error:
            spoilt = error
        else:
            sent_before += sent
            offset += sent * FULL
    os.close(fd)
    complete = sent_before + spoilt.sent
    assert complete == left // FULL + 1
    assert spoilt.errno == 0
    await ends.transport.writer.send(b"the next frame")
    records = ends.finish()
    kept = expected(frames[:complete], data.ljust(complete * FULL, b"\0"))
    assert b"".join(records) == kept + b"the next frame"


async def test_a_file_that_cannot_be_read_spoils_one_frame(
    ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(content(FULL))
    fd = os.open(tmp_path / "file", os.O_WRONLY)  # EBADF for whoever reads
    with pytest.raises(FrameSpoilt) as caught:
        await ends.transport.writer.send_frames(frames_of([FULL]), fd, 0)
    os.close(fd)
    assert caught.value.errno != 0
    records = ends.finish()
    assert b"".join(records) == b"header 00" + bytes(FULL)


async def test_a_pipe_that_holds_bytes_of_one_connection_is_never_given_to_another(path: str, ends: Ends) -> None:
    """The peer reads nothing and the connection is cut: what was in the pipe goes with it."""
    ends.peer.may_read.clear()
    descriptors = len(os.listdir("/proc/self/fd"))
    fd = os.memfd_create("file")
    os.write(fd, content(8 << 20))
    sending = asyncio.ensure_future(send_all(ends.transport, frames_of([FULL] * 500), fd))
    _, pending = await asyncio.wait([sending], timeout=1)
    assert pending, "the socket buffers of both ends hold less than eight megabytes"
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    ends.transport.channel.reset()
    ends.transport.writer.close()
    os.close(fd)
    ends.peer.may_read.set()
    # Of the connection's socket and its pipe nothing is left.
    assert len(os.listdir("/proc/self/fd")) == descriptors - 1
