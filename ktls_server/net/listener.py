"""The accept loop: takes connections from listening sockets, and decides nothing about them."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)

ACCEPTS_PER_WAKE_UP: Final = 16
"""Connections accepted before those that stand get their turn again: few, so that handshakes advance in a flood."""

PAUSE_SECONDS: Final = 0.2
"""How long no connection is accepted once descriptors or places have run out."""

_LOG_INTERVAL_SECONDS: Final = 10.0
"""A shortage is logged this often at most, however long it lasts."""

_OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener:
    """Accepts on listening sockets, which it owns.

    `welcome` gets each accepted socket, non-blocking, with its peer's address. `has_room` is asked before each: where it
    says no, nothing is accepted for a moment and clients wait in the kernel's queue. `on_shortage` is called where the
    system has no descriptor or memory for another socket, `on_pause` for each pause.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        loop: asyncio.AbstractEventLoop,
        welcome: Callable[[socket.socket, str], object],
        has_room: Callable[[], bool],
        on_shortage: Callable[[], object],
        on_pause: Callable[[], object],
    ) -> None:
        self._sockets = sockets
        self._loop = loop
        self._welcome = welcome
        self._has_room = has_room
        self._on_shortage = on_shortage
        self._on_pause = on_pause
        self._accepting = False
        self._stopped = False
        self._logged_shortage_at = -_LOG_INTERVAL_SECONDS

    def start(self) -> None:
        """Begin to accept, or go on."""
        if not self._accepting and not self._stopped:
            self._accepting = True
            for listener in self._sockets:
                self._loop.add_reader(listener.fileno(), self._accept, listener)

    def stop(self) -> None:
        """Let in those that the kernel has completed already, and close: others are refused from now on."""
        self._stop_reading()
        self._stopped = True
        for listener in self._sockets:
            self._accept(listener, socket.SOMAXCONN)
            listener.close()

    def _stop_reading(self) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self._sockets:
                self._loop.remove_reader(listener.fileno())

    def _pause(self) -> None:
        self._on_pause()
        self._stop_reading()
        if not self._stopped:
            self._loop.call_later(PAUSE_SECONDS, self.start)

    def _accept(self, listener: socket.socket, at_most: int = ACCEPTS_PER_WAKE_UP) -> None:
        for _ in range(at_most):
            if not self._has_room():
                self._pause()
                return
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._accept_failed(error)
                return
            sock.setblocking(False)
            # What listens to both protocols sees IPv4 clients as ::ffff:192.0.2.1 (RFC 4291 section 2.5.5.2).
            self._welcome(sock, address[0].removeprefix("::ffff:"))

    def _accept_failed(self, error: OSError) -> None:
        shortage = error.errno in _OUT_OF_RESOURCES
        now = time.monotonic()
        if now - self._logged_shortage_at >= _LOG_INTERVAL_SECONDS:
            self._logged_shortage_at = now
            cure = "; raise LimitNOFILE= or ulimit -n, or lower --max-connections" if shortage else ""
            _log.error("cannot accept connections: %s%s", error.strerror, cure)
        if shortage:
            self._on_shortage()
            self._pause()
