"""HTTP without TLS, for the lower rungs of the ladder: the same loop, parser and site, only the sending differs.

    python -m ktls_server.bench.plain_server FOLDER read|sendfile uvloop|asyncio

Listens on a free port of 127.0.0.1 and prints it. It keeps no time limits: nobody but the benchmark talks to it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

from ..errors import PeerError
from ..files.site import Site, SiteOptions
from ..http1.heads import HeadWriter
from ..http1.parser import RequestParser
from ..net import listening
from ..net.channel import YIELD, Channel
from ..semantics.messages import FileSlice, Response

_RECEIVE_BYTES: Final = 16384
_MAX_HEAD_BYTES: Final = 32768
_READ_BYTES: Final = 1 << 18
"""As much as the userspace transport reads at a time: the rungs differ in one thing each."""

SendFile: TypeAlias = Callable[[Channel, FileSlice], Awaitable[None]]


async def send_by_read(channel: Channel, part: FileSlice) -> None:
    """Up into userspace, and down again."""
    buffer = memoryview(bytearray(_READ_BYTES))
    offset, end = part.offset, part.offset + part.count
    while offset < end:
        count = os.preadv(part.fd, (buffer[: end - offset],), offset)
        await _send(channel, buffer[:count])
        offset += count
        await YIELD


async def send_by_sendfile(channel: Channel, part: FileSlice) -> None:
    """Never up into userspace."""
    offset, end = part.offset, part.offset + part.count
    while offset < end:
        offset += await channel.send_file_part(part.fd, offset, end - offset)
        await YIELD


async def _send(channel: Channel, data: bytes | memoryview, flags: int = 0) -> None:
    while data:
        sent = channel.try_send(data, flags)
        data = data[sent:]
        if data:
            await channel.writable()


SEND_FILE: Final[dict[str, SendFile]] = {"read": send_by_read, "sendfile": send_by_sendfile}


class PlainServer:
    """Accepts, and answers each connection in a task."""

    def __init__(self, folder: Path, send_file: SendFile) -> None:
        self._site = Site(SiteOptions(folder))
        self._send_file = send_file
        self._heads = HeadWriter()
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        (self._listener,) = listening.bind("127.0.0.1", 0)
        self._loop.add_reader(self._listener.fileno(), self._accept)
        self.port = listening.port_of(self._listener)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        task = self._loop.create_task(self._serve(Channel(sock, self._loop)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, channel: Channel) -> None:
        parser = RequestParser(_MAX_HEAD_BYTES)
        try:
            while data := await channel.receive(_RECEIVE_BYTES):
                request = parser.next_request(data)
                if request is not None and parser.skip_body(b""):
                    await self._answer(channel, self._site.respond(request))
        except PeerError:
            pass
        finally:
            channel.close()

    async def _answer(self, channel: Channel, response: Response) -> None:
        try:
            head = self._heads.head(response, keep_alive=True, http_1_0=False)
            await _send(channel, head, socket.MSG_MORE if response.body else 0)
            for part in response.body:
                if isinstance(part, bytes):
                    await _send(channel, part)
                else:
                    await self._send_file(channel, part)
        finally:
            response.close()


async def _main(folder: Path, send_file: SendFile) -> None:
    server = PlainServer(folder, send_file)
    print(f"url: http://127.0.0.1:{server.port}/", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    from ..operation.worker import new_loop

    folder, how, loop = sys.argv[1:]
    with asyncio.Runner(loop_factory=new_loop(loop)) as runner:
        runner.run(_main(Path(folder), SEND_FILE[how]))
