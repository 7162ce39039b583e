"""`ktls-server doctor`: the report that people paste into a bug report."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from .diagnosis import Diagnosis

_MARKS = {"ok": ("ok", "green"), "missing": ("MISSING", "bold red"), "note": ("note", "yellow"), "fact": ("", "")}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Tell whether kernel TLS would be used here, and for each thing that is missing the line that mends it.

    Exit status 0 if the kernel would encrypt, 1 if not.
    """
    from ..kernel.probe import probe, tls_stat
    from .diagnosis import diagnose

    counters = tls_stat()
    diagnosis = diagnose(probe(), counters)
    if as_json:
        click.echo(json.dumps(diagnosis.as_dict(), indent=2))
    elif sys.stdout.isatty():
        _print_table(diagnosis)
    else:
        click.echo(_plain(diagnosis))
    sys.exit(0 if diagnosis.kernel_tls else 1)


def _plain(diagnosis: Diagnosis) -> str:
    lines = []
    topic = ""
    for finding in diagnosis.findings:
        if finding.topic != topic:
            topic = finding.topic
            lines.append(f"{topic}:")
        mark = _MARKS[finding.state][0]
        lines.append(f"  {finding.name}: {f'{mark}, ' if mark else ''}{finding.value}")
        if finding.cure:
            lines.append(f"    -> {finding.cure}")
    return "\n".join([*lines, "", f"New connections get {diagnosis.summary}"])


def _print_table(diagnosis: Diagnosis) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    topic = ""
    for finding in diagnosis.findings:
        if finding.topic != topic:
            topic = finding.topic
            table.add_row(Text(topic, style="bold"))
        mark, style = _MARKS[finding.state]
        value = Text(finding.value)
        if finding.cure:
            value.append(f"\n→ {finding.cure}", style="cyan")
        table.add_row(Text("  " + finding.name), Text(mark, style=style), value)
    console = Console()
    console.print(table)
    console.print()
    console.print(Text(f"New connections get {diagnosis.summary}", style="green" if diagnosis.kernel_tls else "yellow"))
