"""Servers as processes, with all that an operator does to them, and small clients that keep count of what they got."""

import asyncio
import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ktls_server import certificates
from tests.waiting import WAIT_SECONDS, eventually


@dataclass(frozen=True)
class Place:
    """What is served, by which certificate, and where output goes."""

    site: Path
    certificate: Path
    key: Path
    scratch: Path

    @classmethod
    def make(cls, folder: Path) -> "Place":
        (folder / "site").mkdir()
        (folder / "tls").mkdir(mode=0o755)
        (folder / "site" / "hello.txt").write_bytes(b"hello")
        (folder / "site" / "middle.bin").write_bytes(bytes(range(256)) * 120)
        with (folder / "site" / "large.bin").open("wb") as large:
            large.truncate(64 * 1024 * 1024)
        pair = certificates.certificate_in(folder / "tls", ("localhost",))
        return cls(folder / "site", pair.cert, pair.key, folder)


@dataclass
class Running:
    """One server, supervisor or single process. Ended with `stop`, or killed on leaving the `with` block."""

    place: Place
    process: subprocess.Popen[bytes]
    facts: dict[str, list[str]]
    errors_path: Path
    context: ssl.SSLContext = field(init=False)

    def __post_init__(self) -> None:
        self.context = ssl.create_default_context(cafile=str(self.place.certificate))

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def port(self) -> int:
        return self._port("url")

    @property
    def redirect_port(self) -> int:
        return self._port("redirect")

    @property
    def metrics_port(self) -> int:
        return self._port("metrics")

    def _port(self, fact: str) -> int:
        return int(self.facts[fact][0].split("/")[2].rpartition(":")[2])

    def errors(self) -> str:
        return self.errors_path.read_text()

    def workers(self) -> list[int]:
        """The processes of the workers, by what the kernel says."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(child) for child in children]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(WAIT_SECONDS)

    def stop(self) -> None:
        """SIGTERM, and a server that had a good life says nothing and ends with 0."""
        self.signal(signal.SIGTERM)
        assert self.wait() == 0, self.errors()
        assert "Traceback" not in self.errors(), self.errors()
        assert "Warning" not in self.errors(), self.errors()


@contextlib.contextmanager
def running(
    place: Place,
    *options: str,
    prefix: Sequence[str] = (),
    environment: dict[str, str] | None = None,
    port: int | None = 0,
    pass_fds: Sequence[int] = (),
    descriptors: int | None = None,
) -> Iterator[Running]:
    """Start a server and wait until it announces itself; whatever happens, no process stays behind.

    `prefix` is a command that runs the server's, `descriptors` a limit on open files.
    """
    number = len(list(place.scratch.glob("*.errors")))
    output_path, errors_path = place.scratch / f"{number}.output", place.scratch / f"{number}.errors"
    command = [*prefix, sys.executable, "-m", "ktls_server", "serve", str(place.site)]
    if port is not None:
        command += ["--port", str(port)]
    command += ["--cert", str(place.certificate), "--key", str(place.key), "--access-log", "off", *options]
    if descriptors is not None:
        command = ["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh", *command]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KTLS_SERVER_")}
    with output_path.open("wb") as output, errors_path.open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**inherited, "PYTHONWARNINGS": "always", **(environment or {})},
            pass_fds=pass_fds,
        )
    try:
        eventually(
            lambda: "\ncertificate: " in output_path.read_text() or process.poll() is not None,
            "the announcement",
        )
        assert process.poll() is None, errors_path.read_text()
        facts: dict[str, list[str]] = {}
        for line in output_path.read_text().splitlines():
            key, _, value = line.partition(": ")
            facts.setdefault(key, []).append(value)
        yield Running(place, process, facts, errors_path)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


class Cut(Exception):
    """A response that was due did not come, or not to its end."""


@dataclass
class Connection:
    """One keep-alive connection of a client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def get(self, path: str, *, close: bool = False) -> tuple[int, bytes, bool]:
        """Status, body, and whether the server says that it closes. Raises Cut."""
        self.ask(path, close=close)
        return await self.answer()

    def ask(self, path: str, *, close: bool = False) -> None:
        extra = "Connection: close\r\n" if close else ""
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode())

    async def answer(self) -> tuple[int, bytes, bool]:
        """The next response. Raises Cut."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", head)
            assert length is not None, head
            body = await self.reader.readexactly(int(length[1]))
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Cut(repr(error)) from error
        return int(head[9:12]), body, b"\r\nconnection: close\r\n" in head.lower()

    async def closed(self) -> bool:
        """Wait for the end of the stream; False where more came before it."""
        try:
            return not await asyncio.wait_for(self.reader.read(1), WAIT_SECONDS)
        except OSError:
            return True

    def abort(self) -> None:
        self.writer.transport.abort()


async def connect(server: Running, *, source: str | None = None) -> Connection:
    """Raises OSError (ssl.SSLError is one) where the server does not let it in."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1",
        server.port,
        ssl=server.context,
        server_hostname="localhost",
        local_addr=None if source is None else (source, 0),
    )
    return Connection(reader, writer)


async def fetch(server: Running, path: str = "/hello.txt", *, source: str | None = None) -> bytes:
    """One request on a connection of its own, as a normal client makes it."""
    connection = await connect(server, source=source)
    status, body, _closes = await connection.get(path, close=True)
    connection.abort()
    assert status == 200, status
    return body


def scrape(port: int, path: str = "/metrics") -> tuple[int, str]:
    """Status and text of the metrics endpoint."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=WAIT_SECONDS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metric(text: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    total = 0.0
    for line in text.splitlines():
        match = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if match is None or match[1] != name:
            continue
        found = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
        if labels.items() <= found.items():
            total += float(match[3])
    return total
