"""A folder's content, as a page for people and as JSON for programs. Pure, but for `read_entries`.

Listed is what can be asked for: regular files and folders, and symlinks that lead to one inside the root, as what they
lead to. FIFOs, devices, sockets, symlinks that lead out or nowhere, and (unless they are served) hidden names are left
out.

Names are any bytes. A link holds them percent-encoded, byte by byte. What is shown is their UTF-8, isolated from its
surroundings (`<bdi>`); bytes that are no UTF-8, and characters that would be invisible or turn the text around, are
shown as escapes, so that two names never look the same by such means.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import stat
import time
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

from ..errors import FileUnavailable
from ..semantics.target import encode_path
from .resolve import Found, Root

# Reading and writing one entry takes 10 to 20 microseconds on the event loop: a fifth of a second is the most that a
# folder may cost the other clients.
MAX_ENTRIES = 10_000

# Names that are looked at, shown or not: a folder of FIFOs, or of symlinks that lead out, costs as much as one that is shown.
MAX_LOOKED_AT = 20_000

# Symlinks are resolved one by one, which takes ten times as long as a look at a file.
MAX_SYMLINKS = 2_000

JSON = b"application/json"

_STYLE = """
:root{color-scheme:light
dark;--text:#1c2024;--soft:#60646c;--line:#e4e6ea;--back:#fcfcfd;--hover:#f1f3f6;--link:#0b5cad}
@media(prefers-color-scheme:dark){:root{--text:#edeef0;--soft:#9aa0a8;--line:#2c2f35;--back:#121316;--hover:#1d1f24;
--link:#80bcff}} *{box-sizing:border-box} body{margin:0 auto;max-width:64rem;padding:2rem 1rem
4rem;background:var(--back);color:var(--text); font:1rem/1.5 system-ui,sans-serif}
h1{margin:0;font-size:1.25rem;font-weight:600;overflow-wrap:anywhere} h1 a+a::before,h1
span::before{content:"/";padding:0 .3em;color:var(--soft);font-weight:400} p{margin:.25rem 0 1.25rem;color:var(--soft)}
a{color:var(--link);text-decoration:none} a:hover,a:focus-visible{text-decoration:underline}
table{width:100%;border-collapse:collapse} th{text-align:left;font-size:.875rem;font-weight:500;white-space:nowrap} th
a{color:var(--soft)} th,td{padding:.4rem .5rem;border-bottom:1px solid var(--line);vertical-align:top}
th:nth-child(n+2),td:nth-child(n+2){text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
td:nth-child(n+2){color:var(--soft);font-size:.875rem;line-height:1.7} td:first-child{overflow-wrap:anywhere} tbody
tr:hover{background:var(--hover)} tbody a{display:flex;gap:.6rem}
body>svg{position:absolute}
svg{flex:none;width:1.1rem;height:1.5rem;fill:none;stroke:var(--soft);stroke-width:1.4;stroke-linejoin:round} .folder
svg{fill:var(--link);fill-opacity:.15;stroke:var(--link)} code{color:var(--soft);font-size:.85em}
@media(max-width:36rem){body{padding:1rem .5rem 3rem}th:nth-child(3),td:nth-child(3){display:none}}
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode("utf-8")).digest()).decode("ascii")

# Nothing but our own style runs or loads on the page, whatever a file is called; the browser may fetch the site's icon.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'self'"
).encode("ascii")

_ICONS = """<svg width="0" height="0" aria-hidden="true">
<symbol id="folder" viewBox="0 0 18 24"><path d="M1 7.5v11h16v-9.5H9L7 7z"/></symbol>
<symbol id="file" viewBox="0 0 18 24"><path d="M3.5 3.5h7l4 4v13h-11zM10.5 3.5v4h4"/></symbol>
</svg>"""

# Line and paragraph separators, controls and lone surrogates (bytes that are no UTF-8) by category; beyond these the
# formatting characters that reorder text (Unicode UAX #9, Trojan Source) or have no width and no part in a script.
_ESCAPED_CATEGORIES = frozenset(("Cc", "Cs", "Zl", "Zp"))
_ESCAPED_CHARACTERS = frozenset(
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
)
_DIGITS = re.compile(r"([0-9]+)")
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


class SortKey(Enum):
    """A column of the page; the value is what the query says."""

    NAME = "name"
    SIZE = "size"
    TIME = "time"


class Order(NamedTuple):
    """How a listing is sorted; folders stand before files in any order."""

    key: SortKey = SortKey.NAME
    descending: bool = False


