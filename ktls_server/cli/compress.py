"""`ktls-server compress`: the precompressed files that `serve` sends to clients that accept them."""

from __future__ import annotations

import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..files.compress import Outcome, Result, Work


@click.command("compress")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--jobs", type=click.IntRange(min=1), help="Files at one time. [default: one for each processor]")
def command(directory: Path, jobs: int | None) -> None:
    """Write FILE.br, FILE.zst and FILE.gz beside each file in DIRECTORY that gets smaller by it.

    Run it again after files have changed: what is up to date is left alone. Exit status 1 if a file could not be read
    or written.
    """
    from ..files.compress import Outcome, find_work
    from ..processors import usable_processors

    work = find_work(directory)
    results = _compress_all(work, jobs or usable_processors())
    click.echo(_summary(work, results))
    unreadable = sorted({item.original for item in work if results[item].outcome is Outcome.UNREADABLE})
    for path in unreadable:
        click.echo(f"cannot be read or written: {path}", err=True)
    if unreadable:
        sys.exit(1)


def _compress_all(work: list[Work], jobs: int) -> dict[Work, Result]:
    """In threads: the compressors release the GIL. The bar counts bytes read, once for each coding."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from ..files.compress import compress_file

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with (
        Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress,
        ThreadPoolExecutor(jobs) as pool,
    ):
        task = progress.add_task("compressing", total=sum(item.size for item in work))
        # The largest first, so that no processor is left with a long one at the end.
        order = sorted(work, key=lambda item: item.size, reverse=True)
        futures = {
            pool.submit(compress_file, item, lambda count: progress.advance(task, count)): item for item in order
        }
        try:
            return {futures[future]: future.result() for future in as_completed(futures)}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _summary(work: list[Work], results: dict[Work, Result]) -> str:
    from ..files.compress import Outcome

    written = [item for item in work if results[item].outcome is Outcome.WRITTEN]
    before, after = sum(item.size for item in written), sum(results[item].size for item in written)
    saved = f": {before:,} bytes have become {after:,}" if before else ""
    counts: Counter[Outcome] = Counter(result.outcome for result in results.values())
    rest = "".join(
        f", {counts[outcome]} {outcome.value}"
        for outcome in Outcome
        if outcome is not Outcome.WRITTEN and counts[outcome]
    )
    return f"{len(written)} written{saved}{rest}"
