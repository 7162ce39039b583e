"""The listing: what is in it, how names are shown and linked, how it is sorted."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Awaitable, Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ktls_server.files import listing
from ktls_server.files.listing import (
    Entries,
    Entry,
    Order,
    SortKey,
    as_html,
    as_json,
    human_size,
    order_of_query,
    read_entries,
)
from ktls_server.files.resolve import Found, Root
from ktls_server.files.site import Site, SiteOptions
from ktls_server.semantics.messages import Request, Response

from .asking import Answer, ask

ANY_NAMES = [
    b"plain.txt",
    b"with space",
    b"<script>alert(1)<",
    b"\"quoted\" & 'so'",
    b"a:b",
    b"%41",
    b"#hash?query",
    b"back\\slash",
    b"new\nline",
    b"tab\there",
    "ünï-漢字-👩‍🚀".encode(),
    b"latin-\xfc",
    b"\xff\xfe",
    "right\u202eleft".encode(),
    b"-",
    b" ",
    b"x..",
]


class Page(HTMLParser):
    """What a browser would make of the page: links with their text, attributes, and whether anything is loaded."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: dict[str, str] = {}
        self.tags: set[str] = set()
        self.style = ""
        self._in_style = False
        self._href: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._in_style = tag == "style"
        if tag == "a":
            self._href = dict(attributes)["href"]
            assert self._href is not None
            self.links[self._href] = ""

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False
        if tag == "a":
            self._href = None

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.style += data
        elif self._href is not None:
            self.links[self._href] += data


def asked(
    folder: Path, target: bytes = b"/", method: bytes = b"GET", /, *, hidden: bool = False, **fields: str
) -> Answer:
    site = Site(SiteOptions(root=folder, listing=True, hidden_files=hidden))
    try:
        return ask(site, target, method, **fields)
    finally:
        site.close()


def as_data(folder: Path, target: bytes = b"/", /, *, hidden: bool = False) -> dict[str, Any]:
    got = asked(folder, target, hidden=hidden, accept="application/json")
    assert got.status == 200
    assert got.fields["content-type"] == "application/json"
    data: dict[str, Any] = json.loads(got.body)
    return data


def names(data: dict[str, Any]) -> list[str]:
    return [entry["name"] for entry in data["entries"]]


def create(folder: Path, name: bytes, content: bytes = b"") -> None:
    with open(os.path.join(os.fsencode(folder), name), "wb") as file:
        file.write(content)


def test_listings_are_off_by_default(tmp_path: Path) -> None:
    site = Site(SiteOptions(root=tmp_path))
    assert ask(site, b"/").status == 404
    site.close()


def test_an_index_file_comes_before_the_listing(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_bytes(b"index")
    assert asked(tmp_path).body == b"index"


def test_every_name_is_linked_so_that_the_link_leads_to_the_file(tmp_path: Path) -> None:
    for number, name in enumerate(ANY_NAMES):
        create(tmp_path, name, b"%d" % number)
    page = Page(asked(tmp_path).body.decode())
    links = [href for href in page.links if not href.startswith("?")]
    bodies = set()
    for href in links:
        target = urljoin("https://host/", href).removeprefix("https://host")
        bodies.add(asked(tmp_path, target.encode("ascii")).body)
    assert len(links) == len(ANY_NAMES)
    assert bodies == {b"%d" % number for number in range(len(ANY_NAMES))}


def test_the_json_has_the_same_links(tmp_path: Path) -> None:
    for name in ANY_NAMES:
        create(tmp_path, name)
    page = Page(asked(tmp_path).body.decode())
    assert {entry["href"] for entry in as_data(tmp_path)["entries"]} == {href for href in page.links if href[0] != "?"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"a<b>&c", "a<b>&c"),
        ("ünï-漢字-👩‍🚀".encode(), "ünï-漢字-👩‍🚀"),
        (b"caf\xe9", "caf\\xe9"),
        (b"\xff", "\\xff"),
        (b"new\nline", "new\\x0aline"),
        (b"\x7f\x1b[2J", "\\x7f\\x1b[2J"),
        ("gnp\u202eexe".encode(), "gnp\\u202eexe"),
        ("zero\u200bwidth".encode(), "zero\\u200bwidth"),
        ("line\u2028end".encode(), "line\\u2028end"),
    ],
)
def test_names_are_shown_as_what_they_are(name: bytes, shown: str) -> None:
    page = Page(as_html(b"/", Entries([Entry(name, False, 0, 0)], True), Order()).decode())
    assert [text for href, text in page.links.items() if href[0] != "?"] == [shown]