class Entry(NamedTuple):
    """One name in a folder; size in bytes, 0 for a folder; `modified` in seconds since the epoch."""

    name: bytes
    is_folder: bool
    size: int
    modified: int


class Entries(NamedTuple):
    """What a folder holds, unsorted; `complete` is False where there is more than one of the limits."""

    entries: list[Entry]
    complete: bool


def read_entries(root: Root, found: Found, folder: bytes, *, hidden: bool) -> Entries:
    """Reads the found folder, whose canonical path is `folder`; leaves `found.fd` open. Raises `FileUnavailable`."""
    fd = root.open_folder(found)
    entries: list[Entry] = []
    symlinks = 0
    try:
        with os.scandir(fd) as scan:
            for looked_at, item in enumerate(scan):
                if item.name.startswith(".") and not hidden:
                    continue
                symlinks += item.is_symlink()
                if len(entries) == MAX_ENTRIES or looked_at >= MAX_LOOKED_AT or symlinks > MAX_SYMLINKS:
                    return Entries(entries, False)
                name = os.fsencode(item.name)
                status = _status_of(root, item, folder[1:] + name)
                if status is None:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    entries.append(Entry(name, True, 0, int(status.st_mtime)))
                elif stat.S_ISREG(status.st_mode):
                    entries.append(Entry(name, False, status.st_size, int(status.st_mtime)))
    finally:
        os.close(fd)
    return Entries(entries, True)


def _status_of(root: Root, item: os.DirEntry[str], path: bytes) -> os.stat_result | None:
    """Of what a request for `path` would reach; None where it would reach nothing."""
    with suppress(OSError, FileUnavailable):
        if not item.is_symlink():
            return item.stat(follow_symlinks=False)
        found = root.find(path)
        os.close(found.fd)
        return found.stat
    return None


def order_of_query(query_untrusted: bytes | None) -> Order:
    """From `sort=name|size|time` and `order=asc|desc`; what is something else counts as not said."""
    key, descending = SortKey.NAME, False
    for pair in (query_untrusted or b"").split(b"&"):
        name, _, value = pair.partition(b"=")
        if name == b"sort":
            key = next((known for known in SortKey if known.value.encode("ascii") == value), key)
        elif name == b"order":
            descending = value == b"desc"
    return Order(key, descending)


def sort_entries(entries: Iterable[Entry], order: Order) -> list[Entry]:
    """Folders first; names without regard to case and with numbers by value, so that `10` comes after `9`."""
    by_name = sorted(entries, key=_name_key, reverse=order.descending and order.key is SortKey.NAME)
    if order.key is SortKey.SIZE:
        by_name.sort(key=lambda entry: entry.size, reverse=order.descending)
    elif order.key is SortKey.TIME:
        by_name.sort(key=lambda entry: entry.modified, reverse=order.descending)
    by_name.sort(key=lambda entry: not entry.is_folder)
    return by_name


def as_json(folder: bytes, found: Entries, order: Order) -> bytes:
    """An object with `path`, `complete` and `entries`; times in UTC. `href` is exact for every name.

    `name` is text, so bytes that are no UTF-8 become U+FFFD in it.
    """
    entries = [
        {
            "name": entry.name.decode("utf-8", "replace"),
            "href": _href(entry),
            "type": "folder" if entry.is_folder else "file",
            "size": None if entry.is_folder else entry.size,
            "modified": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry.modified)),
        }
        for entry in sort_entries(found.entries, order)
    ]
    document = {"path": folder.decode("utf-8", "replace"), "complete": found.complete, "entries": entries}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def as_html(folder: bytes, found: Entries, order: Order) -> bytes:
    """The page; goes together with `CONTENT_SECURITY_POLICY`."""
    entries = sort_entries(found.entries, order)
    title = html.escape("".join(_visible(folder)[0]))
    pieces = [
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n{_ICONS}\n"
        f"<h1>{_breadcrumbs(folder)}</h1>\n<p>{_summary(entries, found.complete)}</p>\n"
        f"<table>\n<thead><tr>{_column_heads(order)}</tr></thead>\n<tbody>\n"
    ]
    if folder != b"/":
        pieces.append('<tr class="folder"><td><a href="../">' + _icon("folder") + "<span>..</span></a><td><td>\n")
    pieces += [_row(entry) for entry in entries]
    pieces.append("</tbody>\n</table>\n</html>\n")
    return "".join(pieces).encode("utf-8")


