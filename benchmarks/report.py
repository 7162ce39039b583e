"""The comparison as JSON, and as the table and the plot that are made from that JSON alone.

So a table in the README can be written again, and looks the same, without measuring again:

    python -m benchmarks.report benchmarks/results/peers.json [--plot FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from ktls_server.bench.figures import significant, spread
from ktls_server.bench.machine import describe_machine

OURS: Final = "ktls_server"

LONGEST_BAR: Final = 5
"""In medians of the field."""


@dataclass(frozen=True, slots=True)
class Column:
    """One figure: `key` in JSON, a heading, the unit. The less, the better."""

    key: str
    heading: str
    unit: str


COLUMNS: Final = (
    Column("large_cpu_seconds_per_gb", "large file", "CPU s/GB"),
    Column("small_cpu_us_per_request", "1 KiB, keep-alive", "CPU µs/request"),
    Column("handshake_cpu_ms", "full handshake + 1 KiB", "CPU ms"),
    Column("idle_kib", "idle connection", "KiB"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A server and its figures, round by round, by the names in `COLUMNS`."""

    name: str
    version: str
    kernel: bool
    figures: dict[str, Sequence[float]]


def outcome(rows: Iterable[Row], missing: Iterable[tuple[str, str]], work: dict[str, Any]) -> dict[str, Any]:
    """What is written as JSON. `missing` are (name, reason), `work` is what each server was asked to do."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe_machine(),
        "work": work,
        "servers": [
            {
                "name": row.name,
                "version": row.version,
                "encrypted_by_kernel": row.kernel,
                "figures": {key: _figure(values) for key, values in row.figures.items()},
            }
            for row in rows
        ],
        "missing": [{"name": name, "reason": reason} for name, reason in missing],
    }


def _figure(values: Sequence[float]) -> dict[str, Any]:
    over_rounds = spread(values)
    return {
        "median": over_rounds.median,
        "minimum": over_rounds.minimum,
        "maximum": over_rounds.maximum,
        "rounds": list(values),
    }


def table(comparison: dict[str, Any]) -> str:
    """Markdown: medians, the names of what is missing, and where it was measured."""
    header = ["server", *(f"{column.heading}, {column.unit}" for column in COLUMNS)]
    rows = [header, ["---"] * len(header)]
    for server in comparison["servers"]:
        name = f"{server['name']} ({server['version']})"
        medians = [significant(server["figures"][column.key]["median"]) for column in COLUMNS]
        cells = [name, *medians]
        rows.append([f"**{cell}**" for cell in cells] if name.startswith(OURS) else cells)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", caption(comparison)]
    lines += [f"- not measured: {missing['name']}: {missing['reason']}" for missing in comparison["missing"]]
    return "\n".join(lines)


def caption(comparison: dict[str, Any]) -> str:
    """Date, machine and work in one sentence."""
    machine, work = comparison["machine"], comparison["work"]
    return (
        f"{comparison['date']}, {machine['cpu']}, {machine['cpus']} CPUs, {machine['kernel']}, {machine['python']},"
        f" {machine['openssl']}. One process each, {work['tls']}, P-256 certificate, no resumption; medians of"
        f" {work['rounds']} rounds."
    )


def plot(comparison: dict[str, Any], path: Path) -> None:
    """One panel for each figure, a bar for each server, ours in green. Bars that would leave the others tiny are cut."""
    import matplotlib
    from matplotlib.figure import Figure

    servers = comparison["servers"]
    style: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "ktls-server"}
    with matplotlib.rc_context(style):
        picture = Figure(figsize=(13, 2 + 0.55 * len(servers)), layout="constrained")
        grid: Any = picture.subplots(2, 2)
        for axes, column in zip(grid.flat, COLUMNS, strict=True):
            _panel(axes, column, servers)
        picture.suptitle(textwrap.fill(caption(comparison), 150), fontsize=10)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.savefig(path, dpi=150, metadata=metadata)


def _panel(axes: Any, column: Column, servers: Sequence[dict[str, Any]]) -> None:
    """The best at the top."""
    medians = {server["name"]: server["figures"][column.key]["median"] for server in servers}
    names = sorted(medians, key=medians.__getitem__, reverse=True)
    limit = LONGEST_BAR * median(medians.values())
    colours = ["#0b7a4b" if name.startswith(OURS) else "#9aa5b1" for name in names]
    bars = axes.barh(names, [min(medians[name], limit) for name in names], color=colours)
    labels = [significant(medians[name]) + (" (cut)" if medians[name] > limit else "") for name in names]
    axes.bar_label(bars, labels, padding=4)
    axes.margins(x=0.14)
    axes.set_title(f"{column.heading}: {column.unit} (less is better)")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="Show a comparison again.")
    parser.add_argument("comparison", type=Path, metavar="JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="PNG or SVG")
    options = parser.parse_args(arguments)
    comparison = json.loads(options.comparison.read_text(encoding="utf-8"))
    print(table(comparison))
    if options.plot is not None:
        plot(comparison, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
