"""The server over HTTP/2: the same answers as over HTTP/1.1, byte for byte, and hostile clients that harm only themselves."""

import contextlib
import os
import signal
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import httpx
import pytest

from tests.server.clients import client_context
from tests.server.conftest import cache, kernel_tls, paths_to_test, servers, site, start_server
from tests.server.running import KeyedSockets, Server, Variant
from tests.server.site import SIZES, SMALL, content
from tests.waiting import WAIT_SECONDS, eventually

__all__ = ["cache", "kernel_tls", "servers", "site", "start_server"]

StartServer = Callable[[Variant], Server]
MEBIBYTE = 1 << 20


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "variant" in metafunc.fixturenames:
        paths = ("kernel",) if metafunc.config.getoption("--ktls-kernel") else paths_to_test(metafunc.config)
        variants = [Variant(path, loop, ("--http2",)) for path in paths for loop in ("uvloop", "asyncio")]
        metafunc.parametrize("variant", variants, ids=str, scope="session")


@pytest.fixture
def server(servers: Callable[[Variant], Server], variant: Variant) -> Iterator[Server]:
    """The server of this variant, unharmed before and after."""
    server = servers(variant)
    yield server
    server.assert_unharmed()


def offering(server: Server, *protocols: str) -> ssl.SSLContext:
    context = client_context(server)
    context.set_alpn_protocols(list(protocols))
    return context


@pytest.fixture
def browser(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(http2=True, verify=offering(server, "h2"), timeout=WAIT_SECONDS) as client:
        yield client


class Raw:
    """A connection whose frames are the test's, by h2 or by hand."""

    def __init__(self, server: Server, *, receive_buffer: int = 0, window: int | None = None) -> None:
        raw = socket.socket()
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(WAIT_SECONDS)
        raw.connect(("127.0.0.1", server.port))
        self.tls = offering(server, "h2").wrap_socket(raw, server_hostname="localhost")
        assert self.tls.selected_alpn_protocol() == "h2"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.flush()

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.tls.close()

    def flush(self) -> None:
        self.tls.sendall(self.h2.data_to_send())

    def get(self, path: str, stream: int = 1) -> None:
        self.h2.send_headers(
            stream,
            [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", path)],
            end_stream=True,
        )
        self.flush()

    def flush_quietly(self) -> None:
        with contextlib.suppress(OSError):
            self.flush()

    def until(self, kind: type, stream: int | None = None) -> h2.events.Event:
        while True:
            data = self.tls.recv(65536)
            assert data, f"the connection ended before {kind.__name__}"
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None)):
                    self.flush_quietly()
                    return event
            self.flush_quietly()


def test_alpn_chooses(server: Server) -> None:
    for offered, expected in ((("h2", "http/1.1"), "h2"), (("http/1.1",), "http/1.1")):
        context = offering(server, *offered)
        with (
            socket.create_connection(("127.0.0.1", server.port)) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as tls,
        ):
            assert tls.selected_alpn_protocol() == expected


def test_files_listings_errors_and_conditions(server: Server, browser: httpx.Client) -> None:
    keyed = KeyedSockets()
    small = browser.get(server.url("/small.txt"))
    assert (small.http_version, small.status_code, small.content) == ("HTTP/2", 200, SMALL)
    assert browser.get(server.url("/small.txt"), headers={"if-none-match": small.headers["etag"]}).status_code == 304
    assert browser.head(server.url("/1048576.bin")).headers["content-length"] == str(MEBIBYTE)
    assert browser.get(server.url("/nothing")).status_code == 404
    assert browser.post(server.url("/small.txt"), content=b"x" * 200_000).status_code == 405
    ranged = browser.get(server.url("/1048576.bin"), headers={"range": "bytes=1000-99999"})
    assert (ranged.status_code, ranged.content) == (206, content(MEBIBYTE)[1000:100_000])
    several = browser.get(server.url("/1048576.bin"), headers={"range": "bytes=0-9,1000000-1000009"})
    assert several.status_code == 206
    assert content(MEBIBYTE)[1_000_000:1_000_010] in several.content
    keyed.expect_transmit(server, 1)


@pytest.mark.parametrize("size", SIZES)
def test_files_of_every_size_are_exact(server: Server, browser: httpx.Client, size: int) -> None:
    assert browser.get(server.url(f"/{size}.bin")).content == content(size)


def test_a_large_file_is_exact_and_others_get_through_meanwhile(server: Server, browser: httpx.Client) -> None:
    size = 24 * MEBIBYTE
    data = content(size)
    (server.directory / "large-h2.bin").write_bytes(data)
    with browser.stream("GET", server.url("/large-h2.bin")) as large:
        pieces = large.iter_bytes()
        received = [next(pieces)]
        assert browser.get(server.url("/small.txt")).content == SMALL
        received.extend(pieces)
    assert b"".join(received) == data
    (line,) = server.logged("/large-h2.bin")
    assert (line["status"], line["bytes"]) == (200, size)
    (server.directory / "large-h2.bin").unlink()


def test_many_streams_at_once(server: Server) -> None:
    with Raw(server) as client:
        streams = range(1, 161, 2)
        for stream in streams:
            client.get("/16385.bin", stream)
        received = dict.fromkeys(streams, 0)
        open_streams = set(streams)
        while open_streams:
            data = client.tls.recv(65536)
            assert data
            for event in client.h2.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    received[event.stream_id] += len(event.data)
                    client.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    open_streams.remove(event.stream_id)
            client.flush()
    assert set(received.values()) == {16385}


