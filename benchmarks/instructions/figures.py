"""What was measured, as values: to and from JSON, as a table, and against a baseline. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final

WORST_CHANGE: Final = 0.05
"""How much worse than in the baseline a figure may be. Runs differ by one or two per cent, so this is no accident."""

OURS: Final = "ktls_server"
"""How the names of the guarded servers begin. The others are there to compare with; we do not answer for them."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The server's instructions, kernel and crypto included: medians over the repetitions.

    `per_byte` of a large file; `per_request` of a small one on a connection that is kept, with curl's fields, and
    `per_browser_request` with a browser's; `per_new_file` of a page of 50 small files that were never asked for, from a
    folder of 10,000; `per_connection` with a full handshake, a small request, and the end. `spread` is the largest
    distance between repetitions of any of them, as a fraction of its median.
    """

    per_byte: float
    per_request: float
    per_browser_request: float
    per_new_file: float
    per_connection: float
    spread: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One server; `kernel` tells who encrypted, as the kernel's own counters say."""

    name: str
    version: str
    kernel: bool
    figures: Figures


@dataclass(frozen=True, slots=True)
class Run:
    """All servers of one boot. `environment` names what figures depend on: kernel, Python, OpenSSL."""

    environment: dict[str, str]
    servers: tuple[Measured, ...]
    missing: dict[str, str]
    """The servers that are not here, and why."""


GUARDED: Final = ("per_byte", "per_request", "per_browser_request", "per_new_file", "per_connection")
"""What the baseline is compared in."""


def figures_of(repetitions: Sequence[tuple[float, ...]]) -> Figures:
    """The medians over the repetitions, each of which has the figures in the order of GUARDED."""
    rows = dict(zip(GUARDED, zip(*repetitions, strict=True), strict=True))
    spread = max((max(row) - min(row)) / median(row) for row in rows.values())
    return Figures(**{name: median(row) for name, row in rows.items()}, spread=spread)


def to_json(run: Run) -> str:
    """The run as a JSON document. Figures are rounded to what means something, so that a new baseline is a small diff."""
    document = asdict(run)
    for server in document["servers"]:
        figures = server["figures"]
        figures["per_byte"] = round(figures["per_byte"], 3)
        for name in GUARDED[1:]:
            figures[name] = round(figures[name])
        figures["spread"] = round(figures["spread"], 4)
    return json.dumps(document, indent=2) + "\n"


def from_json(text: str) -> Run:
    """The run that `to_json` wrote."""
    document = json.loads(text)
    servers = tuple(
        Measured(server["name"], server["version"], server["kernel"], Figures(**server["figures"]))
        for server in document["servers"]
    )
    return Run(document["environment"], servers, document["missing"])


def table(run: Run) -> str:
    """The run as a Markdown table, with what it depends on above and what is missing below."""
    lines = [
        ", ".join(f"{name} {value}" for name, value in run.environment.items()),
        "",
        "| server | who encrypts | large file, per byte | 1 KiB keep-alive, per request | with a browser's fields"
        " | a page's file, never seen | handshake + 1 KiB | spread |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for server in run.servers:
        figures = server.figures
        lines.append(
            f"| {server.name} {server.version} | {'kernel' if server.kernel else 'userspace'} | {figures.per_byte:.2f} "
            f"| {figures.per_request:,.0f} | {figures.per_browser_request:,.0f} | {figures.per_new_file:,.0f} "
            f"| {figures.per_connection:,.0f} | {figures.spread:.1%} |"
        )
    lines += (f"\n{name}: {reason}" for name, reason in run.missing.items())
    return "\n".join(lines)


def regressions(baseline: Run, run: Run) -> Iterator[str]:
    """A sentence for each figure of ours that is more than `WORST_CHANGE` above the baseline's, or is not there."""
    measured = {server.name: server.figures for server in run.servers}
    for server in baseline.servers:
        if not server.name.startswith(OURS):
            continue
        if server.name not in measured:
            yield f"{server.name}: not measured ({run.missing.get(server.name, 'it was not asked for')})"
            continue
        for name in GUARDED:
            before, now = getattr(server.figures, name), getattr(measured[server.name], name)
            if now > before * (1 + WORST_CHANGE):
                yield f"{server.name}, {name}: {now:,.2f}, which is {now / before - 1:.1%} above {before:,.2f}"


def differences(baseline: Run, run: Run) -> Iterator[str]:
    """A line for each thing that figures depend on and that is not what it was for the baseline."""
    for name, value in baseline.environment.items():
        now = run.environment.get(name, "none")
        if now != value:
            yield f"{name} is {now}, the baseline was made with {value}"
