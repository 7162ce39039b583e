"""Globs, content types."""

from __future__ import annotations

import pytest

from ktls_server.files.content_types import content_type_of
from ktls_server.files.rules import compile_glob


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("*.html", "a.html", True),
        ("*.html", "a/b.html", True),
        ("*.html", "a.html/b", False),
        ("*.html", "a.htmlx", False),
        ("*", "a/b", True),
        ("**", "a/b", True),
        ("/*", "a", True),
        ("/*", "a/b", False),
        ("/a.txt", "a.txt", True),
        ("/a.txt", "b/a.txt", False),
        ("a/*", "a/b", True),
        ("a/*", "a/b/c", False),
        ("a/*", "b/a/c", False),
        ("a/**", "a/b/c", True),
        ("a/**", "a/", True),
        ("a/**", "ab", False),
        ("**/a/*", "a/b", True),
        ("**/a/*", "x/y/a/b", True),
        ("**/a/*", "xa/b", False),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/**/z", "az", False),
        ("?.txt", "a.txt", True),
        ("?.txt", ".txt", False),
        ("?.txt", "ab.txt", False),
        ("a.b", "axb", False),
        ("[ab].txt", "a.txt", False),
        ("[ab].txt", "[ab].txt", True),
        ("*.txt", "a\nb.txt", True),
        ("é*", "été/énorme", True),
    ],
)
def test_what_a_glob_matches(glob: str, path: str, matches: bool) -> None:
    assert (compile_glob(glob).fullmatch(path) is not None) is matches


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (b"/a.html", b"text/html; charset=utf-8"),
        (b"/a.HTM", b"text/html; charset=utf-8"),
        (b"/a.js", b"text/javascript; charset=utf-8"),
        (b"/a.mjs", b"text/javascript; charset=utf-8"),
        (b"/a.css", b"text/css; charset=utf-8"),
        (b"/a.json", b"application/json"),
        (b"/a.wasm", b"application/wasm"),
        (b"/a.svg", b"image/svg+xml"),
        (b"/a.webp", b"image/webp"),
        (b"/a.woff2", b"font/woff2"),
        (b"/a.mp4", b"video/mp4"),
        (b"/a.tar.gz", b"application/gzip"),
        (b"/a.pdf", b"application/pdf"),
        (b"/a", b"application/octet-stream"),
        (b"/a.", b"application/octet-stream"),
        (b"/a.html/b", b"application/octet-stream"),
        (b"/\xff.txt", b"text/plain; charset=utf-8"),
        (b"/a.\xff", b"application/octet-stream"),
    ],
)
def test_the_type_that_a_name_tells(path: bytes, value: bytes) -> None:
    assert content_type_of(path).value == value


@pytest.mark.parametrize(
    ("path", "compressible"),
    [
        (b"a.html", True),
        (b"a.json", True),
        (b"a.svg", True),
        (b"a.wasm", True),
        (b"a.webmanifest", True),
        (b"a.png", False),
        (b"a.mp4", False),
        (b"a.woff2", False),
        (b"a.zip", False),
        (b"a.gz", False),
        (b"a.br", False),
        (b"a.zst", False),
        (b"a", False),
    ],
)
def test_the_types_that_shrink(path: bytes, compressible: bool) -> None:
    assert content_type_of(path).compressible is compressible
