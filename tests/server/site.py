"""The folder that the servers of this suite serve."""

import random
from functools import lru_cache
from pathlib import Path

SIZES = (0, 1, 16383, 16384, 16385, 1 << 20)
"""Nothing, the least, around the most that one TLS record carries (2^14 bytes, RFC 8446 section 5.1), and many records."""

SMALL = b"0123456789abcdef" * 64
"""What /small.txt holds: 1 KiB."""

SPARSE_BYTES = 1 << 30
"""How much /sparse.bin holds, all zero: more than any socket buffer, for downloads that have to be under way for long."""


@lru_cache(maxsize=8)
def content(size: int) -> bytes:
    """Bytes that do not repeat, the same for the same size."""
    return random.Random(size).randbytes(size)


def make_site(directory: Path) -> Path:
    """Fill a new folder: files of all `SIZES`, an index page, a folder, a secret beside the root and a link out to it."""
    directory.mkdir()
    for size in SIZES:
        (directory / f"{size}.bin").write_bytes(content(size))
    (directory / "index.html").write_text("<!doctype html>\n<title>Hello</title>\n")
    (directory / "small.txt").write_bytes(SMALL)
    with (directory / "sparse.bin").open("wb") as sparse:
        sparse.truncate(SPARSE_BYTES)
    (directory / "folder").mkdir()
    (directory / "folder" / "index.html").write_text("<!doctype html>\n<title>Folder</title>\n")
    (directory.parent / "secret.txt").write_text("not to be served")
    (directory / "link-out").symlink_to(directory.parent / "secret.txt")
    (directory / "folder-out").symlink_to(directory.parent)
    return directory
