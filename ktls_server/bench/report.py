"""An `Outcome` as tables for people and as JSON for programs. The plot is made in plot.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .. import __version__
from .figures import CPU_PER_GB, FIGURES, SERVER_BUSY, THROUGHPUT, Figure, Spread, ratio, significant, spread_of
from .machine import describe_machine
from .measure import Series
from .run import KERNEL, PLAIN_READ, PLAIN_SENDFILE, USERSPACE, Measurement, Outcome

_BUSY_PERCENT = 90
"""From here on it is the server that limits what goes through, and not the clients."""

_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


@dataclass(frozen=True, slots=True)
class Table:
    """What is shown, however it is shown."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def size_text(size: int | None) -> str:
    """A file's size as a person would say it."""
    if size is None:
        return "file of the server"
    for unit, factor in _UNITS:
        if size >= factor and size % factor == 0:
            return f"{size // factor} {unit} file"
    return f"{size} byte file"


def spread_text(value: Spread | None) -> str:
    """The median, and between which values it lay over the rounds."""
    if value is None:
        return "unknown"
    return f"{significant(value.median)} ({significant(value.minimum)} to {significant(value.maximum)})"


def by_name(measurement: Measurement) -> dict[str, Series]:
    """A measurement's series by their subject's name."""
    return {series.subject.name: series for series in measurement.series}


def is_ladder(outcome: Outcome) -> bool:
    """Whether the lower rungs were measured, too."""
    return any(PLAIN_READ in by_name(measurement) for measurement in outcome.measurements)


def tables(outcome: Outcome) -> Iterator[Table]:
    """One for each file."""
    for measurement in outcome.measurements:
        title = f"{size_text(measurement.size)}: {load_text(outcome, measurement)}"
        yield (_ladder_table if is_ladder(outcome) else _paths_table)(title, measurement)


def load_text(outcome: Outcome, measurement: Measurement) -> str:
    """What was asked of the servers."""
    plan = outcome.plan
    amount = f"{plan.requests} requests" if plan.requests else f"{plan.seconds:g} s"
    agreed = next((one.agreed for one in reversed(measurement.series) if one.agreed), "")
    loop = f", {outcome.loop}" if outcome.loop else ""
    return (
        f"{plan.concurrency} connections, {agreed}{loop}; medians of {plan.rounds} rounds of {amount} (least to most)"
    )


def _paths_table(title: str, measurement: Measurement) -> Table:
    known = [figure for figure in FIGURES if spread_of(figure, measurement.series[0]) is not None]
    both = _both_paths(measurement)
    rows = []
    for figure in known:
        cells = [spread_text(spread_of(figure, series)) for series in measurement.series]
        if both is not None and figure is not SERVER_BUSY:
            cells.append(ratio_text(figure, *both))
        rows.append((f"{figure.label}, {figure.unit}", *cells))
    peaks = [series.peak_bytes for series in measurement.series]
    if any(peaks):
        rows.append(("peak memory, MiB", *(f"{(peak or 0) / (1 << 20):.0f}" for peak in peaks)))
    header = ["", *(series.subject.name for series in measurement.series)]
    if both is not None:
        header.append("kernel / userspace")
    width = len(header)
    return Table(title, tuple(header), tuple(row + ("",) * (width - len(row)) for row in rows))


def _both_paths(measurement: Measurement) -> tuple[Series, Series] | None:
    series = by_name(measurement)
    return (series[KERNEL], series[USERSPACE]) if KERNEL in series and USERSPACE in series else None


def ratio_text(figure: Figure, one: Series, other: Series) -> str:
    """How many times one of the other, as `0.58×`."""
    times = ratio(figure, one, other)
    return "" if times is None else f"{significant(times)}×"


def _ladder_table(title: str, measurement: Measurement) -> Table:
    sendfile = by_name(measurement)[PLAIN_SENDFILE]
    rows = [
        (
            series.subject.name,
            spread_text(spread_of(CPU_PER_GB, series)),
            ratio_text(CPU_PER_GB, series, sendfile),
            spread_text(spread_of(THROUGHPUT, series)),
        )
        for series in measurement.series
    ]
    header = ("", f"{CPU_PER_GB.label}, {CPU_PER_GB.unit}", "of sendfile's", f"{THROUGHPUT.label}, {THROUGHPUT.unit}")
    return Table(title, header, tuple(rows))


