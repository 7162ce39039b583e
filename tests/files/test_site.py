"""The answers of a `Site`: the table of cases.py, and what a table cannot say."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ktls_server.files.remembered import SMALL_BYTES
from ktls_server.files.resolve import Root
from ktls_server.files.site import Site, SiteOptions
from ktls_server.semantics.messages import FileSlice, Request

from .asking import Answer, answer, ask
from .cases import CASES, HTML, MODIFIED, SITES, STYLE, Case, make_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the table says is on disk."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return make_folder(folder)


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


@contextmanager
def serving(folder: Path, *, root: str = "", **options: Any) -> Iterator[Site]:
    """`root` is a folder in `folder`."""
    site = Site(SiteOptions(root=folder / root, **options))
    try:
        yield site
    finally:
        site.close()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_table(case: Case, folder: Path) -> None:
    with serving(folder, **SITES[case.site]) as site:
        fields = case.request_fields(lambda fields: ask(site, case.target, **fields).fields["etag"])
        got = ask(site, case.target, case.method, **fields)
    case.check(got.status, got.fields, got.body)
    check_invariants(got, case.method)


def check_invariants(got: Answer, method: bytes) -> None:
    """What holds of every answer."""
    if got.status in (204, 304):
        assert (got.content_length, got.body) == (None, b"")
    elif method == b"HEAD":
        assert got.body == b""
        assert got.content_length is not None
    else:
        assert got.content_length == len(got.body)
    if got.status != 304:
        assert got.fields["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case.status in (200, 206)], ids=lambda case: case.what
)
def test_a_head_says_what_a_get_would(case: Case, folder: Path) -> None:
    with serving(folder, **SITES[case.site]) as site:
        fields = case.request_fields(lambda fields: ask(site, case.target, **fields).fields["etag"])
        fields.pop("range", None)
        get = ask(site, case.target, b"GET", **fields)
        head = ask(site, case.target, b"HEAD", **fields)
    assert (head.status, head.fields, head.content_length) == (get.status, get.fields, len(get.body))


def test_a_304_has_exactly_the_fields_that_it_should(folder: Path) -> None:
    options: dict[str, Any] = {
        "hsts": "max-age=1",
        "cors": "*",
        "headers": (("*", "X-One", "1"), ("*", "Expires", "0")),
    }
    with serving(folder, **options) as site:
        full = ask(site, b"/style.css", accept_encoding="br")
        got = ask(site, b"/style.css", accept_encoding="br", if_none_match=full.fields["etag"])
    assert got.status == 304
    assert got.fields == {
        "etag": full.fields["etag"],
        "vary": "Accept-Encoding",
        "cache-control": "no-cache",
        "expires": "0",
    }


def test_every_form_of_a_file_has_its_own_strong_tag(folder: Path) -> None:
    with serving(folder) as site:
        tags = [
            ask(site, b"/style.css", accept_encoding=coding).fields["etag"] for coding in ("", "br", "zstd", "gzip")
        ]
        assert len(set(tags)) == 4
        assert all(tag.startswith('"') and tag.endswith('"') for tag in tags)
        assert ask(site, b"/style.css", accept_encoding="br", if_none_match=tags[0]).status == 200
        assert ask(site, b"/style.css", accept_encoding="br", if_none_match=tags[1]).status == 304


def test_the_tag_stays_while_the_file_does(folder: Path) -> None:
    with serving(folder) as first, serving(folder) as second:
        assert ask(first, b"/ten.txt").fields["etag"] == ask(second, b"/ten.txt").fields["etag"]


def rewrite(path: Path) -> None:
    path.write_bytes(b"9876543210")
    os.utime(path, (MODIFIED, MODIFIED))


def replace_by_rename(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"9876543210")
    os.utime(other, (MODIFIED, MODIFIED))
    other.rename(path)


def touch(path: Path) -> None:
    os.utime(path, (MODIFIED + 1, MODIFIED + 1))


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


@pytest.mark.parametrize("change", [rewrite, replace_by_rename, touch, append])
def test_the_tag_changes_with_the_file(folder: Path, change: Callable[[Path], None]) -> None:
    """Even where size and modification time are the same as before."""
    with serving(folder) as site:
        before = ask(site, b"/ten.txt").fields["etag"]
        change(folder / "ten.txt")
        after = ask(site, b"/ten.txt")
        assert after.fields["etag"] != before
        assert ask(site, b"/ten.txt", if_none_match=before).status == 200
        assert ask(site, b"/ten.txt", range="bytes=0-1", if_range=before).status == 200


@pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case.status in (200, 206)], ids=lambda case: case.what
)
def test_what_comes_from_a_file_is_left_to_sendfile(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No byte of a file that is not small is in memory, however many parts of it are sent; a listing has no file."""
    monkeypatch.setattr("ktls_server.files.site.SMALL_BYTES", 0)
    with serving(folder, **SITES[case.site]) as site:
        fields = case.request_fields(lambda fields: ask(site, case.target, **fields).fields["etag"])
        headers = [(name.encode(), value.encode()) for name, value in {"host": "localhost", **fields}.items()]
        response = site.respond(Request(case.method, case.target, b"1.1", headers))
        response.close()
    sizes = [part.count for part in response.body if isinstance(part, FileSlice)]
    texts = [part for part in response.body if isinstance(part, bytes)]
    assert response.content_length is not None
    if not response.body:
        assert case.method == b"HEAD" or response.content_length == 0
    elif b"multipart/byteranges" in dict(response.headers)[b"Content-Type"]:
        assert len(sizes) == len(texts) - 1
        assert sum(sizes) + sum(map(len, texts)) == response.content_length
    elif case.site == "listing" and case.target.startswith(b"/docs/"):
        assert not sizes
    else:
        assert (sizes, texts) == ([response.content_length], [])


