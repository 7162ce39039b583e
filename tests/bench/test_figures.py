"""From rounds to medians, spreads and ratios."""

import pytest

from ktls_server.bench.figures import CPU_PER_GB, CPU_PER_REQUEST, FIGURES, ratio, significant, spread, spread_of
from ktls_server.bench.measure import Round
from tests.bench import outcomes


def test_the_median_over_the_rounds_is_reported_and_the_least_and_the_most() -> None:
    found = spread([3.0, 1.0, 2.0, 10.0])
    assert (found.median, found.minimum, found.maximum) == (2.5, 1.0, 10.0)


def test_each_figure_of_a_round() -> None:
    assert {figure.key: figure.of(outcomes.one_round(0.8)) for figure in FIGURES} == pytest.approx(
        {
            "cpu_seconds_per_gb": 0.8,
            "cpu_us_per_request": 8000,
            "megabytes_per_second": 1000,
            "requests_per_second": 100,
            "latency_p50_ms": 50,
            "latency_p90_ms": 90,
            "latency_p99_ms": 99,
            "server_busy_percent": 80,
        }
    )


@pytest.mark.parametrize(
    ("latencies", "percent", "expected"),
    [((7.0,), 99, 7.0), ((1.0, 2.0), 50, 1.0), ((1.0, 2.0), 51, 2.0), ((1.0, 2.0, 3.0), 100, 3.0)],
)
def test_a_percentile_is_a_latency_that_was_measured(
    latencies: tuple[float, ...], percent: float, expected: float
) -> None:
    assert Round(len(latencies), 1, 1.0, latencies).latency(percent) == expected


def test_the_ratio_is_that_of_the_medians() -> None:
    assert ratio(CPU_PER_GB, outcomes.kernel(), outcomes.userspace()) == pytest.approx(0.5)


def test_what_is_not_known_is_no_number() -> None:
    unknown = outcomes.series("server", None, kernel=None)
    assert spread_of(CPU_PER_REQUEST, unknown) is None
    assert ratio(CPU_PER_GB, unknown, outcomes.userspace()) is None


@pytest.mark.parametrize(("value", "text"), [(0.123, "0.12"), (1.239, "1.24"), (12.34, "12.3"), (1234.5, "1234")])
def test_figures_are_written_with_three_digits_or_whole(value: float, text: str) -> None:
    assert significant(value) == text