def ladder_story(measurement: Measurement) -> list[str]:
    """What each rung gave or took, in CPU time for each byte."""
    series = by_name(measurement)
    sentences = []
    for one, other, words in (
        (PLAIN_SENDFILE, PLAIN_READ, "sendfile takes {} the CPU time of read and send"),
        (USERSPACE, PLAIN_SENDFILE, "TLS in userspace takes {} what sendfile does without TLS"),
        (KERNEL, USERSPACE, "kernel TLS with sendfile takes {} what TLS in userspace does"),
    ):
        if one in series and other in series:
            sentences.append(words.format(ratio_text(CPU_PER_GB, series[one], series[other])))
    return sentences


def notes(outcome: Outcome) -> Iterator[str]:
    """What a reader has to know to judge the figures."""
    yield from outcome.notes
    for measurement in outcome.measurements:
        if is_ladder(outcome):
            yield "; ".join(ladder_story(measurement)) + "."
        for series in measurement.series:
            if series.subject.kernel is not None and series.subject.name in (KERNEL, USERSPACE):
                yield (
                    f"{size_text(measurement.size)}, {series.subject.name}: of {series.connections} connections the kernel"
                    f" encrypted {series.kernel_connections} (/proc/net/tls_stat)."
                )
    busy = [spread_of(SERVER_BUSY, series) for one in outcome.measurements for series in one.series]
    if any(one is not None and one.median < _BUSY_PERCENT for one in busy):
        yield (
            "Throughput, requests and latency are bounded by the load clients where the server is not busy all the time;"
            " its CPU time for each byte and request is not."
        )


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything, rounds included; the keys are stable."""
    plan = outcome.plan
    return {
        "ktls_server": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "load": {
            "concurrency": plan.concurrency,
            "rounds": plan.rounds,
            "seconds": plan.seconds or None,
            "requests": plan.requests or None,
            "loop": outcome.loop,
        },
        "measurements": [_measurement_as_json(measurement) for measurement in outcome.measurements],
        "notes": list(notes(outcome)),
    }


def _measurement_as_json(measurement: Measurement) -> dict[str, Any]:
    both = _both_paths(measurement)
    return {
        "size": measurement.size,
        "results": [_series_as_json(series) for series in measurement.series],
        "kernel_to_userspace": None if both is None else {one.key: ratio(one, *both) for one in FIGURES},
    }


def _series_as_json(series: Series) -> dict[str, Any]:
    return {
        "name": series.subject.name,
        "encrypted_by_kernel": series.subject.kernel,
        "agreed": series.agreed,
        "connections": series.connections,
        "connections_encrypted_by_kernel": series.kernel_connections,
        "peak_resident_bytes": series.peak_bytes,
        "figures": {one.key: _figure_as_json(one, series) for one in FIGURES},
    }


def _figure_as_json(figure: Figure, series: Series) -> dict[str, Any] | None:
    value = spread_of(figure, series)
    if value is None:
        return None
    return {
        "median": value.median,
        "minimum": value.minimum,
        "maximum": value.maximum,
        "rounds": [figure.of(one) for one in series.rounds],
    }


def show(outcome: Outcome) -> None:
    """Print tables and notes: drawn in a terminal, plain columns elsewhere."""
    if sys.stdout.isatty():
        _show_in_terminal(outcome)
        return
    for table in tables(outcome):
        print(f"{table.title}\n{columns((table.header, *table.rows))}\n")
    for note in notes(outcome):
        print(note)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Cells under each other, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _show_in_terminal(outcome: Outcome) -> None:
    from rich.console import Console
    from rich.table import Table as Drawing

    console = Console()
    for table in tables(outcome):
        drawing = Drawing()
        for number, name in enumerate(table.header):
            drawing.add_column(name, justify="left" if number == 0 else "right")
        for row in table.rows:
            drawing.add_row(*row)
        console.print(table.title, style="bold", markup=False, highlight=False)
        console.print(drawing)
    for note in notes(outcome):
        console.print(f"• {note}", markup=False, highlight=False)
