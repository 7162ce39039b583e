"""Tables, notes, JSON and plots of outcomes made by hand."""

import json
import sys
from pathlib import Path

import pytest

from ktls_server.bench import plot, report
from ktls_server.bench.run import KERNEL, USERSPACE, Outcome
from tests.bench import outcomes


def test_both_paths_stand_side_by_side_with_their_ratio() -> None:
    (table,) = report.tables(outcomes.both_paths())
    assert table.header == ("", USERSPACE, KERNEL, "kernel / userspace")
    assert table.rows[0] == ("server CPU, s/GB", "1.60 (1.50 to 1.80)", "0.80 (0.70 to 0.90)", "0.50×")
    assert all(len(row) == len(table.header) for row in table.rows)


def test_a_path_that_was_not_measured_has_no_column_and_a_reason() -> None:
    outcome = outcomes.userspace_only()
    (table,) = report.tables(outcome)
    assert table.header == ("", USERSPACE)
    assert outcomes.REASON in report.notes(outcome)
    assert not any("×" in cell for row in table.rows for cell in row)


def test_figures_that_are_not_known_have_no_row() -> None:
    (table,) = report.tables(outcomes.outcome(outcomes.series("server", None, kernel=None)))
    assert not any("CPU" in row[0] or "memory" in row[0] for row in table.rows)
    assert table.rows[0][0] == "throughput, MB/s"


def test_the_ladder_has_a_row_for_each_rung() -> None:
    (table,) = report.tables(outcomes.ladder())
    assert [row[0] for row in table.rows] == ["no TLS, read and send", "no TLS, sendfile", USERSPACE, KERNEL]
    assert [row[2] for row in table.rows] == ["2.00×", "1.00×", "8.00×", "4.00×"]


def test_the_story_of_the_ladder_is_told_in_ratios() -> None:
    (measurement,) = outcomes.ladder().measurements
    assert report.ladder_story(measurement) == [
        "sendfile takes 0.50× the CPU time of read and send",
        "TLS in userspace takes 8.00× what sendfile does without TLS",
        "kernel TLS with sendfile takes 0.50× what TLS in userspace does",
    ]


def test_json_has_every_round_and_what_the_counters_said() -> None:
    outcome = json.loads(json.dumps(report.as_json(outcomes.both_paths())))
    (measurement,) = outcome["measurements"]
    of_kernel = measurement["results"][1]
    assert of_kernel["encrypted_by_kernel"] is True
    assert of_kernel["connections_encrypted_by_kernel"] == of_kernel["connections"] == 24
    cost = of_kernel["figures"]["cpu_seconds_per_gb"]
    assert cost["rounds"] == pytest.approx([0.7, 0.8, 0.9])
    assert [cost["median"], cost["minimum"], cost["maximum"]] == pytest.approx([0.8, 0.7, 0.9])
    assert measurement["kernel_to_userspace"]["cpu_seconds_per_gb"] == pytest.approx(0.5)
    assert set(outcome["machine"]) == {"cpu", "cpus", "kernel", "python", "openssl"}


def test_in_a_pipe_the_columns_are_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    report.show(outcomes.both_paths())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("10000000 byte file: 8 connections, TLSv1.3 TLS_AES_128_GCM_SHA256, uvloop")
    assert lines[1].split() == [*USERSPACE.split(), *KERNEL.split(), "kernel", "/", "userspace"]


def test_in_a_terminal_a_table_is_drawn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    report.show(outcomes.both_paths())
    drawn = capsys.readouterr().out
    assert "│" in drawn
    assert "1.60 (1.50 to 1.80)" in drawn
    assert "of 24 connections the kernel encrypted 24" in drawn


@pytest.mark.parametrize(
    ("size", "text"),
    [(1024, "1 KiB file"), (16 << 20, "16 MiB file"), (1 << 30, "1 GiB file"), (1500, "1500 byte file")],
)
def test_sizes_are_said_as_people_do(size: int, text: str) -> None:
    assert report.size_text(size) == text


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (outcomes.both_paths(), [USERSPACE, KERNEL, "kernel = 0.50× userspace", "latency, ms", "1.60", "0.80"]),
        (outcomes.userspace_only(), [USERSPACE, outcomes.REASON]),
        (
            outcomes.ladder(),
            ["read and send", "sendfile", "kernel TLS with sendfile takes 0.50× what TLS in userspace"],
        ),
    ],
    ids=["both paths", "userspace only", "ladder"],
)
def test_the_plot_says_what_it_shows(outcome: Outcome, words: list[str], tmp_path: Path) -> None:
    plot.save(outcome, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert [word for word in words if word not in drawn] == []
    assert (KERNEL in drawn) == (outcome.measurements[0].series[-1].subject.name == KERNEL)


def test_a_plot_can_be_a_png(tmp_path: Path) -> None:
    plot.save(outcomes.both_paths(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
