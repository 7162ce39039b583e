"""Writes the precompressed siblings that `site.py` serves: `file.br`, `file.zst`, `file.gz` beside `file`.

Done ahead of time, at the best compression, so that a compressed answer goes out by sendfile like any other.

    for work in find_work(root):
        outcome = compress_file(work, progress)

A sibling appears at once and whole (a hidden temporary file, synced, then renamed) and has the modification time of
what it was made from. So an original that changes later is newer than its siblings, which are then not served until the
next run.
"""

from __future__ import annotations

import os
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Protocol

import brotli
import zstandard

from ..semantics.negotiation import SIBLING_EXTENSION
from .content_types import content_type_of

# An answer of one TCP segment (about 1400 bytes of payload) does not arrive sooner for being smaller.
MIN_SIZE = 1024

# A sibling that saves less than a tenth is not worth a second file and the client's work.
MAX_RATIO = 0.9

# Brotli's best quality takes about a second per megabyte; 9 is fifteen times as fast and a few percent larger.
_BROTLI_BEST_UP_TO = 16 * 1024 * 1024
_BROTLI_BEST, _BROTLI_LARGE = 11, 9

# The highest level that keeps to the 8 MiB window that every HTTP client has to support (RFC 9659 section 3).
_ZSTD_LEVEL, _ZSTD_WINDOW_LOG = 19, 23

_GZIP_LEVEL = 9
_GZIP_WBITS = 31  # zlib.h: 15 for the largest window, +16 for a gzip header, which then holds no name and no time

_CHUNK = 256 * 1024


class Outcome(Enum):
    """What became of one piece of work."""

    WRITTEN = "written"
    NOT_SMALLER = "not smaller"
    CHANGED = "changed meanwhile"
    UNREADABLE = "cannot be read or written"


@dataclass(frozen=True, slots=True)
class Work:
    """One sibling to write: of the file `original`, of `size` bytes, in the coding `br`, `zstd` or `gzip`."""

    original: Path
    coding: str
    size: int

    @property
    def sibling(self) -> Path:
        """Where the result goes."""
        return self.original.with_name(
            self.original.name + SIBLING_EXTENSION[self.coding.encode("ascii")].decode("ascii")
        )


@dataclass(frozen=True, slots=True)
class Result:
    """`size` is that of the compressed form in bytes, 0 where none was made."""

    outcome: Outcome
    size: int


class _Encoder(Protocol):
    def compress(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...


class _BrotliEncoder:
    def __init__(self, size: int) -> None:
        quality = _BROTLI_BEST if size <= _BROTLI_BEST_UP_TO else _BROTLI_LARGE
        self._compressor = brotli.Compressor(quality=quality)

    def compress(self, data: bytes) -> bytes:
        return bytes(self._compressor.process(data))

    def flush(self) -> bytes:
        return bytes(self._compressor.finish())


def find_work(root: Path) -> list[Work]:
    """The siblings that are missing or do not have their original's modification time, in the order of paths.

    Only regular files of a compressible type and of at least `MIN_SIZE` bytes; hidden files and symlinks are left out.
    Folders that cannot be read are passed over.
    """
    return list(_find_work(root))


def compress_file(work: Work, progress: Callable[[int], None] = lambda _: None) -> Result:
    """Writes one sibling. `progress` is called with how many more bytes of the original are done; they add up to its
    size.

    Nothing is written where the result would not be at least a tenth smaller, or where the original changed meanwhile.
    """
    try:
        with open(work.original, "rb", opener=_open_regular) as original:
            return _compress(work, original, progress)
    except OSError:
        return Result(Outcome.UNREADABLE, 0)


def _find_work(root: Path) -> Iterator[Work]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") or name == ".well-known")
        for name in sorted(names):
            if name.startswith(".") or not content_type_of(os.fsencode(name)).compressible:
                continue
            original = Path(folder, name)
            with suppress(OSError):
                status = original.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_size >= MIN_SIZE:
                    for coding in SIBLING_EXTENSION:
                        work = Work(original, coding.decode("ascii"), status.st_size)
                        if not _is_current(work.sibling, status):
                            yield work


def _is_current(sibling: Path, original: os.stat_result) -> bool:
    with suppress(OSError):
        status = sibling.lstat()
        return stat.S_ISREG(status.st_mode) and status.st_mtime_ns == original.st_mtime_ns
    return False


def _open_regular(path: str, flags: int) -> int:
    """An opener that neither follows a symlink nor waits for a FIFO that took the file's place since `find_work`."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _compress(work: Work, original: BinaryIO, progress: Callable[[int], None]) -> Result:
    before = os.fstat(original.fileno())
    if not stat.S_ISREG(before.st_mode):
        return Result(Outcome.CHANGED, 0)
    with tempfile.NamedTemporaryFile(dir=work.original.parent, prefix=".ktls-server-", delete=False) as temporary:
        try:
            encoder = _encoder(work.coding, before.st_size)
            while chunk := original.read(_CHUNK):
                temporary.write(encoder.compress(chunk))
                progress(len(chunk))
            temporary.write(encoder.flush())
            size = temporary.tell()
            outcome = _judge(before, os.fstat(original.fileno()), size)
            if outcome is Outcome.WRITTEN:
                _publish(temporary, before, work.sibling)
            else:
                os.unlink(temporary.name)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary.name)
            raise
    return Result(outcome, size)


def _encoder(coding: str, size: int) -> _Encoder:
    if coding == "br":
        return _BrotliEncoder(size)
    if coding == "zstd":
        parameters = zstandard.ZstdCompressionParameters.from_level(
            _ZSTD_LEVEL, source_size=size, window_log=_ZSTD_WINDOW_LOG if size > 1 << _ZSTD_WINDOW_LOG else 0
        )
        return zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WBITS)


def _judge(before: os.stat_result, after: os.stat_result, size: int) -> Outcome:
    if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) != (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    ):
        return Outcome.CHANGED
    return Outcome.WRITTEN if size <= before.st_size * MAX_RATIO else Outcome.NOT_SMALLER


def _publish(temporary: tempfile._TemporaryFileWrapper[bytes], original: os.stat_result, sibling: Path) -> None:
    """Gives the temporary file the original's mode, owner and time, makes it durable, and puts it in place."""
    temporary.flush()
    fd = temporary.fileno()
    with suppress(PermissionError):  # only root can give files away; others keep their own
        os.fchown(fd, original.st_uid, original.st_gid)
    os.fchmod(fd, stat.S_IMODE(original.st_mode))
    os.utime(fd, ns=(original.st_atime_ns, original.st_mtime_ns))
    # Without it, a crash soon after the rename could leave an empty sibling, which would be served as the page.
    os.fsync(fd)
    os.rename(temporary.name, sibling)
