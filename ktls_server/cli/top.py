"""`ktls-server top`: what a running server does, live in the terminal, or once for a script."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from .samples import Counts, Sample

_DEFAULT_SECONDS = 2.0
_SHORTEST_SECONDS = 1.0
"""The server computes its metrics twice a second at most."""

_SLOW_TURN_SECONDS = 0.1
_SILENT_SECONDS = 5.0
"""As /healthz has it (operation/metrics.py)."""


@click.command("top")
@click.argument("address", metavar="PORT|URL")
@click.option(
    "--interval",
    type=click.FloatRange(_SHORTEST_SECONDS),
    default=_DEFAULT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks.",
)
@click.option("--once", is_flag=True, help="Print one sample, a name and a number a line, and end.")
@click.option("--json", "as_json", is_flag=True, help="With --once: as JSON.")
def command(address: str, interval: float, once: bool, as_json: bool) -> None:
    """Show what a running server does, from the metrics that it serves with --metrics-port.

    PORT is that of --metrics-port on this machine, or give the URL. Ctrl-C ends it. With --once counters are since the
    server's start; in the live view they are by the second.
    """
    from .samples import fetch, metrics_url

    if as_json and not once:
        raise ConfigurationError("--json is for one sample; give --once, too")
    url = metrics_url(address)
    if once:
        sample = fetch(url)
        click.echo(json.dumps(sample.as_dict(), indent=2) if as_json else "\n".join(_lines("", sample.as_dict())))
        return
    if not sys.stdout.isatty():
        raise ConfigurationError("standard output is no terminal; --once prints one sample")
    # Ctrl-C is how one leaves.
    with contextlib.suppress(KeyboardInterrupt):
        _watch(url, interval)


def _lines(prefix: str, value: Any) -> Iterator[str]:
    """`responses.200: 15`: one number a line. What has spaces in its name has them here, too."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _lines(f"{prefix}.{key}" if prefix else str(key), each)
    elif value is not None:
        yield f"{prefix}: {value}"


def _watch(url: str, interval: float) -> None:
    """Until Ctrl-C, or until the server does not answer any more: SystemRefusal, on a screen that is as it was."""
    from rich.live import Live

    from .samples import fetch

    before = fetch(url)
    # The alternate screen, as top has it: what stood in the terminal comes back.
    live = Live(view(url, before, before), screen=True, auto_refresh=False)
    try:
        live.start(refresh=True)
        while True:
            time.sleep(interval)
            now = fetch(url)
            live.update(view(url, before, now), refresh=True)
            before = now
    finally:
        # Not `with live`: that gives the screen back only once `start` has returned.
        live.stop()


def view(url: str, before: Sample, now: Sample) -> RenderableType:
    """One picture, that fits in 80 columns. With the same sample twice there are no rates yet."""
    from rich.console import Group
    from rich.rule import Rule
    from rich.text import Text

    parts = [
        Text.assemble(("ktls-server top", "bold"), f"  {url}  ", ("Ctrl-C ends", "dim"), overflow="ellipsis"),
        _summary(before, now),
        Rule(style="dim"),
        _connections(before, now),
        Rule(style="dim"),
        _workers(now),
    ]
    return Group(*parts)


def _summary(before: Sample, now: Sample) -> RenderableType:
    from rich.table import Table

    from .samples import rates

    seconds = now.taken_at - before.taken_at
    first = before is now

    def by_second(earlier: Counts, later: Counts) -> Counts:
        return {} if first else rates(earlier, later, seconds)

    body, responses = by_second(before.body_bytes, now.body_bytes), by_second(before.responses, now.responses)
    accepted = by_second({"": before.accepted}, {"": now.accepted})
    failures = by_second(before.handshake_failures, now.handshake_failures)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    open_now = sum(now.open_connections.values())
    table.add_row("Open connections", f"{open_now:,.0f}", _listed(now.open_connections, "{:,.0f}"))
    table.add_row("Accepted", _per_second(accepted), f"{now.accepted:,.0f} since the start")
    table.add_row("Sent", f"{_size(sum(body.values()))}/s", _text(f"{k} {_size(v)}/s" for k, v in body.items() if v))
    table.add_row("Responses", _per_second(responses), _listed(responses, "{:,.1f}/s"))
    table.add_row("Failed handshakes", _per_second(failures), _listed(failures, "{:,.1f}/s"))
    strikes, totals = by_second(before.limits(), now.limits()), now.limits()
    struck = [f"{name} {strikes.get(name, 0):,.1f}/s ({count:,.0f})" for name, count in totals.items() if count]
    style = "yellow" if any(strikes.values()) else ""
    table.add_row("Limits that strike", _per_second(strikes), _text(struck, style) if struck else "none so far")
    table.add_row("Clients that block", f"{now.blocked_connections:,.0f}", "do not read what they asked for")
    table.add_row("Passwords waiting", f"{now.waiting_passwords:,.0f}", "")
    if now.certificate_days_left is not None:
        table.add_row("Certificate", f"{now.certificate_days_left:,.0f}", "days left")
    return table


def _connections(before: Sample, now: Sample) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from .samples import rates

    speeds = {} if before is now else rates(before.connections, now.connections, now.taken_at - before.taken_at)
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("Handshakes done", overflow="fold")
    table.add_column("total", justify="right", no_wrap=True)
    table.add_column("per second", justify="right", no_wrap=True)
    for name, count in sorted(now.connections.items(), key=lambda item: -item[1]):
        table.add_row(Text(name), f"{count:,.0f}", f"{speeds.get(name, 0):,.1f}")
    return table


def _workers(now: Sample) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), header_style="bold")
    for heading in ("Worker", "open", "tasks", "memory", "descriptors", "longest turn", "silent", "restarts"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, worker in now.workers.items():
        turn = Text(f"{worker.longest_turn_seconds * 1000:,.0f} ms")
        turn.stylize("yellow" if worker.longest_turn_seconds >= _SLOW_TURN_SECONDS else "")
        silent = Text(f"{worker.silence_seconds:,.1f} s")
        silent.stylize("bold red" if worker.silence_seconds >= _SILENT_SECONDS else "")
        table.add_row(
            Text(name),
            f"{worker.open_connections:,.0f}",
            f"{worker.connection_tasks:,.0f}",
            _size(worker.resident_memory_bytes),
            f"{worker.open_fds:,.0f}",
            turn,
            silent,
            f"{worker.restarts:,.0f}",
        )
    return table


def _per_second(counts: Counts) -> str:
    return f"{sum(counts.values()):,.1f}/s"


def _listed(counts: Counts, form: str) -> Text:
    return _text(f"{name} {form.format(count)}" for name, count in sorted(counts.items()) if count)


def _text(parts: Iterator[str] | list[str], style: str = "") -> Text:
    """Never markup: labels may hold brackets."""
    from rich.text import Text

    return Text(", ".join(parts), style=style)


def _size(count: float) -> str:
    from rich.filesize import decimal

    return decimal(round(count))
