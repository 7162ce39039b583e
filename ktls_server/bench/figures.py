"""From rounds to what is reported: the median of each figure over the rounds, and between which values it lay."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from .measure import GIGABYTE, Round, Series


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the report. `key` is its name in JSON; `of` is None where a round does not have it."""

    key: str
    label: str
    unit: str
    of: Callable[[Round], float | None]
    lower_is_better: bool = True


def _per(amount: float | None, count: float, scale: float) -> float | None:
    return None if amount is None else amount / count * scale


def _latency(percent: float) -> Callable[[Round], float]:
    return lambda one: one.latency(percent) * 1e3


CPU_PER_GB: Final = Figure(
    "cpu_seconds_per_gb", "server CPU", "s/GB", lambda one: _per(one.cpu_seconds, one.bytes, GIGABYTE)
)
CPU_PER_REQUEST: Final = Figure(
    "cpu_us_per_request", "server CPU", "µs/request", lambda one: _per(one.cpu_seconds, one.requests, 1e6)
)
SERVER_BUSY: Final = Figure(
    "server_busy_percent", "server busy", "% of a CPU", lambda one: _per(one.cpu_seconds, one.seconds, 100)
)
THROUGHPUT: Final = Figure(
    "megabytes_per_second", "throughput", "MB/s", lambda one: one.bytes / one.seconds / 1e6, lower_is_better=False
)
REQUESTS: Final = Figure(
    "requests_per_second", "requests", "1/s", lambda one: one.requests / one.seconds, lower_is_better=False
)
LATENCIES: Final = tuple(
    Figure(f"latency_p{percent}_ms", f"latency p{percent}", "ms", _latency(percent)) for percent in (50, 90, 99)
)

FIGURES: Final = (CPU_PER_GB, CPU_PER_REQUEST, THROUGHPUT, REQUESTS, *LATENCIES, SERVER_BUSY)


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over the rounds."""

    median: float
    minimum: float
    maximum: float


def spread(values: Iterable[float]) -> Spread:
    """Of at least one value."""
    known = sorted(values)
    return Spread(statistics.median(known), known[0], known[-1])


def spread_of(figure: Figure, series: Series) -> Spread | None:
    """A figure over a subject's rounds; None where it is not known."""
    values = [value for value in map(figure.of, series.rounds) if value is not None]
    return spread(values) if values else None


def ratio(figure: Figure, one: Series, other: Series) -> float | None:
    """How many times `other` `one` is, by their medians; None where one is not known, or nothing."""
    above, below = spread_of(figure, one), spread_of(figure, other)
    return above.median / below.median if above is not None and below is not None and below.median else None


def significant(value: float) -> str:
    """Three digits: what a measurement of some rounds is good for."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
