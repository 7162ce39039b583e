"""Pipes through which bytes move between descriptors without entering this process (splice(2)).

A pipe belongs to the connection that its bytes are for, and is closed once they have gone: no byte that was meant for one
client can reach another, and an idle server holds no pipe.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Final

PIPE_BYTES: Final = 1 << 20
"""What a pipe is asked to hold: the most that /proc/sys/fs/pipe-max-size lets anybody have by default."""

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Pipe:
    """One pipe. `held` is how many bytes are in it, `slots` how many buffers it has: pages, or parts of pages."""

    __slots__ = ("held", "read_fd", "slots", "write_fd")

    def __init__(self) -> None:
        """Raises OSError where there are no descriptors or no memory left."""
        self.read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.held = 0
        # A user without root gets fewer and smaller pipes once /proc/sys/fs/pipe-user-pages-soft is used up.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.slots = fcntl.fcntl(self.write_fd, fcntl.F_GETPIPE_SZ) // _PAGE_BYTES

    def close(self) -> None:
        """Give both descriptors back, and whatever is in the pipe."""
        os.close(self.read_fd)
        os.close(self.write_fd)