@given(st.lists(st.binary(min_size=1, max_size=20).filter(lambda name: b"/" not in name), unique=True, max_size=5))
def test_no_name_breaks_out_of_the_page(some_names: list[bytes]) -> None:
    entries = Entries([Entry(name, False, 0, 0) for name in some_names], True)
    page = as_html(b"/" + b"".join(name + b"/" for name in some_names), entries, Order()).decode()
    allowed = {"html", "meta", "title", "style", "svg", "symbol", "path", "h1", "a", "span", "bdi", "code", "p", "table",
               "thead", "tbody", "tr", "th", "td", "use"}  # fmt: skip
    assert Page(page).tags <= allowed
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069]", page)
    assert json.loads(as_json(b"/", entries, Order()))["complete"] is True


def test_the_page_loads_nothing_and_its_policy_says_so(tmp_path: Path) -> None:
    got = asked(tmp_path)
    page = Page(got.body.decode())
    style_hash = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    policy = got.fields["content-security-policy"]
    assert f"style-src 'sha256-{style_hash}'" in policy
    assert policy.startswith("default-src 'none';")
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert not re.search(rb"https?:|url\(|@import|\sstyle=|\son\w+=", got.body)


def test_an_operators_policy_does_not_take_the_pages_style_away(tmp_path: Path) -> None:
    site = Site(
        SiteOptions(root=tmp_path, listing=True, csp="default-src 'self'", cache_control=(("**", "max-age=9"),))
    )
    got = ask(site, b"/")
    site.close()
    assert got.fields["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert got.fields["cache-control"] == "no-cache"


def test_listed_is_what_can_be_asked_for(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "file").write_bytes(b"123")
    (root / ".hidden").write_bytes(b"")
    (tmp_path / "secret").write_bytes(b"secret")
    os.mkfifo(root / "fifo")
    for name, target in {
        "to file": "file",
        "to folder": "folder",
        "absolute": str(root / "file"),
        "out": "../secret",
        "out absolute": "/etc/passwd",
        "dangling": "nothing",
        "loop": "loop",
    }.items():
        (root / name).symlink_to(target)
    data = as_data(root)
    assert [(entry["name"], entry["type"], entry["size"]) for entry in data["entries"]] == [
        ("folder", "folder", None),
        ("to folder", "folder", None),
        ("absolute", "file", 3),
        ("file", "file", 3),
        ("to file", "file", 3),
    ]
    assert ".hidden" in names(as_data(root, hidden=True))
    page = Page(asked(root).body.decode())
    for href in page.links:
        if not href.startswith("?"):
            assert asked(root, b"/" + href.encode()).status == 200


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", ["b", "A2", "a9", "a10"]),
        (b"?sort=name&order=desc", ["b", "a10", "a9", "A2"]),
        (b"?sort=size", ["b", "a10", "A2", "a9"]),
        (b"?sort=size&order=desc", ["b", "a9", "A2", "a10"]),
        (b"?sort=time", ["b", "a9", "a10", "A2"]),
        (b"?order=desc&sort=time", ["b", "A2", "a10", "a9"]),
        (b"?sort=color&order=sideways", ["b", "A2", "a9", "a10"]),
        (b"?<script>", ["b", "A2", "a9", "a10"]),
    ],
)
def test_the_order(tmp_path: Path, query: bytes, expected: list[str]) -> None:
    """Folders first; numbers by value; no regard to case."""
    (tmp_path / "b").mkdir()
    for name, size, modified in (("a9", 300, 1), ("a10", 100, 2), ("A2", 200, 3)):
        (tmp_path / name).write_bytes(b"x" * size)
        os.utime(tmp_path / name, (modified, modified))
    assert names(as_data(tmp_path, b"/" + query)) == expected


def test_the_column_heads_link_to_the_other_order() -> None:
    def heads(order: Order) -> list[str]:
        page = as_html(b"/", Entries([], True), order).decode()
        return [href for href in Page(page).links if href.startswith("?")]

    assert heads(Order()) == ["?sort=name&order=desc", "?sort=size&order=asc", "?sort=time&order=asc"]
    assert heads(Order(SortKey.SIZE, True)) == ["?sort=name&order=asc", "?sort=size&order=asc", "?sort=time&order=asc"]
    assert order_of_query(b"sort=size&order=asc") == Order(SortKey.SIZE, False)