@pytest.mark.parametrize("size", [0, 1, SMALL_BYTES, SMALL_BYTES + 1])
def test_a_small_file_goes_out_with_its_head(folder: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    (folder / "file.bin").write_bytes(data[:size])
    with serving(folder) as site:
        response = site.respond(Request(b"GET", b"/file.bin", b"1.1", [(b"host", b"localhost")]))
        in_memory = size <= SMALL_BYTES
        assert (response.fd < 0) == in_memory
        assert response.content_length == size
        if in_memory:
            assert response.body == ((data[:size],) if size else ())
        response.close()


def test_a_small_file_that_cannot_be_read_is_a_500_and_one_line_that_names_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_fd: int, _size: int, _offset: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with serving(folder) as site:
        monkeypatch.setattr(os, "pread", fail)
        assert ask(site, b"/ten.txt").status == 500
    assert caplog.messages == ["b'/ten.txt' could not be read: Input/output error"]


def test_ranges_reach_past_four_gibibytes(folder: Path) -> None:
    size = 5 * 1024**3
    with (folder / "sparse.bin").open("wb") as file:
        file.truncate(size)
        file.seek(size - 3)
        file.write(b"end")
    with serving(folder) as site:
        assert ask(site, b"/sparse.bin", b"HEAD").content_length == size
        assert ask(site, b"/sparse.bin", range="bytes=-3").body == b"end"
        got = ask(site, b"/sparse.bin", range=f"bytes={size - 3}-{size - 2},4294967296-4294967296")
        assert f"\r\nContent-Range: bytes {size - 3}-{size - 2}/{size}\r\n\r\nen\r\n".encode() in got.body
        assert f"\r\nContent-Range: bytes 4294967296-4294967296/{size}\r\n\r\n\0\r\n".encode() in got.body


def test_a_sibling_older_than_its_original_is_not_served(folder: Path) -> None:
    os.utime(folder / "style.css.br", (MODIFIED - 1, MODIFIED - 1))
    with serving(folder) as site:
        assert ask(site, b"/style.css", accept_encoding="br").body == STYLE
        assert ask(site, b"/style.css", accept_encoding="br, gzip").body == b"gzip form"


def test_a_sibling_by_a_nanosecond_older_is_not_served(folder: Path) -> None:
    os.utime(folder / "style.css", ns=(0, MODIFIED * 10**9 + 1))
    with serving(folder) as site:
        assert ask(site, b"/style.css", accept_encoding="br").body == STYLE


@pytest.mark.parametrize("kind", ["fifo", "folder", "symlink out", "dangling symlink"])
def test_a_sibling_that_is_no_contained_file_is_passed_over(folder: Path, kind: str) -> None:
    sibling = folder / "style.css.br"
    sibling.unlink()
    if kind == "fifo":
        os.mkfifo(sibling)
    elif kind == "folder":
        sibling.mkdir()
    else:
        sibling.symlink_to("/etc/passwd" if kind == "symlink out" else "nothing")
    with serving(folder) as site:
        assert ask(site, b"/style.css", accept_encoding="br").body == STYLE


def test_a_sibling_alone_does_not_make_its_original(folder: Path) -> None:
    (folder / "style.css").unlink()
    with serving(folder) as site:
        assert ask(site, b"/style.css", accept_encoding="br").status == 404


def test_what_cannot_be_read_is_forbidden_and_its_sibling_not_used(
    folder: Path, as_nobody: Callable[[Callable[[], None]], None]
) -> None:
    (folder / "ten.txt").chmod(0)
    (folder / "style.css.br").chmod(0)

    def look() -> None:
        with serving(folder) as site:
            got = ask(site, b"/ten.txt")
            assert (got.status, got.body) == (403, b"403 Forbidden: This file cannot be read.\n")
            assert ask(site, b"/ten.txt", if_none_match="*").status == 403
            assert ask(site, b"/style.css", accept_encoding="br").body == STYLE
            assert ask(site, b"/style.css", accept_encoding="br, gzip").body == b"gzip form"

    as_nobody(look)


def test_a_file_from_the_future_is_not_said_to_be(folder: Path) -> None:
    """RFC 9110 section 8.8.2.1."""
    os.utime(folder / "ten.txt", (2**33, 2**33))
    with serving(folder) as site:
        got = ask(site, b"/ten.txt")
        assert "2242" not in got.fields["last-modified"]


@pytest.mark.parametrize("nanoseconds", [-1, -(10**18), 0])
def test_a_file_from_before_the_epoch_is_served(folder: Path, nanoseconds: int) -> None:
    os.utime(folder / "ten.txt", ns=(0, nanoseconds))
    with serving(folder) as site:
        assert ask(site, b"/ten.txt").fields["last-modified"] == "Thu, 01 Jan 1970 00:00:00 GMT"


@pytest.mark.parametrize(
    ("version", "fields", "status", "close"),
    [
        (b"1.1", [], 400, True),
        (b"1.0", [], 200, False),
        (b"1.1", [(b"host", b"a"), (b"host", b"a")], 400, True),
        (b"1.0", [(b"host", b"a"), (b"host", b"b")], 400, True),
        (b"1.1", [(b"host", b"a b")], 400, True),
        (b"1.1", [(b"host", b"")], 200, False),
        (b"1.1", [(b"host", b"anything:1")], 200, False),
    ],
)
def test_http_1_1_needs_one_valid_host(
    folder: Path, version: bytes, fields: list[tuple[bytes, bytes]], status: int, close: bool
) -> None:
    with serving(folder) as site:
        got = answer(site, Request(b"GET", b"/ten.txt", version, fields))
        assert (got.status, got.close) == (status, close)


def test_fields_that_came_twice_count_as_one_list(folder: Path) -> None:
    with serving(folder) as site:
        tag = ask(site, b"/ten.txt").fields["etag"].encode()
        fields = [(b"host", b"a"), (b"if-none-match", b'"other"'), (b"if-none-match", tag)]
        assert answer(site, Request(b"GET", b"/ten.txt", b"1.1", fields)).status == 304
        fields = [(b"host", b"a"), (b"range", b"bytes=0-1"), (b"range", b"bytes=3-4")]
        assert answer(site, Request(b"GET", b"/ten.txt", b"1.1", fields)).status == 200


def test_the_folder_may_have_its_own_error_pages(folder: Path) -> None:
    (folder / "404.html").write_bytes(b"<h1>Lost?</h1>")
    with serving(folder) as site:
        for accept in ("text/html", "*/*"):
            got = ask(site, b"/nothing", accept=accept)
            assert (got.status, got.body) == (404, b"<h1>Lost?</h1>")
            assert (got.fields["content-type"], got.fields["cache-control"]) == (HTML, "no-cache")
            assert "etag" not in got.fields
        head = ask(site, b"/nothing", b"HEAD")
        assert (head.status, head.body, head.content_length) == (404, b"", 14)
        assert ask(site, b"/nothing", accept="application/json").body.startswith(b"404 Not Found")
        assert ask(site, b"/404.html").status == 200


def test_an_error_page_that_leads_out_is_not_shown(folder: Path) -> None:
    (folder / "404.html").symlink_to("/etc/passwd")
    with serving(folder) as site:
        assert ask(site, b"/nothing").body == b"404 Not Found: There is nothing here.\n"


def test_an_error_before_there_is_a_request_leaves_the_folder_alone(folder: Path) -> None:
    (folder / "400.html").write_bytes(b"own page")
    with serving(folder) as site:
        response = site.error(400, "This is no HTTP.", close=True)
    assert response.body == (b"400 Bad Request: This is no HTTP.\n",)
    assert (response.fd, response.close_connection) == (-1, True)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_without_descriptors_the_answer_is_a_503(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def no_more(_root: Root, _path: bytes, **_: object) -> int:
        return -code

    with serving(folder) as site:
        monkeypatch.setattr(Root, "_look", no_more)
        for target in (b"/ten.txt", b"/"):
            got = ask(site, target)
            assert (got.status, got.fields["retry-after"]) == (503, "1")


def test_a_disk_that_fails_is_a_500_and_named_in_the_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_root: Root, _path: bytes, **_: object) -> int:
        return -errno.EIO

    with serving(folder) as site:
        monkeypatch.setattr(Root, "_look", fail)
        assert ask(site, b"/ten.txt").status == 500
    assert "OSError EIO at " in caplog.text


def test_an_index_that_cannot_be_read_is_forbidden(
    folder: Path, as_nobody: Callable[[Callable[[], None]], None]
) -> None:
    (folder / "site" / "index.html").chmod(0)

    def look() -> None:
        with serving(folder, listing=True) as site:
            assert ask(site, b"/site/").status == 403

    as_nobody(look)


def test_an_unexpected_error_is_a_500_and_a_log_line_without_the_request(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_root: Root, path: bytes) -> None:
        raise RuntimeError(path)

    with serving(folder) as site, caplog.at_level(logging.ERROR):
        monkeypatch.setattr(Root, "find", fail)
        got = ask(site, b"/very-secret-name")
    assert got.status == 500
    assert b"RuntimeError" not in got.body
    (record,) = caplog.records
    assert "RuntimeError" in record.getMessage()
    assert "test_site.py" in record.getMessage()
    assert "very-secret-name" not in caplog.text


def test_an_error_while_the_answer_is_made_leaves_no_descriptor(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    with serving(folder) as site:
        monkeypatch.setattr("ktls_server.files.site.describe", fail)
        assert ask(site, b"/ten.txt").status == 500
    assert len(caplog.records) == 1


def test_a_site_whose_root_is_no_folder_does_not_start(folder: Path) -> None:
    with pytest.raises(NotADirectoryError):
        Site(SiteOptions(root=folder / "ten.txt"))
    with pytest.raises(FileNotFoundError):
        Site(SiteOptions(root=folder / "nothing"))


field_names = st.sampled_from(
    [b"host", b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since", b"accept", b"accept-encoding",
     b"origin", b"authorization", b"access-control-request-method"]
)  # fmt: skip
targets = st.one_of(
    st.binary(max_size=40).map(lambda tail: b"/" + tail),
    st.binary(max_size=20),
    st.sampled_from([b"/", b"/ten.txt", b"/style.css", b"/docs", b"/docs/", b"/%2e%2e/", b"/way_out", b"/fifo", b"*"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
@given(
    method=st.sampled_from([b"GET", b"HEAD", b"OPTIONS", b"POST"]) | st.binary(max_size=5),
    target=targets,
    version=st.sampled_from([b"1.0", b"1.1"]),
    fields=st.lists(st.tuples(field_names, st.binary(max_size=30)), max_size=5),
    options=st.fixed_dictionaries({"listing": st.booleans(), "spa": st.booleans(), "hidden_files": st.booleans()}),
)
def test_every_request_gets_an_answer_that_can_be_sent(
    folder: Path, caplog: pytest.LogCaptureFixture, method: bytes, target: bytes, version: bytes,
    fields: list[tuple[bytes, bytes]], options: dict[str, Any],
) -> None:  # fmt: skip
    with serving(folder, **options) as site:
        got = answer(site, Request(method, target, version, fields))
    check_invariants(got, method)
    assert got.status < 500 or got.status == 501
    assert b"root:" not in got.body
    assert not caplog.records
