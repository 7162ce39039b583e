"""The Python peers' applications. Runs in the environment that has the peers, and imports nothing of this project.

    python applications.py NAME FOLDER PORT CERTIFICATE KEY

The files lie in FOLDER/static, as granian can mount them only below a path.
"""

# mypy: disable-error-code="import-not-found, attr-defined"

import asyncio
import http.server
import ssl
import sys
from collections.abc import Callable
from pathlib import Path


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def aiohttp_on(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], folder: str, port: int, context: ssl.SSLContext
) -> None:
    from aiohttp import web

    application = web.Application()
    application.router.add_static("/static", Path(folder) / "static")
    web.run_app(
        application,
        host="127.0.0.1",
        port=port,
        ssl_context=context,
        loop=loop_factory(),
        access_log=None,
        keepalive_timeout=600,
        print=lambda *_: None,
    )


def aiohttp_asyncio(folder: str, port: int, certificate: str, key: str) -> None:
    aiohttp_on(asyncio.new_event_loop, folder, port, tls_context(certificate, key))


def aiohttp_uvloop(folder: str, port: int, certificate: str, key: str) -> None:
    import uvloop

    aiohttp_on(uvloop.new_event_loop, folder, port, tls_context(certificate, key))


def aiohttp_aiofastnet(folder: str, port: int, certificate: str, key: str) -> None:
    import aiofastnet

    aiohttp_on(aiofastnet.loop_factory(), folder, port, tls_context(certificate, key))


def aiohttp_aiofastnet_ktls(folder: str, port: int, certificate: str, key: str) -> None:
    import aiofastnet

    context = tls_context(certificate, key)
    context.options |= ssl.OP_ENABLE_KTLS
    aiohttp_on(aiofastnet.loop_factory(), folder, port, context)


def starlette_uvicorn(folder: str, port: int, certificate: str, key: str) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    application = Starlette(routes=[Mount("/static", StaticFiles(directory=Path(folder) / "static"))])
    uvicorn.run(
        application,
        host="127.0.0.1",
        port=port,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=600,
    )


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        """Nobody else writes an access log in this comparison either."""


class _ThreadedServer(http.server.ThreadingHTTPServer):
    request_queue_size = 1024


def http_server(folder: str, port: int, certificate: str, key: str) -> None:
    import functools

    handler = functools.partial(_QuietHandler, directory=folder)
    with _ThreadedServer(("127.0.0.1", port), handler) as server:
        context = tls_context(certificate, key)
        # The handshake takes place in the connection's thread, not inside accept().
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.serve_forever()


APPLICATIONS = {
    function.__name__: function
    for function in (
        aiohttp_asyncio,
        aiohttp_uvloop,
        aiohttp_aiofastnet,
        aiohttp_aiofastnet_ktls,
        starlette_uvicorn,
        http_server,
    )
}


def never_called() -> None:
    """granian asks for an application even where its own static files answer everything."""


if __name__ == "__main__":
    name, folder, port, certificate, key = sys.argv[1:]
    APPLICATIONS[name](folder, int(port), certificate, key)