def test_the_way_up_is_linked(tmp_path: Path) -> None:
    (tmp_path / "a" / "b c").mkdir(parents=True)
    page = Page(asked(tmp_path, b"/a/b%20c/").body.decode())
    assert page.links["../../"] == "Home"
    assert page.links["../"] == ".."
    assert Page(asked(tmp_path).body.decode()).links.get("../") is None


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert b"<p>This folder is empty.</p>" in asked(tmp_path).body


def test_what_is_counted(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "one").write_bytes(b"x" * 1500)
    (tmp_path / "two").write_bytes(b"x" * 36)
    assert b"<p>1 folder, 2 files, 1.5 KiB</p>" in asked(tmp_path).body


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (10188, "9.9 KiB"),
        (10189, "10 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (2**63, "8.0 EiB"),
    ],
)
def test_sizes_as_people_read_them(size: int, text: str) -> None:
    assert human_size(size) == text


def test_ten_thousand_entries_are_all_listed_and_one_more_is_said_to_be_left_out(tmp_path: Path) -> None:
    for number in range(listing.MAX_ENTRIES):
        (tmp_path / f"{number}").touch()
    data = as_data(tmp_path)
    assert names(data) == [str(number) for number in range(listing.MAX_ENTRIES)]
    assert data["complete"] is True
    (tmp_path / "one more").touch()
    data = as_data(tmp_path)
    assert len(data["entries"]) == listing.MAX_ENTRIES
    assert data["complete"] is False
    assert f"there is more than these {listing.MAX_ENTRIES:,}".encode() in asked(tmp_path).body


def test_a_listing_is_validated_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    first = asked(tmp_path)
    assert first.fields["vary"] == "Accept"
    assert "last-modified" not in first.fields
    again = asked(tmp_path, if_none_match=first.fields["etag"])
    assert (again.status, again.fields) == (
        304,
        {"etag": first.fields["etag"], "vary": "Accept", "cache-control": "no-cache"},
    )
    assert asked(tmp_path, b"/", b"HEAD").content_length == len(first.body)
    assert asked(tmp_path, accept="application/json").fields["etag"] != first.fields["etag"]
    (tmp_path / "file").write_bytes(b"12")
    assert asked(tmp_path, if_none_match=first.fields["etag"]).status == 200


def test_ranges_of_a_listing_are_ignored(tmp_path: Path) -> None:
    got = asked(tmp_path, range="bytes=0-1")
    assert (got.status, "accept-ranges" in got.fields) == (200, False)


@pytest.mark.parametrize("target", [b"/nothing/", b"/file/", b"/.hidden/", b"/out/"])
def test_what_is_no_folder_inside_is_not_listed(tmp_path: Path, target: bytes) -> None:
    (tmp_path / "file").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "out").symlink_to("/etc")
    assert asked(tmp_path, target).status == 404


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.binary(min_size=1, max_size=40), unique=True, min_size=1, max_size=20), st.sampled_from(SortKey))
def test_any_names_can_be_sorted(some_names: list[bytes], key: SortKey) -> None:
    entries = [Entry(name, bool(name[0] % 2), len(name), name[0]) for name in some_names]
    for descending in (False, True):
        result = listing.sort_entries(entries, Order(key, descending))
        assert sorted(result) == sorted(entries)
        assert [entry.is_folder for entry in result] == sorted((entry.is_folder for entry in entries), reverse=True)