def human_size(size: int) -> str:
    """Bytes as people read them: three significant digits at the most, powers of 1024."""
    if size < 1024:
        return f"{size} byte" if size == 1 else f"{size} bytes"
    value = float(size)
    unit = 0
    # 1023.5 and more would be rounded to a fourth digit
    while value >= 1023.5 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.1f} {_UNITS[unit]}" if value < 9.95 else f"{value:.0f} {_UNITS[unit]}"


def _name_key(entry: Entry) -> tuple[list[str | int], bytes]:
    text = entry.name.decode("utf-8", "surrogateescape").casefold()
    # Texts at even places, numbers at odd ones: two keys never compare one with the other.
    return [int(piece) if place % 2 else piece for place, piece in enumerate(_DIGITS.split(text))], entry.name


def _href(entry: Entry) -> str:
    """Relative; since a colon is encoded, none can be taken for a URI with a scheme (RFC 3986 4.2)."""
    return encode_path(entry.name).decode("ascii") + ("/" if entry.is_folder else "")


def _visible(name: bytes) -> tuple[list[str], list[bool]]:
    """The name cut into runs, and for each whether it is an escape."""
    text = name.decode("utf-8", "surrogateescape")
    runs: list[str] = []
    escaped: list[bool] = []
    for character in text:
        odd = character in _ESCAPED_CHARACTERS or unicodedata.category(character) in _ESCAPED_CATEGORIES
        shown = _escape(character) if odd else character
        if escaped and escaped[-1] is odd:
            runs[-1] += shown
        else:
            runs.append(shown)
            escaped.append(odd)
    return runs, escaped


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape (PEP 383): a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def _label(name: bytes) -> str:
    text = name.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return f"<bdi>{html.escape(text)}</bdi>"
    runs = zip(*_visible(name), strict=True)
    marked = [f"<code>{html.escape(run)}</code>" if odd else html.escape(run) for run, odd in runs]
    return f"<bdi>{''.join(marked)}</bdi>"


def _breadcrumbs(folder: bytes) -> str:
    names = folder.strip(b"/").split(b"/") if folder != b"/" else []
    crumbs = []
    for depth, name in enumerate([b"Home", *names]):
        up = len(names) - depth
        label = "Home" if depth == 0 else _label(name)
        crumbs.append(f'<a href="{"../" * up}">{label}</a>' if up else f"<span>{label}</span>" if depth else label)
    return "".join(crumbs)


def _summary(entries: list[Entry], complete: bool) -> str:
    folders = sum(entry.is_folder for entry in entries)
    files = len(entries) - folders
    if not entries:
        return "This folder is empty."
    parts = [
        f"{count:,} {noun}{'' if count == 1 else 's'}"
        for count, noun in ((folders, "folder"), (files, "file"))
        if count
    ]
    if files:
        parts.append(human_size(sum(entry.size for entry in entries)))
    if not complete:
        parts.append(f"there is more than these {len(entries):,}")
    return ", ".join(parts)


def _column_heads(order: Order) -> str:
    heads = []
    for key, text in ((SortKey.NAME, "Name"), (SortKey.SIZE, "Size"), (SortKey.TIME, "Modified (UTC)")):
        current = order.key is key
        next_order = "desc" if current and not order.descending else "asc"
        arrow = (" ↓" if order.descending else " ↑") if current else ""
        sorted_as = f' aria-sort="{"descending" if order.descending else "ascending"}"' if current else ""
        link = f"?sort={key.value}&amp;order={next_order}"
        heads.append(f'<th scope="col"{sorted_as}><a href="{link}">{text}{arrow}</a></th>')
    return "".join(heads)


def _row(entry: Entry) -> str:
    moment = time.gmtime(entry.modified)
    when = f"{moment.tm_year:04}-{moment.tm_mon:02}-{moment.tm_mday:02} {moment.tm_hour:02}:{moment.tm_min:02}"
    if entry.is_folder:
        opening, icon, size = '<tr class="folder">', "folder", "<td>"
    else:
        opening, icon, size = "<tr>", "file", f'<td title="{entry.size:,} bytes">{human_size(entry.size)}'
    return f'{opening}<td><a href="{_href(entry)}">{_icon(icon)}<span>{_label(entry.name)}</span></a>{size}<td>{when}\n'


def _icon(name: str) -> str:
    return f'<svg aria-hidden="true"><use href="#{name}"/></svg>'
