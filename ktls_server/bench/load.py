"""The load of `ktls-server bench`: httpx, one client and one thread for each connection. Started as a `ClientProcess`.

httpx's synchronous client costs half of what its asynchronous one does for the same bytes; `ssl` lets go of the
interpreter's lock while it reads, so threads do not wait for each other. A job is what `measure.job` writes.
"""

from __future__ import annotations

import itertools
import ssl
import threading
import time
from collections.abc import Iterator
from functools import partial

import httpx

from .clients import Job, Load, Result, serve_jobs

TIMEOUT_SECONDS = 60

# The folder may hold precompressed siblings; proxies of the environment would be what is measured.
_HEADERS = {"Accept-Encoding": "identity"}


class Visitor:
    """One keep-alive connection that asks for the same thing over and over."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        self._url = url
        self._client = httpx.Client(verify=context, trust_env=False, timeout=TIMEOUT_SECONDS, headers=_HEADERS)
        self._stream: object = None
        self.connections = 0
        self.agreed = ""
        self.requests = self.bytes = 0
        self.latencies: list[float] = []
        self.error: Exception | None = None

    def ask(self) -> int:
        """One request and its whole answer; returns the size of the body as it was sent."""
        with self._client.stream("GET", self._url) as response:
            stream = response.extensions["network_stream"]
            if stream is not self._stream:
                self._stream = stream
                self.connections += 1
                self.agreed = _agreed(stream.get_extra_info("ssl_object"))
            response.raise_for_status()
            size = 0
            for part in response.iter_raw():
                size += len(part)
        return size

    def run(self, end: float, numbers: Iterator[int]) -> None:
        """Ask until `end` (time.perf_counter) or until `numbers` run out, at least once."""
        try:
            for _ in numbers:
                started = time.perf_counter()
                self.bytes += self.ask()
                self.requests += 1
                now = time.perf_counter()
                self.latencies.append(now - started)
                if now >= end:
                    break
        except Exception as error:
            self.error = error

    def close(self) -> None:
        self._client.close()


def _agreed(tls: ssl.SSLSocket | ssl.SSLObject | None) -> str:
    cipher = tls.cipher() if tls is not None else None
    return f"{cipher[1]} {cipher[0]}" if cipher is not None else "no TLS"


def _context(job: Job) -> ssl.SSLContext:
    """Who the server is does not matter to a measurement, so its certificate is not looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion[job["tls"]]
    if job["ciphers"]:
        context.set_ciphers(job["ciphers"])
    return context


def prepare(job: Job) -> Load:
    """Connect, and ask once on each connection: what happens for the first time is not measured."""
    context = _context(job)
    visitors = [Visitor(job["url"], context) for _ in range(job["connections"])]
    for visitor in visitors:
        visitor.ask()
    return partial(_load, visitors, job)


def _load(visitors: list[Visitor], job: Job) -> Result:
    started = time.perf_counter()
    # One iterator for all: who is free takes the next request.
    numbers = iter(range(job["requests"])) if job["requests"] else itertools.count()
    end = started + job["seconds"] if job["seconds"] else float("inf")
    threads = [threading.Thread(target=visitor.run, args=(end, numbers)) for visitor in visitors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended = time.perf_counter()
    for visitor in visitors:
        visitor.close()
        if visitor.error is not None:
            raise visitor.error
    return {
        "started": started,
        "ended": ended,
        "requests": sum(visitor.requests for visitor in visitors),
        "bytes": sum(visitor.bytes for visitor in visitors),
        "connections": sum(visitor.connections for visitor in visitors),
        "latencies": [seconds for visitor in visitors for seconds in visitor.latencies],
        "agreed": sorted({visitor.agreed for visitor in visitors}),
    }


if __name__ == "__main__":
    serve_jobs(prepare)
