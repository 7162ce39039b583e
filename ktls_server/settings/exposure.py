"""Secrets that a request could reach, because they lie in the folder that is served.

Three kinds: the key and password files that the options name, the folder of the development certificate, and any other
private key. The last are found by name and content when the server starts; what is put there later is not seen.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .options import Settings

MAX_ENTRIES: Final = 20_000
"""How many entries the search for keys looks at, nearest to the top first: about 50 ms. More would delay the start."""

MAX_KEY_BYTES: Final = 65_536
"""How much of a file is read: a key stands first, or behind a chain of certificates, which are 2 KiB each."""

_KEY_NAME: Final = re.compile(r"(?i).*\.(?:pem|key|p8|pk8|ppk)|id_(?:rsa|dsa|ecdsa|ed25519)(?:_sk)?")
PEM_KEY: Final = rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----"
"""How a private key begins (RFC 7468), of whatever type, encrypted or not."""

_KEY_LINE: Final = re.compile(rb"(?m)^(?:%b|PuTTY-User-Key-File-\d)" % PEM_KEY)
_WELL_KNOWN: Final = ".well-known"
"""The one name with a dot that is served (RFC 8615)."""


def would_be_served(path: Path, settings: Settings) -> bool:
    """Whether a request could reach the path: it is under the folder, and not hidden or hidden files are served."""
    root, resolved = settings.directory.resolve(), path.resolve()
    if not resolved.is_relative_to(root):
        return False
    parts = resolved.relative_to(root).parts
    if parts[:1] == (_WELL_KNOWN,):
        parts = parts[1:]
    return settings.hidden_files or not any(part.startswith(".") for part in parts)


def served_private_key(settings: Settings) -> Path | None:
    """The first private key that the search finds in the folder, or None."""
    root = settings.directory.resolve()
    for entry in _files(root, hidden=settings.hidden_files):
        if (
            _KEY_NAME.fullmatch(entry.name)
            and Path(entry.path).resolve().is_relative_to(root)
            and _holds_key(entry.path)
        ):
            return settings.directory / Path(entry.path).relative_to(root)
    return None


def _files(root: Path, *, hidden: bool) -> Iterator[os.DirEntry[str]]:
    """The regular files that a request can name, and links to such files, level by level."""
    folders = deque([str(root)])
    looked_at = 0
    while folders:
        folder = folders.popleft()
        try:
            entries = os.scandir(folder)
        except OSError:
            continue  # The server cannot read it either.
        with entries:
            for entry in entries:
                looked_at += 1
                if looked_at > MAX_ENTRIES:
                    return
                if entry.name.startswith(".") and not hidden and (entry.name != _WELL_KNOWN or folder != str(root)):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif _is_file(entry):
                    yield entry


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False  # A link to itself.


def _holds_key(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return _KEY_LINE.search(file.read(MAX_KEY_BYTES)) is not None
    except OSError:
        return False  # Gone, or not for us to read, and so not to serve.
