"""The load: so many requests on one connection, or so many connections with one request each.

Started as a `ClientProcess`. A job names the kind ("requests", "connections", "page"), the port, the path and the count,
whether the fields are a browser's, and for a page the paths.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial

from benchmarks.load import Client, make_context
from ktls_server.bench.clients import Job, Result, serve_jobs


def requests(client: Client, count: int) -> Result:
    """One request after the other, and the end of the connection."""
    size = 0
    for _ in range(count):
        client.send_request()
        size += client.read_response()
    client.close()
    return {"bytes": size, "cipher": client.cipher}


def connections(context: ssl.SSLContext, job: Job) -> Result:
    """A full handshake, one request, and the end, over and over."""
    size = 0
    for _ in range(job["count"]):
        client = Client(context, job)
        size += requests(client, 1)["bytes"]
    return {"bytes": size, "cipher": client.cipher}


def page(client: Client, paths: list[str]) -> Result:
    """Different files, each asked for once, over one connection."""
    size = 0
    for path in paths:
        client.send_request(client.request_for(path))
        size += client.read_response()
    client.close()
    return {"bytes": size, "cipher": client.cipher}


def prepare(job: Job) -> Callable[[], Result]:
    """Connect, and ask once, so that nothing is done for the first time later."""
    context = make_context()
    client = Client(context, job)
    if job["kind"] == "requests":
        return partial(requests, client, job["count"])
    if job["kind"] == "page":
        return partial(page, client, job["paths"])
    client.close()
    return partial(connections, context, job)


if __name__ == "__main__":
    serve_jobs(prepare)
