"""`ktls-server bench`: what kernel TLS gives on this machine, measured."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from ..errors import ConfigurationError
from ..keys.suites import CipherKind
from ..settings.options import EventLoop, TlsVersion

if TYPE_CHECKING:
    from ..bench.run import Outcome, Progress

_SUFFIXES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_DEFAULT_SIZES = (16 << 20, 1 << 10)
_DEFAULT_LADDER_SIZE = 16 << 20
_DEFAULT_SECONDS = 2.0
_PLOT_KINDS = (".png", ".svg")


class _Size(click.ParamType[int]):
    """Bytes, with an optional suffix."""

    name = "SIZE"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", value, re.IGNORECASE)
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is not a size such as 1K, 16M or 1G", parameter, context)
        return int(match[1]) * _SUFFIXES[match[2].upper()]


@click.command("bench")
@click.option(
    "--size", "sizes", type=_Size(), multiple=True, help="Size of the file. Repeatable.  [default: 16M and 1K]"
)
@click.option("--concurrency", type=click.IntRange(1, 1000), default=8, show_default=True, help="Connections.")
@click.option(
    "--duration",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Of each round, for each path.  [default: 2]",
)
@click.option(
    "--requests", type=click.IntRange(1), help="Requests in each round, for each path, instead of --duration."
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Rounds; medians are reported.")
@click.option(
    "--cipher",
    type=click.Choice([kind.value for kind in CipherKind], case_sensitive=False),
    default=CipherKind.AES_128_GCM.value,
    show_default=True,
    help="What the clients offer.",
)
@click.option("--tls", type=click.Choice(get_args(TlsVersion)), default="1.3", show_default=True, help="TLS version.")
@click.option("--loop", type=click.Choice(get_args(EventLoop)), help="The servers' event loop.  [default: uvloop]")
@click.option("--url", help="Load this URL of a server that already runs, instead of starting servers.")
@click.option("--ladder", is_flag=True, help="Read and send, sendfile, TLS in userspace, kernel TLS: the same file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the outcome: FILE.png or FILE.svg.")
def command(
    sizes: tuple[int, ...],
    concurrency: int,
    duration: float | None,
    requests: int | None,
    rounds: int,
    cipher: str,
    tls: str,
    loop: str | None,
    url: str | None,
    ladder: bool,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Measure what kernel TLS gives on this machine.

    Starts the server twice over the same files, once with the kernel encrypting and once by itself, and loads both in
    turns with httpx. What counts is the server's CPU time: the load clients take no part in it. Who encrypted is read from
    the kernel's counters.
    """
    _check(sizes, concurrency, duration, requests, loop, url, ladder, plot)

    # Imported when all is known to be in order, and installed.
    from ..bench.measure import LoadPlan
    from ..bench.run import climb_ladder, compare_paths, load_url

    plan = LoadPlan(
        tls=tls,
        cipher=CipherKind(cipher),
        concurrency=concurrency,
        rounds=rounds,
        seconds=0.0 if requests else duration or _DEFAULT_SECONDS,
        requests=requests or 0,
    )
    loop = loop or "uvloop"
    with _progress() as progress:
        if url is not None:
            outcome = load_url(url, plan, progress)
        elif ladder:
            outcome = climb_ladder(sizes[0] if sizes else _DEFAULT_LADDER_SIZE, loop, plan, progress)
        else:
            outcome = compare_paths(sizes or _DEFAULT_SIZES, loop, plan, progress)
    _show(outcome, as_json, plot)


def _check(
    sizes: tuple[int, ...],
    concurrency: int,
    duration: float | None,
    requests: int | None,
    loop: str | None,
    url: str | None,
    ladder: bool,
    plot: Path | None,
) -> None:
    """Raise ConfigurationError for what cannot be measured together, or with what is installed."""
    if requests is not None and duration is not None:
        raise ConfigurationError("--requests: --duration is given, too; a round ends by the one or by the other")
    if requests is not None and requests < concurrency:
        raise ConfigurationError(f"--requests {requests}: is less than one for each of {concurrency} connections")
    if url is not None:
        given = [name for name, value in (("--size", sizes), ("--loop", loop), ("--ladder", ladder)) if value]
        if given:
            raise ConfigurationError(f"{given[0]}: has no meaning with --url, whose server is not started from here")
        if not url.startswith(("https://", "http://")):
            raise ConfigurationError(f"--url {url}: does not begin with https:// or http://")
    if ladder and len(sizes) > 1:
        raise ConfigurationError("--size: the ladder is climbed with one file; give one size")
    if plot is not None and plot.suffix.lower() not in _PLOT_KINDS:
        raise ConfigurationError(f"--plot {plot}: the name has to end in {' or '.join(_PLOT_KINDS)}")
    for module, needed in (("httpx", True), ("matplotlib", plot is not None)):
        if needed and importlib.util.find_spec(module) is None:
            raise ConfigurationError(f"bench needs {module}, which is not installed: pip install {module}")


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on standard error while it is a terminal, nothing elsewhere."""
    from ..bench.run import Progress

    if not sys.stderr.isatty():
        yield Progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting")
        steps = 0

        def start(total: int) -> None:
            bar.update(task, total=total)

        def step(name: str) -> None:
            nonlocal steps
            bar.update(task, completed=steps, description=name)
            steps += 1

        yield Progress(start, step)


def _show(outcome: Outcome, as_json: bool, plot: Path | None) -> None:
    from ..bench import report

    if plot is not None:
        from ..bench.plot import save

        try:
            save(outcome, plot)
        except OSError as error:
            raise ConfigurationError(f"--plot {plot}: cannot be written: {error.strerror}") from None
    if as_json:
        click.echo(json.dumps(report.as_json(outcome), indent=2))
    else:
        report.show(outcome)
