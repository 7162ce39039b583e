"""Large files: past the socket buffers, past what 32 bits count, past the 2 GiB that sendfile(2) takes at the most.

What comes is compared with the file on disk piece by piece; nothing is held in memory. On an emulated machine, which
encrypts 20 MB a second, fewer combinations of the same tests are run. `make test-large` runs them all, on any machine.
"""

import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.server.clients import (
    CIPHERS,
    TLS_1_2,
    TLS_1_3,
    VERSIONS_AND_CIPHERS,
    Client,
    connected,
    curl_stream,
    curl_tls_options,
    request,
)
from tests.server.running import EMULATED, KeyedSockets, Server, Variant
from tests.server.site import content

MEBIBYTE, GIBIBYTE = 1 << 20, 1 << 30
SOLID_BYTES = 200_000_000
SPARSE_BYTES = 5 * GIBIBYTE
SENDFILE_LIMIT = 0x7FFFF000
"""The most that one sendfile(2) call transfers."""
MARKED = (0, SENDFILE_LIMIT, 2 * GIBIBYTE, 4 * GIBIBYTE, SPARSE_BYTES)
"""Around these offsets the sparse file holds something."""
MARK_BYTES = 300_000

ALL = bool(os.environ.get("LARGE_FILES"))
"""Every combination, every byte, however long that takes."""
SHORTENED = EMULATED and not ALL

LOOPS = ["uvloop", "asyncio"]
CHOSEN = [(TLS_1_3, CIPHERS[TLS_1_3][0]), (TLS_1_2, CIPHERS[TLS_1_2][1]), (TLS_1_3, CIPHERS[TLS_1_3][2])]
if ALL:
    CHOSEN = VERSIONS_AND_CIPHERS
if SHORTENED:
    CHOSEN, LOOPS = CHOSEN[:1], LOOPS[:1]


class Body(Protocol):
    """What has a body to read: `readinto` fills less of the buffer only where the body ends."""

    def readinto(self, buffer: memoryview, /) -> int: ...


@pytest.fixture(scope="module")
def solid(site: Path) -> Iterator[Path]:
    """200 MB that repeat only after 1 MiB and a byte."""
    file = site / "solid.bin"
    block = content(MEBIBYTE + 1)
    with file.open("wb") as out:
        for start in range(0, SOLID_BYTES, len(block)):
            out.write(block[: SOLID_BYTES - start])
    yield file
    file.unlink()


@pytest.fixture(scope="module")
def sparse(site: Path) -> Iterator[Path]:
    """5 GiB, of which almost nothing is on the disk."""
    file = site / "huge.bin"
    with file.open("wb") as out:
        for number, offset in enumerate(MARKED):
            start, end = around(offset)
            out.seek(start)
            out.write(content(MARK_BYTES + number)[: end - start])
    assert file.stat().st_size == SPARSE_BYTES
    yield file
    file.unlink()


def around(offset: int) -> tuple[int, int]:
    """First byte of the mark at an offset, and the one after its last."""
    return max(0, offset - MARK_BYTES // 2), min(SPARSE_BYTES, offset + MARK_BYTES // 2)


def compare(body: Body, file: Path, start: int, count: int) -> None:
    """The next `count` bytes of the body are those of the file from `start`."""
    received, wanted = bytearray(MEBIBYTE), bytearray(MEBIBYTE)
    with file.open("rb", buffering=0) as expected:
        for position in range(start, start + count, MEBIBYTE):
            expected.seek(position)
            size = min(MEBIBYTE, start + count - position)
            got = body.readinto(memoryview(received)[:size])
            assert got == size, f"the body ended {start + count - position - got} bytes early"
            assert expected.readinto(memoryview(wanted)[:size]) == size
            assert received == wanted, f"a wrong byte between {position} and {position + size}"


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("version", "cipher"), CHOSEN)
def test_200_mb_are_exact(
    servers: Callable[[Variant], Server], path: str, loop: str, version: ssl.TLSVersion, cipher: str, solid: Path
) -> None:
    server = servers(Variant(path, loop))
    keyed = KeyedSockets()
    with curl_stream(server, f"/{solid.name}?{cipher}", *curl_tls_options(version, cipher)) as body:
        compare(body, solid, 0, SOLID_BYTES)
        assert body.read(1) == b""
    keyed.expect_transmit(server, 1)
    (line,) = server.logged(f"/{solid.name}?{cipher}")
    assert (line["bytes"], line["cipher"], line["tx"]) == (SOLID_BYTES, cipher, path)


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["TLSv1.2", "TLSv1.3"])
def test_ranges_of_5_gib_are_exact_past_2_and_4_gib(server: Server, version: ssl.TLSVersion, sparse: Path) -> None:
    with connected(server, version) as client:
        client.send(request(f"/{sparse.name}", method="HEAD"))
        assert client.answer(has_body=False).headers["content-length"] == str(SPARSE_BYTES)
        for offset in MARKED:
            start, end = around(offset)
            client.send(request(f"/{sparse.name}", f"Range: bytes={start}-{end - 1}"))
            head = client.answer_head()
            assert (head.status, head.headers["content-length"]) == (206, str(end - start))
            assert head.headers["content-range"] == f"bytes {start}-{end - 1}/{SPARSE_BYTES}"
            compare(client, sparse, start, end - start)


@pytest.mark.parametrize("loop", LOOPS if ALL else LOOPS[:1])
def test_5_gib_are_exact(servers: Callable[[Variant], Server], path: str, loop: str, sparse: Path) -> None:
    """From the first byte to the last; on an emulated machine, where that takes minutes, the last 32 MiB of them."""
    server = servers(Variant(path, loop))
    start = SPARSE_BYTES - 32 * MEBIBYTE if SHORTENED else 0
    with Client(server) as client:
        client.send(request(f"/{sparse.name}", f"Range: bytes={start}-"))
        head = client.answer_head()
        assert (head.status, head.headers["content-length"]) == (206, str(SPARSE_BYTES - start))
        compare(client, sparse, start, SPARSE_BYTES - start)
        assert client.get("/small.txt").status == 200
    server.assert_unharmed()
