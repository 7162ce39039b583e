"""What the server says once it listens: where, what is served, how to trust the certificate, who encrypts and why.

In a terminal a table; elsewhere one `key: value` a line, for scripts (`--port 0` prints the port that it got, in the first
line). With a JSON access log it goes to standard error, so that standard output holds nothing but JSON.
"""

from __future__ import annotations

import io
import logging
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, TypeAlias
from urllib.parse import urlsplit

from ..net.listening import url_host
from ..settings import BoundServer, Settings
from .addresses import own_addresses

_log = logging.getLogger(__name__)

Facts: TypeAlias = list[tuple[str, str]]

_STYLES = {"url": "bold cyan", "note": "yellow"}
_ALL_ADDRESSES = {"0.0.0.0": (socket.AF_INET,), "::": (socket.AF_INET, socket.AF_INET6)}
"""A listener on "::" takes IPv4, too (net/listening.py)."""


def startup_facts(settings: Settings, bound: BoundServer, development_certificate: Path | None) -> Facts:
    """(key, value) in the order to print; `development_certificate` is the one made for localhost, if it is in use."""
    urls = [reachable for url in bound.urls for reachable in _reachable(url)]
    facts = [("url", url) for url in dict.fromkeys(urls)]
    facts.extend(("redirect", _reachable(url)[0]) for url in bound.redirect_urls)
    facts.extend(("metrics", _reachable(url)[0]) for url in bound.metrics_urls)
    facts.append(("directory", str(settings.directory.resolve())))
    facts.extend(("note", note) for note in _notes(settings, bound, development_certificate))
    facts.append(("tls", bound.tls_path))
    if development_certificate is not None:
        facts.append(("certificate", str(development_certificate)))
        facts.append(("trust", f"curl --cacert {shlex.quote(str(development_certificate))} {urls[0]}"))
    else:
        facts.extend(("certificate", str(path)) for path in settings.cert)
    return facts


def _reachable(url: str) -> list[str]:
    """The URLs that clients can use. All addresses together are none: localhost, which the certificate names, first."""
    parts = urlsplit(url)
    families = _ALL_ADDRESSES.get(parts.hostname or "")
    if families is None:
        return [url]
    hosts = ["localhost", *(address for family in families for address in own_addresses(family))]
    return [parts._replace(netloc=f"{url_host(host)}:{parts.port}").geturl() for host in hosts]


def _notes(settings: Settings, bound: BoundServer, development_certificate: Path | None) -> Iterator[str]:
    """What would surprise somebody who starts the server for the first time."""
    if not settings.listing and not any((settings.directory / name).is_file() for name in settings.index):
        yield f"there is no {' or '.join(settings.index)} in the folder, so / is not found; --listing shows what is there"
    everywhere = any(urlsplit(url).hostname in _ALL_ADDRESSES for url in bound.urls)
    if everywhere and development_certificate is not None:
        yield "the certificate is for localhost only; with --host ADDRESS it is for that address, too"


def announce(settings: Settings, bound: BoundServer, development_certificate: Path | None) -> None:
    """Print the facts, at once."""
    stream = sys.stderr if settings.access_log == "json" else sys.stdout
    facts = startup_facts(settings, bound, development_certificate)
    try:
        if stream.isatty():
            _print_table([*facts, *_browsers(development_certificate), ("stop", _how_to_stop(settings))], stream)
        else:
            _write("".join(f"{key}: {value}\n" for key, value in facts), stream)
        stream.flush()
    except OSError as error:
        # A disk that is full must not keep the server from serving.
        _log.warning("the lines that say where it listens cannot be written: %s", error.strerror)


def _browsers(development_certificate: Path | None) -> Facts:
    """How a person gets rid of the warning, unless that is done."""
    from ..certificates import authority_in, is_issued
    from .trust import why_not_issued

    if development_certificate is None:
        return []
    authority = authority_in()
    if authority is None:
        return [("browsers", "they warn; ktls-server trust, once, and those of this machine do not")]
    if is_issued(development_certificate, authority):
        return []
    return [("browsers", why_not_issued(authority, development_certificate))]


def _write(text: str, stream: TextIO) -> None:
    """Write to the stream's descriptor: the stream itself would keep what fails, and try again at exit."""
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:  # In memory.
        stream.write(text)
        return
    rest = os.fsencode(text)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _print_table(facts: Facts, stream: TextIO) -> None:
    """One fact a line. The terminal folds long ones: what it folds can still be copied as one line."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream)
    width = max(len(key) for key, _ in facts)
    for key, value in facts:
        style = _STYLES.get(key, "")
        console.print(Text.assemble((f" {key:<{width}}  ", "bold"), (value, style)), soft_wrap=True)


def _how_to_stop(settings: Settings) -> str:
    if not settings.grace:
        return "Ctrl-C"
    return f"Ctrl-C; downloads get {settings.grace:g} seconds to finish, Ctrl-C again ends them at once"
