"""Writing precompressed siblings: what is worth it, what they hold, and that the site then serves them."""

from __future__ import annotations

import gzip
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
import zstandard

from ktls_server.files import compress
from ktls_server.files.compress import MIN_SIZE, Outcome, Work, compress_file, find_work
from ktls_server.files.site import Site, SiteOptions

from .asking import ask

TEXT = b"".join(b"line %d of a text that repeats itself\n" % number for number in range(8000))
DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor(max_window_size=8 * 1024**2).decompressobj().decompress(data),
    "gzip": gzip.decompress,
}


def run(folder: Path) -> dict[str, Outcome]:
    return {str(work.sibling.relative_to(folder)): compress_file(work).outcome for work in find_work(folder)}


def test_siblings_hold_the_original_and_have_its_time_and_mode(tmp_path: Path) -> None:
    original = tmp_path / "a.txt"
    original.write_bytes(TEXT)
    original.chmod(0o640)
    os.utime(original, ns=(1, 1234567890123456789))
    assert run(tmp_path) == {f"a.txt.{extension}": Outcome.WRITTEN for extension in ("br", "zst", "gz")}
    for extension, coding in (("br", "br"), ("zst", "zstd"), ("gz", "gzip")):
        sibling = tmp_path / f"a.txt.{extension}"
        assert DECODERS[coding](sibling.read_bytes()) == TEXT
        status = sibling.stat()
        assert status.st_mtime_ns == 1234567890123456789
        assert stat.S_IMODE(status.st_mode) == 0o640
        assert status.st_size < len(TEXT) / 4
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "a.txt.br", "a.txt.gz", "a.txt.zst"]


def test_the_site_serves_what_was_written_until_the_original_changes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)
    run(tmp_path)
    site = Site(SiteOptions(root=tmp_path))
    for coding, decode in DECODERS.items():
        got = ask(site, b"/a.txt", accept_encoding=coding)
        assert got.fields["content-encoding"] == coding
        assert decode(got.body) == TEXT
    (tmp_path / "a.txt").write_bytes(b"new")
    assert ask(site, b"/a.txt", accept_encoding="br").body == b"new"
    site.close()


def test_a_second_run_finds_nothing_to_do_and_a_changed_file_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)
    (tmp_path / "b.txt").write_bytes(TEXT)
    run(tmp_path)
    assert find_work(tmp_path) == []
    os.utime(tmp_path / "b.txt", (0, 0))
    assert {work.original.name for work in find_work(tmp_path)} == {"b.txt"}
    (tmp_path / "a.txt.gz").unlink()
    assert Work(tmp_path / "a.txt", "gzip", len(TEXT)) in find_work(tmp_path)


def test_what_is_not_worth_it_is_left_out(tmp_path: Path) -> None:
    for name in ("small.txt", "photo.jpg", "data.bin", ".hidden.txt", "old.txt.gz"):
        (tmp_path / name).write_bytes(TEXT)
    (tmp_path / "small.txt").write_bytes(b"x" * (MIN_SIZE - 1))
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "a.txt").write_bytes(TEXT)
    (tmp_path / "link.txt").symlink_to("photo.jpg")
    os.mkfifo(tmp_path / "fifo.txt")
    (tmp_path / "folder.txt").mkdir()
    assert find_work(tmp_path) == []
    (tmp_path / "small.txt").write_bytes(b"x" * MIN_SIZE)
    (tmp_path / "folder.txt" / "b.txt").write_bytes(TEXT)
    assert {work.original.name for work in find_work(tmp_path)} == {"small.txt", "b.txt"}


def test_what_does_not_shrink_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "noise.txt").write_bytes(random.Random(1).randbytes(5000))
    assert set(run(tmp_path).values()) == {Outcome.NOT_SMALLER}
    assert os.listdir(tmp_path) == ["noise.txt"]


def test_progress_adds_up_to_the_size(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)
    steps: list[int] = []
    work = find_work(tmp_path)[-1]
    compress_file(work, steps.append)
    assert sum(steps) == work.size == len(TEXT)
    assert len(steps) > 1


def test_a_file_that_changes_meanwhile_gets_no_sibling(tmp_path: Path) -> None:
    original = tmp_path / "a.txt"
    original.write_bytes(TEXT)
    work = find_work(tmp_path)[-1]
    result = compress_file(work, lambda _: os.utime(original))
    assert (result.outcome, os.listdir(tmp_path)) == (Outcome.CHANGED, ["a.txt"])


@pytest.mark.parametrize("kind", ["gone", "symlink", "fifo"])
def test_a_file_that_is_no_longer_one_is_not_followed(tmp_path: Path, kind: str) -> None:
    original = tmp_path / "a.txt"
    original.write_bytes(TEXT)
    work = find_work(tmp_path)[-1]
    original.unlink()
    if kind == "symlink":
        original.symlink_to("/etc/services")
    elif kind == "fifo":
        os.mkfifo(original)
    assert compress_file(work).outcome in (Outcome.UNREADABLE, Outcome.CHANGED)
    assert not work.sibling.exists()


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress_file(find_work(tmp_path)[0], interrupt)
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_sibling_is_replaced_at_once_even_where_it_is_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)
    (tmp_path / "elsewhere").write_bytes(b"stays")
    (tmp_path / "a.txt.gz").symlink_to("elsewhere")
    run(tmp_path)
    assert not (tmp_path / "a.txt.gz").is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"stays"


def test_a_folder_that_cannot_be_written_is_reported(
    tmp_path: Path, as_nobody: Callable[[Callable[[], None]], None]
) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)
    tmp_path.chmod(0o555)
    as_nobody(lambda: _assert_unreadable(tmp_path))


def _assert_unreadable(folder: Path) -> None:
    assert set(run(folder).values()) == {Outcome.UNREADABLE}


def test_large_files_get_a_quicker_brotli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress, "_BROTLI_BEST_UP_TO", 1)
    (tmp_path / "a.txt").write_bytes(TEXT)
    assert set(run(tmp_path).values()) == {Outcome.WRITTEN}
    assert brotli.decompress((tmp_path / "a.txt.br").read_bytes()) == TEXT
