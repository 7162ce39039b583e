"""What the server says once it listens: where, what is served, how to trust the certificate, who encrypts and why.

In a terminal a table; elsewhere one `key: value` a line, for scripts (`--port 0` prints the port that it got). With a
JSON access log it goes to standard error, so that standard output holds nothing but JSON.
"""

from __future__ import annotations

import io
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TextIO, TypeAlias

from ..settings import BoundServer, Settings

_log = logging.getLogger(__name__)

Facts: TypeAlias = list[tuple[str, str]]


def startup_facts(
    settings: Settings, bound: BoundServer, development_certificate: Path | None
) -> list[tuple[str, str]]:
    """(key, value) in the order to print; `development_certificate` is the one made for localhost, if it is in use."""
    facts = [("url", url) for url in bound.urls]
    facts.extend(("redirect", url) for url in bound.redirect_urls)
    facts.extend(("metrics", url) for url in bound.metrics_urls)
    facts.append(("directory", str(settings.directory.resolve())))
    facts.append(("tls", bound.tls_path))
    if development_certificate is not None:
        facts.append(("certificate", str(development_certificate)))
        # Clients connect to a name that the certificate has, not to "all addresses".
        url = bound.urls[0].replace("//0.0.0.0:", "//localhost:").replace("//[::]:", "//localhost:")
        facts.append(("trust", f"curl --cacert {shlex.quote(str(development_certificate))} {url}"))
    else:
        facts.extend(("certificate", str(path)) for path in settings.cert)
    return facts


def announce(settings: Settings, bound: BoundServer, development_certificate: Path | None) -> None:
    """Print the facts, at once."""
    stream = sys.stderr if settings.access_log == "json" else sys.stdout
    facts = startup_facts(settings, bound, development_certificate)
    try:
        if stream.isatty():
            _print_table(facts, stream)
        else:
            _write("".join(f"{key}: {value}\n" for key, value in facts), stream)
        stream.flush()
    except OSError as error:
        # A disk that is full must not keep the server from serving.
        _log.warning("the lines that say where it listens cannot be written: %s", error.strerror)


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
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    # A path or a command that is cut cannot be copied.
    table.add_column(overflow="fold")
    for key, value in facts:
        table.add_row(key, Text(value, style="bold cyan" if key == "url" else ""))
    Console(file=stream).print(table)
