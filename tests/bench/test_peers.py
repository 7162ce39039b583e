"""The comparison with other servers, shortened to two that are always there: ours and Python's own."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.contestants import Contestant, Missing, contestants
from benchmarks.peers import Effort, compare, comparison, make_site
from ktls_server.kernel.probe import KernelTls, probe

EFFORT = Effort(rounds=1, seconds=0.05, large_file_bytes=1 << 20, idle_connections=8)
NO_KERNEL_TLS = KernelTls(reason="the kernel has no tls module (ENOENT)")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    site = make_site(tmp_path_factory.mktemp("peers"), EFFORT.large_file_bytes)
    chosen = [
        one
        for one in contestants(site, probe(), None)
        if isinstance(one, Contestant) and one.name.startswith(("ktls_server, uvloop", "http.server"))
    ]
    measured, failed = compare(site, chosen, EFFORT, lambda _: None)
    assert failed == []
    written = json.dumps(comparison(measured, [Missing("nginx", "not installed")], EFFORT))
    read: dict[str, Any] = json.loads(written)
    return read


def test_every_figure_of_every_server_is_there_and_positive(compared: dict[str, Any]) -> None:
    assert [server["name"] for server in compared["servers"]][-1] == "http.server over ssl"
    for server in compared["servers"]:
        cost = {column.key: server["figures"][column.key]["median"] for column in report.COLUMNS}
        idle = cost.pop("idle_kib")
        # A few connections may find room in memory that is there already.
        assert idle >= 0
        assert min(cost.values()) > 0


def test_the_table_has_a_row_for_each_server_and_names_what_is_missing(compared: dict[str, Any]) -> None:
    lines = report.table(compared).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(compared["servers"])
    assert all(row.count("|") == len(report.COLUMNS) + 2 for row in rows)
    assert "- not measured: nginx: not installed" in lines


def test_the_plot_can_be_drawn_again_from_the_json(compared: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "peers.json").write_text(json.dumps(compared))
    assert report.main([str(tmp_path / "peers.json"), "--plot", str(tmp_path / "images" / "peers.svg")]) == 0
    assert (tmp_path / "images" / "peers.svg").stat().st_size > 1000


def test_kernel_paths_are_missing_with_the_kernel_s_reason_and_never_run_without_it(tmp_path: Path) -> None:
    found = list(contestants(make_site(tmp_path, 1 << 16), NO_KERNEL_TLS, None))
    assert not any(one.kernel for one in found if isinstance(one, Contestant))
    reasons = {one.name: one.reason for one in found if isinstance(one, Missing)}
    assert reasons["ktls_server, uvloop, kTLS"] == NO_KERNEL_TLS.reason


def test_a_server_that_does_not_start_is_named_with_what_it_said(tmp_path: Path) -> None:
    site = make_site(tmp_path, 1 << 16)
    broken = Contestant("broken", "1", False, lambda port: ["/bin/sh", "-c", "echo no such thing >&2; exit 1"])
    measured, failed = compare(site, [broken], EFFORT, lambda _: None)
    assert measured == []
    assert failed == [Missing("broken", "broken did not start: no such thing")]
