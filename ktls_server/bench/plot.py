"""An `Outcome` as a picture, PNG or SVG by the file's name. The only module here that needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.figure import Figure as Picture

from .figures import CPU_PER_GB, CPU_PER_REQUEST, LATENCIES, REQUESTS, THROUGHPUT, Figure, significant, spread_of
from .measure import Series
from .report import by_name, is_ladder, ladder_story, load_text, ratio_text, size_text
from .run import KERNEL, USERSPACE, Measurement, Outcome

_COLOURS: Final = {KERNEL: "#0b7a4b", USERSPACE: "#c8701a"}
_OTHER_COLOUR: Final = "#7a8794"

_LARGE_BYTES: Final = 1 << 18
"""From here on what counts is the cost of a byte, below that of a request."""

_STYLE: Final[Any] = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "svg.fonttype": "none",
    # Files that differ only where the figures do.
    "svg.hashsalt": "ktls-server",
}


def save(outcome: Outcome, path: Path) -> None:
    """Write the picture. Raises OSError, or ValueError for a kind of file that cannot be written."""
    with matplotlib.rc_context(_STYLE):
        picture = _ladder(outcome) if is_ladder(outcome) else _paths(outcome)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        picture.savefig(path, dpi=150, bbox_inches="tight", metadata=metadata)


def _paths(outcome: Outcome) -> Picture:
    """A row for each file: CPU time, what went through, latency."""
    count = len(outcome.measurements)
    picture = Picture(figsize=(13, 1.0 + 3.6 * count), layout="constrained")
    grid = picture.subplots(count, 3, squeeze=False)
    for axes, measurement in zip(grid, outcome.measurements, strict=True):
        large = measurement.size is None or measurement.size >= _LARGE_BYTES
        _bars(axes[0], measurement, CPU_PER_GB if large else CPU_PER_REQUEST, size_text(measurement.size))
        _bars(axes[1], measurement, THROUGHPUT if large else REQUESTS, size_text(measurement.size))
        _latencies(axes[2], measurement)
    picture.suptitle("\n".join([_title(outcome), *outcome.notes]), fontsize=10)
    return picture


def _title(outcome: Outcome) -> str:
    return "ktls-server bench: " + load_text(outcome, outcome.measurements[0])


def _colour(series: Series) -> str:
    return _COLOURS.get(series.subject.name, _OTHER_COLOUR)


def _bars(axes: Any, measurement: Measurement, figure: Figure, what: str) -> None:
    known = [series for series in measurement.series if spread_of(figure, series) is not None]
    _draw(axes, known, figure)
    axes.set_ylabel(f"{figure.label}, {figure.unit}")
    axes.set_title(_headline(measurement, figure, what) if known else f"{figure.label}: unknown")


def _headline(measurement: Measurement, figure: Figure, what: str) -> str:
    """The ratio, where there are two to compare."""
    series = by_name(measurement)
    better = "less is better" if figure.lower_is_better else "more is better"
    if KERNEL in series and USERSPACE in series:
        return f"{what}, {better}\nkernel = {ratio_text(figure, series[KERNEL], series[USERSPACE])} userspace"
    return f"{what}, {better}"


def _draw(axes: Any, known: Sequence[Series], figure: Figure) -> None:
    names = [series.subject.name.replace(", ", ",\n") for series in known]
    spreads = [spread for series in known if (spread := spread_of(figure, series)) is not None]
    medians = [spread.median for spread in spreads]
    reach = [
        [spread.median - spread.minimum for spread in spreads],
        [spread.maximum - spread.median for spread in spreads],
    ]
    bars = axes.bar(names, medians, yerr=reach, capsize=4, width=0.6, color=[_colour(series) for series in known])
    axes.bar_label(bars, [significant(value) for value in medians], padding=3, fontweight="bold")
    axes.margins(y=0.18)
    axes.set_xlim(-0.8, len(known) - 0.2)


def _latencies(axes: Any, measurement: Measurement) -> None:
    width = 0.8 / len(measurement.series)
    for number, series in enumerate(measurement.series):
        medians = [spread.median for figure in LATENCIES if (spread := spread_of(figure, series)) is not None]
        places = [place + (number - (len(measurement.series) - 1) / 2) * width for place in range(len(LATENCIES))]
        bars = axes.bar(places, medians, width=width * 0.9, color=_colour(series), label=series.subject.name)
        axes.bar_label(bars, [significant(value) for value in medians], padding=2, fontsize=9)
    axes.set_xticks(range(len(LATENCIES)), [figure.label.removeprefix("latency ") for figure in LATENCIES])
    axes.set_ylabel("latency, ms")
    axes.set_title(f"{size_text(measurement.size)}, less is better")
    axes.margins(y=0.18)
    axes.legend(frameon=False, fontsize=9)


def _ladder(outcome: Outcome) -> Picture:
    """The rungs side by side: CPU time for each gigabyte."""
    (measurement,) = outcome.measurements
    picture = Picture(figsize=(9, 5.2), layout="constrained")
    axes = picture.subplots()
    _draw(axes, measurement.series, CPU_PER_GB)
    axes.set_ylabel(f"{CPU_PER_GB.label}, {CPU_PER_GB.unit} (less is better)")
    axes.set_title("\n".join([f"{size_text(measurement.size)}", *ladder_story(measurement)]))
    picture.suptitle("\n".join([_title(outcome).replace("bench:", "bench --ladder:"), *outcome.notes]), fontsize=9)
    return picture
