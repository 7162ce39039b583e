"""A server of one's own, 30 lines: it sends one file to whoever connects, encrypted by the kernel where it can."""

import asyncio
import os
import socket
import ssl
import sys

from ktls_server.acceptor import TlsAcceptor
from ktls_server.errors import PeerError


async def send_to(acceptor: TlsAcceptor, sock: socket.socket, path: str) -> None:
    try:
        connection = await asyncio.wait_for(acceptor.accept(sock), 10)
        print(connection.session, flush=True)
        with open(path, "rb") as file:  # noqa: ASYNC230 - an open does not wait here
            await connection.send_file(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        await asyncio.wait_for(connection.close(), 10)
    except (PeerError, TimeoutError) as error:
        print(error, file=sys.stderr)


async def main(certificate: str, key: str, path: str, port: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", int(port)))
    listener.setblocking(False)
    with TlsAcceptor(context) as acceptor:
        async with asyncio.TaskGroup() as tasks:
            while True:
                sock, _ = await asyncio.get_running_loop().sock_accept(listener)
                tasks.create_task(send_to(acceptor, sock, path))


asyncio.run(main(*sys.argv[1:]))