def test_a_folder_of_what_is_not_shown_is_looked_at_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Symlinks that lead out are resolved one by one and never shown: their number is bounded by itself."""
    monkeypatch.setattr(listing, "MAX_SYMLINKS", 5)
    (tmp_path / "out").symlink_to("/etc")
    for number in range(20):
        (tmp_path / f"{number:02}").symlink_to("/etc/passwd")
    root = Root(tmp_path)
    resolved: list[bytes] = []
    original = Root.find

    def find(root: Root, path: bytes) -> Found:
        resolved.append(path)
        return original(root, path)

    monkeypatch.setattr(Root, "find", find)
    found = original(root, b"")
    entries = read_entries(root, found, b"/", hidden=False)
    os.close(found.fd)
    assert (entries.entries, entries.complete) == ([], False)
    assert len(resolved) <= 5
    monkeypatch.setattr(listing, "MAX_SYMLINKS", 100)
    monkeypatch.setattr(listing, "MAX_LOOKED_AT", 7)
    found = original(root, b"")
    assert not read_entries(root, found, b"/", hidden=False).complete
    os.close(found.fd)
    assert len(resolved) <= 5 + 7
    root.close()


def test_a_listing_is_made_once_a_second_and_anew_when_the_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bytes] = []
    original = read_entries

    def count(*args: Any, **options: Any) -> Entries:
        made.append(args[2])
        return original(*args, **options)

    monkeypatch.setattr("ktls_server.files.site.read_entries", count)
    (tmp_path / "a.txt").write_bytes(b"a")
    site = Site(SiteOptions(tmp_path, listing=True))
    for _ in range(10):
        for method in (b"GET", b"HEAD"):
            assert ask(site, b"/", method).status == 200
    assert len(made) == 1
    (tmp_path / "b.txt").write_bytes(b"b")
    assert b"b.txt" in ask(site, b"/").body
    assert len(made) == 2
    monkeypatch.setattr("ktls_server.files.site._LISTING_SECONDS", 0.0)
    (tmp_path / "a.txt").write_bytes(b"a" * 2000)  # which does not change the folder
    assert b"2.0 KiB" in ask(site, b"/").body
    site.close()


async def test_a_large_folder_is_listed_elsewhere_and_a_small_one_at_once(tmp_path: Path) -> None:
    for number in range(600):
        (tmp_path / f"{number}.txt").touch()
    (tmp_path / "small").mkdir()
    threads: list[int] = []

    def elsewhere(function: Callable[[], object]) -> Awaitable[object]:
        def work() -> object:
            threads.append(threading.get_ident())
            return function()

        return asyncio.to_thread(work)

    site = Site(SiteOptions(tmp_path, listing=True, elsewhere=elsewhere))

    def request(method: bytes, target: bytes) -> Request:
        return Request(method, target, b"1.1", [(b"host", b"localhost")])

    small = site.handle(request(b"GET", b"/small/"))
    assert isinstance(small, Response)
    large = site.handle(request(b"GET", b"/"))
    assert not isinstance(large, Response)
    answer = await large
    assert answer.status == 200
    assert answer.body[0] == ask(site, b"/").body
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
    again = site.handle(request(b"HEAD", b"/"))
    assert isinstance(again, Response), "it was made a moment ago"
    assert again.content_length == answer.content_length
    site.close()


async def test_a_large_folder_that_is_gone_meanwhile_is_a_404(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for number in range(600):
        (tmp_path / "folder" / f"{number}.txt").touch()

    async def elsewhere(function: Callable[[], object]) -> object:
        shutil.rmtree(tmp_path / "folder")
        return function()

    site = Site(SiteOptions(tmp_path, listing=True, elsewhere=elsewhere))
    waiting = site.handle(Request(b"GET", b"/folder/", b"1.1", [(b"host", b"localhost")]))
    assert not isinstance(waiting, Response)
    assert (await waiting).status == 404
    site.close()


@pytest.mark.parametrize("cause", ["changes", "slow"])
async def test_a_large_folder_is_never_listed_on_the_loop(
    cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing that is out of date once it is made is the answer all the same."""
    for number in range(600):
        (tmp_path / f"{number}.txt").touch()
    threads: list[int] = []

    def read(root: Root, found: Found, folder: bytes, *, hidden: bool) -> Entries:
        threads.append(threading.get_ident())
        entries = read_entries(root, found, folder, hidden=hidden)
        if cause == "changes":
            (tmp_path / f"new{len(threads)}.txt").touch()
        return entries

    monkeypatch.setattr("ktls_server.files.site.read_entries", read)
    if cause == "slow":
        monkeypatch.setattr("ktls_server.files.site._LISTING_SECONDS", 0.0)
    site = Site(SiteOptions(tmp_path, listing=True, elsewhere=asyncio.to_thread))
    waiting = site.handle(Request(b"GET", b"/", b"1.1", [(b"host", b"localhost")]))
    assert not isinstance(waiting, Response)
    assert (await waiting).status == 200
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
    site.close()