def test_a_file_that_shrinks_ends_its_stream_and_not_the_connection(server: Server) -> None:
    original = content(16 * MEBIBYTE)
    file = server.directory / f"shrinks-{os.urandom(8).hex()}.bin"
    file.write_bytes(original)
    with Raw(server, receive_buffer=65536) as client:
        client.get(f"/{file.name}", 1)
        received = b""
        is_cut = False
        while True:
            data = client.tls.recv(65536)
            assert data
            ended = False
            for event in client.h2.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    received += event.data
                    client.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    if not is_cut and len(received) > MEBIBYTE:
                        os.truncate(file, MEBIBYTE)
                        is_cut = True
                assert not isinstance(event, h2.events.StreamEnded), "a cut file must not look complete"
                ended = ended or isinstance(event, h2.events.StreamReset)
            client.flush_quietly()
            if ended:
                break
        client.get("/small.txt", 3)
        client.until(h2.events.StreamEnded, 3)
    file.unlink()


def test_a_window_that_is_never_opened_ends_its_stream_or_its_connection(
    start_server: StartServer, variant: Variant
) -> None:
    server = start_server(Variant(variant.path, variant.loop, ("--http2", "--send-timeout", "1")))
    with Raw(server, window=0) as client:
        client.get("/1048576.bin", 1)
        client.until(h2.events.ResponseReceived, 1)
        with contextlib.suppress(ConnectionResetError, ssl.SSLError):
            while client.tls.recv(65536):
                pass
    eventually(lambda: len(server.logged("/1048576.bin")) == 1, "the exchange is over")


REQUEST_BLOCK = bytes.fromhex("828784") + b"\x41\x09localhost"
"""GET, https, / and the authority (RFC 7541: static table and a literal)."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def flood(attack: str) -> Iterator[bytes]:
    """Frames without an end, a hundred at a time."""
    if attack == "continuation":
        yield frame(1, 0, 1, REQUEST_BLOCK)
    if attack == "empty data":
        yield frame(1, 4, 1, bytes.fromhex("838784") + b"\x41\x09localhost")
    stream = 1
    while True:
        match attack:
            case "rapid reset":
                yield frame(1, 5, stream, REQUEST_BLOCK) + frame(3, 0, stream, bytes((0, 0, 0, 8)))
                stream += 2
            case "ping":
                yield frame(6, 0, 0, b"12345678") * 100
            case "settings":
                yield frame(4, 0, 0, b"") * 100
            case "continuation":
                yield frame(9, 0, 1, b"")
            case _:
                yield frame(0, 0, 1, b"") * 100


@pytest.mark.parametrize("attack", ["rapid reset", "ping", "settings", "continuation", "empty data"])
def test_a_flood_ends_its_connection_and_nobody_elses(server: Server, browser: httpx.Client, attack: str) -> None:
    assert browser.get(server.url("/small.txt")).status_code == 200
    received = b""
    with (
        socket.create_connection(("127.0.0.1", server.port)) as raw,
        offering(server, "h2").wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        tls.settimeout(0.01)
        for frames in flood(attack):
            try:
                tls.sendall(frames)
                data = tls.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            received += data
            if not data:
                break
    assert received, "SETTINGS at least came before the end"
    assert browser.get(server.url("/small.txt")).content == SMALL


def test_a_client_that_vanishes_in_the_middle_leaves_nothing(server: Server) -> None:
    for _ in range(5):
        client = Raw(server, receive_buffer=65536)
        for stream in (1, 3, 5):
            client.get("/sparse.bin", stream)
        client.until(h2.events.DataReceived)
        client.tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.tls.close()


def test_a_stop_finishes_what_is_in_hand_and_says_goaway(start_server: StartServer, variant: Variant) -> None:
    server = start_server(variant)
    size = 24 * MEBIBYTE
    (server.directory / "stopped-h2.bin").write_bytes(content(size))
    window = struct.pack(">HI", 4, 2**31 - 1)
    with (
        socket.create_connection(("127.0.0.1", server.port)) as raw,
        offering(server, "h2").wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        tls.settimeout(WAIT_SECONDS)
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, window))
        tls.sendall(frame(8, 0, 0, struct.pack(">I", 2**31 - 65536)))
        block = bytes.fromhex("8287") + b"\x04\x0f/stopped-h2.bin" + b"\x41\x09localhost"
        tls.sendall(frame(1, 5, 1, block))
        received = tls.recv(1)
        os.kill(server.pid, signal.SIGTERM)
        while data := tls.recv(65536):
            received += data
            if b"shutdown" in data:
                tls.sendall(frame(6, 1, 0, b"shutdown"))
    (server.directory / "stopped-h2.bin").unlink()
    kinds, body, ended = [], 0, False
    while received:
        length, kind, flags = int.from_bytes(received[:3], "big"), received[3], received[4]
        kinds.append(kind)
        body += length if kind == 0 else 0
        ended = ended or (kind == 0 and bool(flags & 1))
        received = received[9 + length :]
    assert (body, ended) == (size, True), "what was in hand is finished"
    assert kinds.count(7) >= 1, "GOAWAY"


def test_curl_gets_a_file(server: Server, tmp_path: Path) -> None:
    arguments = ["curl", "--silent", "--http2", "--cacert", str(server.certificate), "--write-out", "%{http_version}"]
    arguments += ["--output", str(tmp_path / "got"), server.url("/1048576.bin")]
    version = subprocess.run(arguments, capture_output=True, check=True, timeout=WAIT_SECONDS).stdout
    assert version == b"2"
    assert (tmp_path / "got").read_bytes() == content(MEBIBYTE)
