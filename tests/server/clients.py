"""Clients: Python's `ssl` on a plain socket, where a test needs each byte in hand; curl and `openssl s_client` as they are."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.server.running import Server
from tests.waiting import WAIT_SECONDS

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3

CIPHERS = {
    TLS_1_2: ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    TLS_1_3: ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"),
}
"""Every cipher that the kernel is asked for, by OpenSSL's names; the development certificate's key is ECDSA."""
VERSIONS_AND_CIPHERS = [(version, cipher) for version, ciphers in CIPHERS.items() for cipher in ciphers]

MANY = 65536
"""How much to take at once where it does not matter."""

VERSION_NAMES = {TLS_1_2: "TLSv1.2", TLS_1_3: "TLSv1.3"}
"""As the access log has them."""


def client_context(server: Server, version: ssl.TLSVersion | None = None, cipher: str | None = None) -> ssl.SSLContext:
    """A context that trusts the server's certificate and nothing else, for any version or one. `cipher`: TLS 1.2 only."""
    context = ssl.create_default_context(cafile=server.certificate)
    context.set_alpn_protocols(["http/1.1"])
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if cipher is not None:
        context.set_ciphers(cipher)
    return context


def tcp_connect(server: Server, receive_buffer: int | None = None) -> socket.socket:
    """A connection without TLS. `receive_buffer`: SO_RCVBUF, which has to be set before the connection stands."""
    sock = socket.socket()
    try:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(WAIT_SECONDS)
        sock.connect(("127.0.0.1", server.port))
    except OSError:
        sock.close()
        raise
    return sock


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response, as it came. Header names are lower case."""

    status: int
    version: str
    headers: dict[str, str]
    body: bytes


class Client:
    """One TLS connection. It takes no part in how a request looks: tests write those themselves."""

    def __init__(
        self,
        server: Server,
        *,
        context: ssl.SSLContext | None = None,
        name: str = "localhost",
        session: ssl.SSLSession | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        tcp = tcp_connect(server, receive_buffer)
        try:
            # An end of the stream without close_notify is what some tests look for: it raises SSLEOFError.
            self.tls = (context or client_context(server)).wrap_socket(
                tcp, server_hostname=name, session=session, suppress_ragged_eofs=False
            )
        except BaseException:
            tcp.close()
            raise
        self._file = self.tls.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.tls.close()

    def send(self, data: bytes) -> None:
        self.tls.sendall(data)

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end of the stream."""
        return self._file.read(size)

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer; less of it only at the end of the stream. Returns how much."""
        return self._file.readinto(buffer)

    def read_until_broken(self, limit: int) -> bytes:
        """All that still comes, fewer than `limit` bytes. Fails where the stream ends with close_notify, as a whole one."""
        received = bytearray()
        try:
            while data := self._file.read1(MANY):
                received += data
                assert len(received) < limit, "more came than may come"
        except (ssl.SSLError, ConnectionError):
            return bytes(received)
        raise AssertionError("the stream ended with close_notify")

    def answer_head(self) -> Answer:
        """The next response's status line and fields; the body is left to the caller."""
        status_line = self._file.readline()
        assert status_line.endswith(b"\r\n"), f"no status line: {status_line!r}"
        version, status, _reason = status_line.decode().split(" ", 2)
        headers = {}
        while (line := self._file.readline()) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            assert name.lower() not in headers, f"{name} came twice"
            headers[name.lower()] = value.strip()
        return Answer(int(status), version, headers, b"")

    def answer(self, *, has_body: bool = True) -> Answer:
        """The next response, whole. `has_body` is False for the answer to HEAD."""
        head = self.answer_head()
        body = self.read(int(head.headers["content-length"])) if has_body else b""
        return Answer(head.status, head.version, head.headers, body)

    def get(self, path: str, *fields: str) -> Answer:
        """Send one GET request and return its answer."""
        self.send(request(path, *fields))
        return self.answer()

    def at_end(self) -> bool:
        """Whether the stream ends here, by close_notify. Waits for what comes."""
        return self._file.read(1) == b""


def request(path: str, *fields: str, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    """A request head, with a Host field."""
    lines = (f"{method} {path} {version}", "Host: localhost", *fields, "", "")
    return "\r\n".join(lines).encode("latin-1")


@contextmanager
def connected(server: Server, version: ssl.TLSVersion | None = None, cipher: str | None = None) -> Iterator[Client]:
    """A client that takes one TLS version and, in TLS 1.2, one cipher."""
    with Client(server, context=client_context(server, version, cipher)) as client:
        yield client


def curl(server: Server, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run curl, trusting the server's certificate. Fails where curl fails."""
    assert shutil.which("curl"), "curl is missing: apt-get install curl"
    command = ["curl", "--silent", "--show-error", "--cacert", str(server.certificate), *arguments]
    done = subprocess.run(command, capture_output=True, check=False, timeout=WAIT_SECONDS)
    assert done.returncode == 0, done.stderr.decode()
    return done


@contextmanager
def curl_stream(server: Server, path: str, *options: str) -> Iterator[BufferedReader]:
    """Run curl and give its standard output, to be read to the end. Fails where curl fails."""
    command = ["curl", "--silent", "--show-error", "--fail", "--cacert", str(server.certificate), *options]
    with subprocess.Popen([*command, server.url(path)], stdout=subprocess.PIPE, pipesize=1 << 20) as process:
        assert isinstance(process.stdout, BufferedReader)
        try:
            yield process.stdout
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0


def curl_tls_options(version: ssl.TLSVersion, cipher: str) -> list[str]:
    """Have curl offer one version and one cipher."""
    if version == TLS_1_2:
        return ["--tlsv1.2", "--tls-max", "1.2", "--ciphers", cipher]
    return ["--tlsv1.3", "--tls13-ciphers", cipher]


def s_client(server: Server, version: ssl.TLSVersion, cipher: str, sent: bytes, *options: str) -> bytes:
    """Run `openssl s_client`, which sends `sent` and prints what it gets until the server closes."""
    assert shutil.which("openssl"), "openssl is missing: apt-get install openssl"
    tls = ["-tls1_2", "-cipher", cipher] if version == TLS_1_2 else ["-tls1_3", "-ciphersuites", cipher]
    trust = ["-CAfile", str(server.certificate), "-verify_return_error"]
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-servername", "localhost"]
    done = subprocess.run(
        [*command, *tls, *trust, "-quiet", *options], input=sent, capture_output=True, check=False, timeout=WAIT_SECONDS
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def split_answers(data: bytes) -> list[Answer]:
    """The responses that a client printed one after the other."""
    answers = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, f"an unfinished head: {head!r}"
        status_line, *lines = head.decode("latin-1").split("\r\n")
        version, status, _reason = status_line.split(" ", 2)
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers["content-length"])
        answers.append(Answer(int(status), version, headers, data[:length]))
        data = data[length:]
    return answers


def curl_download(server: Server, paths: list[str], into: Path, *options: str) -> list[bytes]:
    """Fetch several paths over one connection; what came, in order."""
    targets = [into / str(number) for number in range(len(paths))]
    arguments: list[str] = []
    for path, target in zip(paths, targets, strict=True):
        arguments += ["--output", str(target), server.url(path)]
    curl(server, "--fail", *options, *arguments)
    # For an empty file some versions of curl create none.
    return [target.read_bytes() if target.exists() else b"" for target in targets]
