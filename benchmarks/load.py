"""The load client for the comparison: plain blocking sockets, so that it costs less than any server it loads.

Started as a `ClientProcess`. A job names what to do ("download", "requests", "handshakes", "idle"), the address, the path,
how many connections and for how many seconds. No session is ever resumed: `ssl` does so only where it is told to.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from ktls_server.bench.clients import Job, Result, serve_jobs

BUFFER_BYTES = 1 << 18
END_OF_CHUNKS = b"0\r\n\r\n"
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
TIMEOUT_SECONDS = 30

CURL_FIELDS = b"Host: localhost\r\nAccept: */*\r\n"
BROWSER_FIELDS = (
    b"Host: localhost\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5\r\n"
    b"Accept-Language: en-US,en;q=0.5\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Connection: keep-alive\r\n"
    b"Referer: https://localhost/\r\n"
    b"Sec-Fetch-Dest: image\r\n"
    b"Sec-Fetch-Mode: no-cors\r\n"
    b"Sec-Fetch-Site: same-origin\r\n"
    b"Priority: u=5, i\r\n"
)
"""What a browser sends for a part of a page."""


class Client:
    """One connection; `cipher` is what was agreed on."""

    def __init__(self, context: ssl.SSLContext, job: Job) -> None:
        raw = socket.create_connection(("127.0.0.1", job["port"]), timeout=TIMEOUT_SECONDS)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = context.wrap_socket(raw, server_hostname="localhost")
        assert not self._sock.session_reused
        self._fields = BROWSER_FIELDS if job.get("browser") else CURL_FIELDS
        self._request = self.request_for(job["path"])
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        agreed = self._sock.cipher()
        assert agreed is not None
        self.cipher = agreed[0]

    def request_for(self, path: str) -> bytes:
        """The bytes of a GET."""
        return b"GET %b HTTP/1.1\r\n%b\r\n" % (path.encode(), self._fields)

    def send_request(self, request: bytes | None = None) -> None:
        self._sock.sendall(request or self._request)

    def read_response(self) -> int:
        """One whole response; returns the bytes of its body (with the framing, where it came in chunks)."""
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._receive()
        head, _, body = head.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"unexpected answer: {head[:60]!r}")
        length = CONTENT_LENGTH.search(head)
        if length is None:
            return self._read_chunks(body)
        total = int(length[1])
        left = total - len(body)
        while left:
            left -= self._sock.recv_into(self._buffer) or self._fail()
        return total

    def _read_chunks(self, body: bytes) -> int:
        # The files are made so that this cannot be part of one.
        received = len(body)
        tail = body[-len(END_OF_CHUNKS) :]
        while tail != END_OF_CHUNKS:
            count = self._sock.recv_into(self._buffer) or self._fail()
            received += count
            tail = (tail + bytes(self._buffer[max(0, count - len(END_OF_CHUNKS)) : count]))[-len(END_OF_CHUNKS) :]
        return received

    def _receive(self) -> bytes:
        return self._sock.recv(BUFFER_BYTES) or self._fail()

    def _fail(self) -> NoReturn:
        raise RuntimeError("the server closed the connection within a response")

    def close(self) -> None:
        self._sock.close()


def make_context() -> ssl.SSLContext:
    """TLS 1.3 with whichever suite the environment leaves; who the server is does not matter here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def download(clients: list[Client], seconds: float) -> Result:
    """Whole responses over and over, each connection in a thread of its own: `ssl` lets go of the lock while it reads."""
    started = time.perf_counter()
    totals: list[tuple[int, int]] = []
    errors: list[Exception] = []

    def work(client: Client) -> None:
        count = size = 0
        try:
            while not count or time.perf_counter() - started < seconds:
                client.send_request()
                size += client.read_response()
                count += 1
        except Exception as error:
            errors.append(error)
        totals.append((count, size))

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return _result(clients, started, sum(count for count, _ in totals), sum(size for _, size in totals))


def requests(clients: list[Client], seconds: float) -> Result:
    """One request in flight on each connection, from a single thread: the server always has some to do."""
    started = time.perf_counter()
    count = size = 0
    while not count or time.perf_counter() - started < seconds:
        for client in clients:
            client.send_request()
        for client in clients:
            size += client.read_response()
        count += len(clients)
    return _result(clients, started, count, size)


def handshakes(context: ssl.SSLContext, job: Job) -> Result:
    """A new connection, one request, and the end: over and over."""
    started = time.perf_counter()
    count = size = 0
    while not count or time.perf_counter() - started < job["seconds"]:
        client = Client(context, job)
        client.send_request()
        size += client.read_response()
        client.close()
        count += 1
    return _result([client], started, count, size)


def leave_open(clients: list[Client]) -> Result:
    """The end of an "idle" job: the connections stood until now."""
    return _result(clients, time.perf_counter(), len(clients), 0)


def _result(clients: list[Client], started: float, count: int, size: int) -> Result:
    seconds = time.perf_counter() - started
    for client in clients:
        client.close()
    return {"count": count, "bytes": size, "seconds": seconds, "cipher": clients[0].cipher}


def prepare(job: Job) -> Callable[[], Result]:
    """Connect, and ask once on each connection, so that nothing is done for the first time later."""
    context = make_context()
    if job["kind"] == "handshakes":
        return partial(handshakes, context, job)
    clients = []
    for _ in range(job["connections"]):
        client = Client(context, job)
        client.send_request()
        client.read_response()
        clients.append(client)
    match job["kind"]:
        case "download":
            return partial(download, clients, job["seconds"])
        case "requests":
            return partial(requests, clients, job["seconds"])
        case "idle":
            return partial(leave_open, clients)
    raise ValueError(job["kind"])


if __name__ == "__main__":
    serve_jobs(prepare)
