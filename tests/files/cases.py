"""What a request gets, as a table: the request, what is on disk, and the status, fields and body that answer it.

It is run twice: on a `Site` by itself (test_site.py), and over TLS against the server with each path and loop
(tests/server/test_cases.py).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MODIFIED = 784111777
MODIFIED_DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
LATER_DATE = "Sun, 06 Nov 1994 08:49:38 GMT"
EARLIER_DATE = "Sun, 06 Nov 1994 08:49:36 GMT"

INDEX = b"<!doctype html><title>Home</title>"
TEXT = b"0123456789"
STYLE = b"body{color:red}" * 100
APPLICATION = b"<!doctype html><title>Application</title>"
LOST = b"<!doctype html><title>Lost?</title>"
SECRET = b"outside the folder"

ON_DISK = {
    b"index.html": INDEX,
    b"ten.txt": TEXT,
    b"empty.txt": b"",
    b"unknown": b"?",
    b"UPPER.HTML": b"<p>",
    b"style.css": STYLE,
    b"style.css.br": b"br form",
    b"style.css.zst": b"zstd form",
    b"style.css.gz": b"gzip form",
    b"photo.jpg": b"\xff\xd8",
    b"photo.jpg.gz": b"not for this type",
    b"docs/guide.md": b"# Guide",
    b"site/index.html": b"<h1>Site</h1>",
    b"b\xfccher/caf\xc3\xa9 1.txt": b"latin and utf-8",
    b"100%25.txt": b"percent",
    b".env": b"SECRET=1",
    b".git/config": b"[core]",
    b".well-known/acme-challenge/token": b"token",
    b".well-known/.hidden": b"hidden",
    b"docs/.hidden.txt": b"hidden",
    b"app/index.html": APPLICATION,
    b"app/404.html": LOST,
    b"app/data.json": b"{}",
    b"app/.env": b"SECRET=2",
}
SYMLINKS = {
    "link.txt": "ten.txt",
    "docs/link.txt": "../ten.txt",
    "way_out": "../secret.txt",
    "folder_out": "..",
    "nowhere": "not_there",
    "loop": "loop",
}


def make_folder(folder: Path) -> Path:
    """Fills an existing folder with `ON_DISK`, all last modified at `MODIFIED`, `SYMLINKS`, a FIFO and a socket.

    Beside it stands `secret.txt`, which must never be served.
    """
    (folder.parent / "secret.txt").write_bytes(SECRET)
    for name, content in ON_DISK.items():
        path = os.path.join(os.fsencode(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        os.utime(path, (MODIFIED, MODIFIED))
    for link, target in SYMLINKS.items():
        (folder / link).symlink_to(target)
    # Both ways round: an absolute link counts as what it leads to.
    (folder / "absolute_link.txt").symlink_to(folder / "ten.txt")
    os.mkfifo(folder / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(folder)  # a socket's whole path may have 108 bytes only (unix(7))
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
    return folder


SITES: dict[str, dict[str, Any]] = {
    "plain": {},
    "open": {
        "index": ("index.html", "guide.md"),
        "hidden_files": True,
        "precompressed": False,
    },
    "listing": {"listing": True},
    "ruled": {
        "cache_control": (("*.css", "max-age=60"), ("docs/**", "no-store"), ("*.md", "private")),
        "headers": (
            ("*.html", "X-One", "1"),
            ("*.css", "X-Two", "2"),
            ("*.txt", "Content-Type", "text/plain; charset=latin-1"),
            ("*.txt", "Vary", "Origin"),
        ),
        "hsts": "max-age=1",
        "csp": "default-src 'self'",
        "cors": "*",
    },
    "application": {"root": "app", "spa": True, "cors": "https://app.example"},
}
"""The ways in which the folder is served, as fields of `SiteOptions`; `root` is a folder in it."""


@dataclass(frozen=True)
class Case:
    """One line of the table. `fields` are those that the answer must have; None stands for one that it must not have.

    In `request`, `{etag}` stands for the tag of the same target; in `fields` and `body`, `{boundary}` for what separates
    the parts of a multipart answer.
    """

    what: str
    target: bytes
    status: int
    fields: dict[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    method: bytes = b"GET"
    request: dict[str, str] = field(default_factory=dict)
    site: str = "plain"

    def request_fields(self, tag_of: Callable[[dict[str, str]], str]) -> dict[str, str]:
        """What to send. `tag_of` asks for the same target with some fields and returns the tag of what comes."""
        fields = {name.replace("_", "-"): value for name, value in self.request.items()}
        if not any("{etag}" in value for value in fields.values()):
            return fields
        tag = tag_of({name: value for name, value in fields.items() if name == "accept-encoding"})
        return {name: value.replace("{etag}", tag) for name, value in fields.items()}

    def check(self, status: int, fields: dict[str, str], body: bytes) -> None:
        """Compare with an answer; field names are lower-case, and one that came twice is joined by a comma."""
        boundary = fields.get("content-type", "").partition("; boundary=")[2]
        assert status == self.status
        wanted = {name: value and value.replace("{boundary}", boundary) for name, value in self.fields.items()}
        assert {name: fields.get(name) for name in self.fields} == wanted
        if self.body is not None:
            assert body == self.body.replace(b"{boundary}", boundary.encode())


HTML, PLAIN, JSON = "text/html; charset=utf-8", "text/plain; charset=utf-8", "application/json"
NAVIGATION = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
ALLOW = "GET, HEAD, OPTIONS"

FILES = [
    Case("a file", b"/ten.txt", 200, {"content-type": PLAIN, "last-modified": MODIFIED_DATE}, TEXT),
    Case("its query is ignored", b"/ten.txt?v=1&../..", 200, {}, TEXT),
    Case("an empty file", b"/empty.txt", 200, {"accept-ranges": "bytes"}, b""),
    Case("no extension", b"/unknown", 200, {"content-type": "application/octet-stream"}, b"?"),
    Case("extensions know no case", b"/UPPER.HTML", 200, {"content-type": HTML}, b"<p>"),
    Case("an image", b"/photo.jpg", 200, {"content-type": "image/jpeg", "vary": None}, b"\xff\xd8"),
    Case("any bytes in names", b"/b%FCcher/caf%C3%A9%201.txt", 200, {}, b"latin and utf-8"),
    Case("a percent sign in a name", b"/100%2525.txt", 200, {}, b"percent"),
    Case("absolute-form", b"http://example.com/ten.txt", 200, {}, TEXT),
    Case("absolute-form without a path", b"https://example.com?q", 200, {}, INDEX),
    Case("doubled slashes", b"//ten.txt", 200, {}, TEXT),
    Case("a symlink inside", b"/link.txt", 200, {"last-modified": MODIFIED_DATE}, TEXT),
    Case("a symlink up, but inside", b"/docs/link.txt", 200, {}, TEXT),
    Case("an absolute symlink inside", b"/absolute_link.txt", 200, {}, TEXT),
    Case("always: no guessing of types", b"/ten.txt", 200, {"x-content-type-options": "nosniff"}),
    Case("by default: ask before each use", b"/ten.txt", 200, {"cache-control": "no-cache"}),
]

GUIDE_AS_JSON = b'{"name":"guide.md","href":"guide.md","type":"file","size":7,"modified":"1994-11-06T08:49:37Z"}'
TEN_AS_JSON = b'{"name":"link.txt","href":"link.txt","type":"file","size":10,"modified":"1994-11-06T08:49:37Z"}'

FOLDERS = [
    Case("the root's index", b"/", 200, {"content-type": HTML}, INDEX),
    Case("a folder's index", b"/site/", 200, {}, b"<h1>Site</h1>"),
    Case("a folder without its slash", b"/site", 301, {"location": "/site/"}, b""),
    Case("the query goes along", b"/site?a=b&c", 301, {"location": "/site/?a=b&c"}),
    Case("names are encoded again", b"/b%FCcher", 301, {"location": "/b%FCcher/"}),
    Case("never to another host", b"//site", 301, {"location": "/site/"}),
    Case("nor by way of dots", b"/.//site", 301, {"location": "/site/"}),
    Case("nor for absolute-form", b"https://other.example/site", 301, {"location": "/site/"}),
    Case("a folder without an index", b"/docs/", 404),
    Case("a file with a slash", b"/ten.txt/", 404),
    Case("another index", b"/docs/", 200, {}, b"# Guide", site="open"),
    Case("a listing", b"/docs/", 200,
         {"content-type": HTML, "vary": "Accept", "accept-ranges": None, "last-modified": None}, site="listing"),
    Case("a listing as JSON", b"/docs/", 200, {"content-type": JSON, "vary": "Accept"},
         b'{"path":"/docs/","complete":true,"entries":[%b,%b]}' % (GUIDE_AS_JSON, TEN_AS_JSON),
         request={"accept": "application/json"}, site="listing"),
    Case("a listing, sorted", b"/docs/?sort=size&order=desc", 200, {},
         b'{"path":"/docs/","complete":true,"entries":[%b,%b]}' % (TEN_AS_JSON, GUIDE_AS_JSON),
         request={"accept": "application/json"}, site="listing"),
    Case("a listing that is the same as before", b"/docs/", 304, {"vary": "Accept"}, b"",
         request={"if_none_match": "{etag}"}, site="listing"),
    Case("one form's tag is not the other's", b"/docs/", 200, {},
         request={"if_none_match": "{etag}", "accept": "application/json;q=0.5, text/html;q=0.1"}, site="listing"),
    Case("HEAD of a listing", b"/docs/", 200, {"content-type": HTML}, b"", b"HEAD", site="listing"),
    Case("an index comes before a listing", b"/site/", 200, {}, b"<h1>Site</h1>", site="listing"),
    Case("a hidden folder has no listing", b"/.git/", 404, site="listing"),
    Case("a folder outside has no listing", b"/folder_out/", 404, site="listing"),
]  # fmt: skip

NOT_SERVED = [
    Case("nothing there", b"/nothing", 404, {"content-type": PLAIN, "cache-control": "no-cache"}),
    Case("up", b"/../secret.txt", 400),
    Case("up, encoded", b"/%2e%2e/secret.txt", 400),
    Case("up, slash encoded", b"/..%2Fsecret.txt", 404),
    Case("an absolute path", b"//etc/passwd", 404),
    Case("NUL", b"/ten.txt%00.html", 400),
    Case("a broken escape", b"/%g0", 400),
    Case("a backslash is no slash", b"/..%5C..%5Cetc%5Cpasswd", 404),
    Case("a symlink out", b"/way_out", 404),
    Case("a folder that is a symlink out", b"/folder_out/secret.txt", 404),
    Case("a symlink to nothing", b"/nowhere", 404),
    Case("a symlink to itself", b"/loop", 404),
    Case("a FIFO", b"/fifo", 404),
    Case("a socket", b"/socket", 404),
    Case("a hidden file", b"/.env", 404),
    Case("a file in a hidden folder", b"/.git/config", 404),
    Case("a hidden folder does not redirect", b"/.git", 404, {"location": None}),
    Case("a hidden file further down", b"/docs/.hidden.txt", 404),
    Case("RFC 8615 names are no secret", b"/.well-known/acme-challenge/token", 200, {}, b"token"),
    Case("but what is hidden there is", b"/.well-known/.hidden", 404),
    Case("hidden files, if wanted", b"/.env", 200, {}, b"SECRET=1", site="open"),
    Case("a name that is too long", b"/" + b"a" * 300, 404),
    Case("a target that is too long", b"/" + b"a" * 9000, 414),
    Case("asterisk-form is for OPTIONS", b"*", 400),
    Case("authority-form is for CONNECT", b"localhost:443", 400),
]

METHODS = [
    Case("HEAD", b"/ten.txt", 200, {"content-type": PLAIN}, b"", b"HEAD"),
    Case("HEAD of nothing", b"/nothing", 404, {}, b"", b"HEAD"),
    Case("HEAD knows no ranges", b"/ten.txt", 200, {"content-range": None}, b"", b"HEAD", {"range": "bytes=0-1"}),
    Case("OPTIONS", b"/ten.txt", 204, {"allow": ALLOW, "content-type": None}, b"", b"OPTIONS"),
    Case("OPTIONS of the server", b"*", 204, {"allow": ALLOW}, b"", b"OPTIONS"),
    Case("POST", b"/ten.txt", 405, {"allow": ALLOW}, None, b"POST"),
    Case("PUT", b"/new", 405, {"allow": ALLOW}, None, b"PUT"),
    Case("DELETE", b"/ten.txt", 405, {"allow": ALLOW}, None, b"DELETE"),
    Case("TRACE sends nothing back", b"/", 405, {"allow": ALLOW, "content-type": PLAIN, "x-secret": None},
         b"405 Method Not Allowed: Files can be asked for, not changed: GET, HEAD and OPTIONS only.\n",
         b"TRACE", {"x-secret": "is not sent back"}),
    Case("CONNECT", b"localhost:443", 405, {"allow": ALLOW}, None, b"CONNECT"),
    Case("an unknown method", b"/", 501, {}, None, b"BREW"),
    Case("methods know case", b"/", 501, {}, None, b"get"),
]  # fmt: skip

PART = b"Content-Type: text/plain; charset=utf-8\r\nContent-Range: bytes %d-%d/10\r\n\r\n%b\r\n"
MULTIPART: dict[str, str | None] = {
    "content-type": "multipart/byteranges; boundary={boundary}",
    "content-range": None,
    "last-modified": MODIFIED_DATE,
}
RANGES = [
    Case("the first two", b"/ten.txt", 206, {"content-range": "bytes 0-1/10"}, b"01", request={"range": "bytes=0-1"}),
    Case("the rest", b"/ten.txt", 206, {"content-range": "bytes 7-9/10"}, b"789", request={"range": "bytes=7-"}),
    Case("the last two", b"/ten.txt", 206, {"content-range": "bytes 8-9/10"}, b"89", request={"range": "bytes=-2"}),
    Case("all", b"/ten.txt", 206, {"content-range": "bytes 0-9/10"}, TEXT, request={"range": "bytes=0-"}),
    Case("more than there is", b"/ten.txt", 206, {"content-range": "bytes 5-9/10"}, b"56789",
         request={"range": "bytes=5-99"}),
    Case("the last of more than there is", b"/ten.txt", 206, {"content-range": "bytes 0-9/10"}, TEXT,
         request={"range": "bytes=-99"}),
    Case("a number past all bounds", b"/ten.txt", 206, {"content-range": "bytes 9-9/10"}, b"9",
         request={"range": "bytes=9-" + "9" * 5000}),
    Case("several", b"/ten.txt", 206, MULTIPART,
         b"--{boundary}\r\n" + PART % (0, 1, b"01") + b"--{boundary}\r\n" + PART % (8, 9, b"89") + b"--{boundary}--\r\n",
         request={"range": "bytes=0-1,-2"}),
    Case("several, in the order asked", b"/ten.txt", 206, MULTIPART,
         b"--{boundary}\r\n" + PART % (7, 7, b"7") + b"--{boundary}\r\n" + PART % (2, 3, b"23") + b"--{boundary}--\r\n",
         request={"range": "bytes=7-7, 2-3"}),
    Case("overlapping ones are one", b"/ten.txt", 206, {"content-range": "bytes 0-5/10"}, b"012345",
         request={"range": "bytes=0-3,2-5"}),
    Case("those that do not exist are left out", b"/ten.txt", 206, {"content-range": "bytes 4-4/10"}, b"4",
         request={"range": "bytes=4-4,10-,99-100"}),
    Case("too many", b"/ten.txt", 200, {"content-range": None}, TEXT,
         request={"range": "bytes=" + ",".join(["0-0"] * 65)}),
    Case("past the end", b"/ten.txt", 416, {"content-range": "bytes */10"}, request={"range": "bytes=10-"}),
    Case("none of the last", b"/ten.txt", 416, {"content-range": "bytes */10"}, request={"range": "bytes=-0"}),
    Case("of nothing", b"/empty.txt", 416, {"content-range": "bytes */0"}, request={"range": "bytes=0-"}),
    Case("backwards", b"/ten.txt", 200, {"content-range": None}, TEXT, request={"range": "bytes=5-1"}),
    Case("malformed", b"/ten.txt", 200, {"content-range": None}, TEXT, request={"range": "bytes=1-2-3"}),
    Case("one of several malformed", b"/ten.txt", 200, {"content-range": None}, TEXT, request={"range": "bytes=0-1,x"}),
    Case("another unit", b"/ten.txt", 200, {}, TEXT, request={"range": "lines=1-2"}),
    Case("If-Range with the tag", b"/ten.txt", 206, {"content-range": "bytes 5-9/10"}, b"56789",
         request={"range": "bytes=5-", "if_range": "{etag}"}),
    Case("If-Range with the tag, weak", b"/ten.txt", 200, {}, TEXT,
         request={"range": "bytes=5-", "if_range": "W/{etag}"}),
    Case("If-Range with the date", b"/ten.txt", 206, {}, b"01",
         request={"range": "bytes=0-1", "if_range": MODIFIED_DATE}),
    Case("If-Range with a later date", b"/ten.txt", 200, {}, TEXT,
         request={"range": "bytes=0-1", "if_range": LATER_DATE}),
    Case("If-Range with another tag", b"/ten.txt", 200, {}, TEXT,
         request={"range": "bytes=0-1", "if_range": '"other"'}),
    Case("If-Range, not satisfiable, not the same file", b"/ten.txt", 200, {}, TEXT,
         request={"range": "bytes=99-", "if_range": '"other"'}),
    Case("If-Range alone", b"/ten.txt", 200, {}, TEXT, request={"if_range": "{etag}"}),
    Case("of the encoded form", b"/style.css", 206, {"content-range": "bytes 0-1/7", "content-encoding": "br"}, b"br",
         request={"range": "bytes=0-1", "accept_encoding": "br"}),
    Case("If-Range with the encoded form's tag", b"/style.css", 206, {"content-range": "bytes 3-6/7"}, b"form",
         request={"range": "bytes=3-", "accept_encoding": "br", "if_range": "{etag}"}),
    Case("of a folder's index", b"/site/", 206, {"content-range": "bytes 0-3/13"}, b"<h1>",
         request={"range": "bytes=0-3"}),
    Case("not of an error", b"/nothing", 404, {"content-range": None}, request={"range": "bytes=0-1"}),
]  # fmt: skip

# In the order of RFC 9110 section 13.2.2: If-Match, If-Unmodified-Since, If-None-Match, If-Modified-Since, If-Range.
CONDITIONALS = [
    Case("must be this tag's", b"/ten.txt", 200, {}, TEXT, request={"if_match": '"other", {etag}'}),
    Case("must be any tag's", b"/ten.txt", 200, {}, TEXT, request={"if_match": "*"}),
    Case("must be another tag's", b"/ten.txt", 412, {}, request={"if_match": '"other"'}),
    Case("must be the tag's, but weak", b"/ten.txt", 412, {}, request={"if_match": "W/{etag}"}),
    Case("must be old", b"/ten.txt", 412, {}, request={"if_unmodified_since": EARLIER_DATE}),
    Case("is old enough", b"/ten.txt", 200, {}, TEXT, request={"if_unmodified_since": MODIFIED_DATE}),
    Case("If-Match before If-Unmodified-Since", b"/ten.txt", 200, {}, TEXT,
         request={"if_match": "{etag}", "if_unmodified_since": EARLIER_DATE}),
    Case("If-Match before If-None-Match", b"/ten.txt", 412, {},
         request={"if_match": '"other"', "if_none_match": "{etag}"}),
    Case("If-Unmodified-Since before If-None-Match", b"/ten.txt", 412, {},
         request={"if_unmodified_since": EARLIER_DATE, "if_none_match": "{etag}"}),
    Case("the same tag", b"/ten.txt", 304, {"content-type": None}, b"", request={"if_none_match": "{etag}"}),
    Case("the same tag, weak", b"/ten.txt", 304, {}, b"", request={"if_none_match": "W/{etag}"}),
    Case("the same tag in a list", b"/ten.txt", 304, {}, b"", request={"if_none_match": '"a", W/"b" ,{etag}'}),
    Case("any tag", b"/ten.txt", 304, {}, b"", request={"if_none_match": "*"}),
    Case("another tag", b"/ten.txt", 200, {}, TEXT, request={"if_none_match": '"other"'}),
    Case("a tag without its quotes", b"/ten.txt", 200, {}, TEXT, request={"if_none_match": "other"}),
    Case("not since", b"/ten.txt", 304, {"content-type": None}, b"", request={"if_modified_since": MODIFIED_DATE}),
    Case("not since, in RFC 850's format", b"/ten.txt", 304, {}, b"",
         request={"if_modified_since": "Sunday, 06-Nov-94 08:49:37 GMT"}),
    Case("not since, in asctime's format", b"/ten.txt", 304, {}, b"",
         request={"if_modified_since": "Sun Nov  6 08:49:37 1994"}),
    Case("since", b"/ten.txt", 200, {}, TEXT, request={"if_modified_since": EARLIER_DATE}),
    Case("since no date at all", b"/ten.txt", 200, {}, TEXT, request={"if_modified_since": "yesterday"}),
    Case("If-None-Match before If-Modified-Since", b"/ten.txt", 200, {}, TEXT,
         request={"if_none_match": '"other"', "if_modified_since": MODIFIED_DATE}),
    Case("before ranges", b"/ten.txt", 412, {}, request={"if_match": '"other"', "range": "bytes=0-1"}),
    Case("a 304 before ranges", b"/ten.txt", 304, {}, b"", request={"if_none_match": "*", "range": "bytes=0-1"}),
    Case("not of what is not there", b"/nothing", 404, {}, request={"if_match": '"other"', "if_none_match": "*"}),
    Case("the encoded form", b"/style.css", 304, {"vary": "Accept-Encoding", "content-encoding": None}, b"",
         request={"if_none_match": "{etag}", "accept_encoding": "br"}),
    Case("HEAD", b"/ten.txt", 304, {}, b"", b"HEAD", {"if_none_match": "*"}),
]  # fmt: skip

CSS: dict[str, str | None] = {"content-type": "text/css; charset=utf-8", "vary": "Accept-Encoding"}
CODINGS = [
    Case("no preference", b"/style.css", 200, CSS | {"content-encoding": None}, STYLE),
    Case("brotli", b"/style.css", 200, CSS | {"content-encoding": "br"}, b"br form",
         request={"accept_encoding": "gzip, br"}),
    Case("zstd", b"/style.css", 200, CSS | {"content-encoding": "zstd"}, b"zstd form",
         request={"accept_encoding": "gzip, zstd"}),
    Case("gzip by weight", b"/style.css", 200, CSS | {"content-encoding": "gzip"}, b"gzip form",
         request={"accept_encoding": "gzip, br;q=0.9"}),
    Case("anything", b"/style.css", 200, CSS | {"content-encoding": "br"}, b"br form", request={"accept_encoding": "*"}),
    Case("anything but", b"/style.css", 200, CSS | {"content-encoding": "zstd"}, b"zstd form",
         request={"accept_encoding": "*, br;q=0"}),
    Case("nothing that we have", b"/style.css", 200, CSS | {"content-encoding": None}, STYLE,
         request={"accept_encoding": "deflate"}),
    Case("no sibling", b"/ten.txt", 200, {"vary": "Accept-Encoding", "content-encoding": None}, TEXT,
         request={"accept_encoding": "gzip"}),
    Case("no sibling, and not as it is", b"/ten.txt", 406, {}, request={"accept_encoding": "gzip, identity;q=0"}),
    Case("a type that does not shrink", b"/photo.jpg", 200, {"vary": None, "content-encoding": None}, b"\xff\xd8",
         request={"accept_encoding": "gzip"}),
    Case("a sibling by its own name", b"/style.css.gz", 200,
         {"content-type": "application/gzip", "content-encoding": None}, b"gzip form",
         request={"accept_encoding": "gzip"}),
    Case("not wanted by the operator", b"/style.css", 200, {"vary": None, "content-encoding": None}, STYLE,
         request={"accept_encoding": "br"}, site="open"),
    Case("HEAD", b"/style.css", 200, {"content-encoding": "br"}, b"", b"HEAD", {"accept_encoding": "br"}),
]  # fmt: skip

PREFLIGHT = {"origin": "https://app.example", "access_control_request_method": "GET"}
RULES = [
    Case("caching by glob", b"/style.css", 200, {"cache-control": "max-age=60"}, site="ruled"),
    Case("the first rule that matches", b"/docs/guide.md", 200, {"cache-control": "no-store"}, site="ruled"),
    Case("no rule matches", b"/ten.txt", 200, {"cache-control": "no-cache"}, site="ruled"),
    Case("headers by glob", b"/site/", 200, {"x-one": "1", "x-two": None}, site="ruled"),
    Case("a header that replaces ours", b"/ten.txt", 200, {"content-type": "text/plain; charset=latin-1"},
         site="ruled"),
    Case("Vary adds up", b"/ten.txt", 200, {"vary": "Accept-Encoding, Origin"}, site="ruled"),
    Case("HSTS", b"/ten.txt", 200, {"strict-transport-security": "max-age=1"}, site="ruled"),
    Case("HSTS on errors", b"/nothing", 404, {"strict-transport-security": "max-age=1"}, site="ruled"),
    Case("CSP", b"/", 200, {"content-security-policy": "default-src 'self'"}, site="ruled"),
    Case("none of them unless wanted", b"/ten.txt", 200,
         {"strict-transport-security": None, "content-security-policy": None, "access-control-allow-origin": None},
         request={"origin": "https://app.example"}),
    Case("CORS", b"/ten.txt", 200, {"access-control-allow-origin": "*"}, site="ruled"),
    Case("CORS on errors", b"/nothing", 404, {"access-control-allow-origin": "*"}, site="ruled"),
    Case("CORS preflight", b"/data.json", 204,
         {"access-control-allow-origin": "https://app.example", "access-control-allow-methods": "GET, HEAD"}, b"",
         b"OPTIONS", PREFLIGHT, "application"),
    Case("OPTIONS that is no preflight", b"/data.json", 204, {"access-control-allow-methods": None, "allow": ALLOW}, b"",
         b"OPTIONS", site="application"),
    Case("a preflight without CORS", b"/ten.txt", 204, {"access-control-allow-methods": None, "allow": ALLOW}, b"",
         b"OPTIONS", PREFLIGHT),
]  # fmt: skip

PAGES = [
    Case("an error for people", b"/nothing", 404, {"content-type": HTML}, request=NAVIGATION),
    Case("an error for programs", b"/nothing", 404, {"content-type": PLAIN},
         b"404 Not Found: There is nothing here.\n"),
    Case("a page of the application", b"/user/7", 200, {"content-type": HTML}, APPLICATION, request=NAVIGATION,
         site="application"),
    Case("and its folder-like ones", b"/user/7/", 200, {}, APPLICATION, request=NAVIGATION, site="application"),
    Case("a file that is there", b"/data.json", 200, {}, b"{}", request=NAVIGATION, site="application"),
    Case("data that is not there, and the folder's own 404", b"/user/7.json", 404,
         {"content-type": HTML, "cache-control": "no-cache", "etag": None}, LOST, request={"accept": "*/*"},
         site="application"),
    Case("no page for who wants none", b"/user/7.json", 404, {"content-type": PLAIN},
         b"404 Not Found: There is nothing here.\n", request={"accept": "application/json"}, site="application"),
    Case("HEAD of the folder's own 404", b"/nothing", 404, {"content-type": HTML}, b"", b"HEAD", site="application"),
    Case("that page by its name", b"/404.html", 200, {}, LOST, site="application"),
    Case("hidden files stay hidden", b"/.env", 404, {"content-type": HTML}, LOST, request=NAVIGATION,
         site="application"),
]  # fmt: skip

CASES = {
    f"{group}: {case.what}": case
    for group, cases in {
        "files": FILES,
        "folders": FOLDERS,
        "not served": NOT_SERVED,
        "methods": METHODS,
        "ranges": RANGES,
        "conditionals": CONDITIONALS,
        "codings": CODINGS,
        "rules": RULES,
        "pages": PAGES,
    }.items()
    for case in cases
}
"""All of them, by what they are about."""
