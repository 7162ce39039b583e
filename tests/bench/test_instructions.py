"""The instruction counts: their comparison with a baseline, and a run that is shortened, on this kernel."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.contestants import Contestant, Missing, contestants
from benchmarks.instructions.__main__ import BASELINE
from benchmarks.instructions.figures import (
    Figures,
    Measured,
    Run,
    differences,
    figures_of,
    from_json,
    regressions,
    table,
    to_json,
)
from benchmarks.instructions.guest import NAMES, Effort, make_site, measure
from ktls_server.kernel.probe import KernelTls

EFFORT = Effort(repetitions=1, large_bytes=100_000, requests=(1, 3), connections=(1, 2))
NO_KERNEL_TLS = KernelTls(reason="the kernel has no tls module (ENOENT)")

FIGURES = Figures(
    per_byte=4.0,
    per_request=200_000,
    per_browser_request=220_000,
    per_new_file=300_000,
    per_connection=3_000_000,
    spread=0.01,
)
OURS = Measured("ktls_server, uvloop, kTLS", "0.1.0", True, FIGURES)
NGINX = Measured("nginx", "1.22.1", False, FIGURES)
RUN = Run({"Linux": "6.12.1", "Python": "3.13.0"}, (OURS, NGINX), {"aiohttp, aiofastnet": "not installed"})


def with_figures(figures: Figures) -> Run:
    return replace(RUN, servers=(replace(OURS, figures=figures), NGINX))


def test_each_figure_is_the_median_of_the_repetitions() -> None:
    repetitions = [
        (4.1, 200.0, 220.0, 300.0, 3000.0),
        (4.0, 210.0, 220.0, 310.0, 3000.0),
        (4.3, 190.0, 230.0, 290.0, 3030.0),
    ]
    figures = figures_of(repetitions)
    assert (figures.per_byte, figures.per_request, figures.per_connection) == (4.1, 200.0, 3000.0)
    assert (figures.per_browser_request, figures.per_new_file) == (220.0, 300.0)
    assert figures.spread == pytest.approx(20 / 200)


def test_a_run_comes_back_from_its_json() -> None:
    assert from_json(to_json(RUN)) == RUN


def test_the_json_has_no_more_digits_than_mean_something() -> None:
    run = with_figures(Figures(4.123456, 200_000.4, 220_000.2, 300_000.3, 3_000_000.2, 0.012345))
    (figures, _) = [server["figures"] for server in json.loads(to_json(run))["servers"]]
    assert figures == {
        "per_byte": 4.123,
        "per_request": 200_000,
        "per_browser_request": 220_000,
        "per_new_file": 300_000,
        "per_connection": 3_000_000,
        "spread": 0.0123,
    }


def test_a_run_has_no_regressions_against_itself() -> None:
    assert list(regressions(RUN, RUN)) == []


@pytest.mark.parametrize(
    ("figures", "worse"),
    [
        (replace(FIGURES, per_byte=4.19), []),
        (replace(FIGURES, per_byte=4.22), ["per_byte"]),
        (replace(FIGURES, per_request=209_000), []),
        (replace(FIGURES, per_request=211_000), ["per_request"]),
        (replace(FIGURES, per_connection=3_140_000), []),
        (replace(FIGURES, per_connection=3_160_000), ["per_connection"]),
        (replace(FIGURES, per_browser_request=232_000), ["per_browser_request"]),
        (replace(FIGURES, per_new_file=316_000), ["per_new_file"]),
        (Figures(1.0, 1.0, 1.0, 1.0, 1.0, 0.0), []),
        (replace(FIGURES, per_byte=8.0, per_request=400_000), ["per_byte", "per_request"]),
    ],
)
def test_a_figure_of_ours_may_rise_by_five_per_cent_and_fall_as_it_likes(figures: Figures, worse: list[str]) -> None:
    found = list(regressions(RUN, with_figures(figures)))
    assert len(found) == len(worse)
    for sentence, name in zip(found, worse, strict=True):
        assert sentence.startswith(f"ktls_server, uvloop, kTLS, {name}: ")


def test_the_figures_of_others_are_not_guarded() -> None:
    slower = replace(RUN, servers=(OURS, replace(NGINX, figures=replace(FIGURES, per_byte=400.0))))
    assert list(regressions(RUN, slower)) == []


def test_a_server_of_ours_that_was_not_measured_is_a_regression_with_its_reason() -> None:
    absent = replace(RUN, servers=(NGINX,), missing={OURS.name: "the kernel has no tls module"})
    assert list(regressions(RUN, absent)) == [f"{OURS.name}: not measured (the kernel has no tls module)"]


def test_what_differs_from_where_the_baseline_was_made_is_named() -> None:
    assert list(differences(RUN, RUN)) == []
    elsewhere = replace(RUN, environment={"Linux": "6.12.9", "Python": "3.13.0"})
    assert list(differences(RUN, elsewhere)) == ["Linux is 6.12.9, the baseline was made with 6.12.1"]


def test_the_table_says_who_encrypted_and_what_is_missing() -> None:
    lines = table(RUN).splitlines()
    assert (
        "| ktls_server, uvloop, kTLS 0.1.0 | kernel | 4.00 | 200,000 | 220,000 | 300,000 | 3,000,000 | 1.0% |" in lines
    )
    assert "| nginx 1.22.1 | userspace | 4.00 | 200,000 | 220,000 | 300,000 | 3,000,000 | 1.0% |" in lines
    assert "aiohttp, aiofastnet: not installed" in lines


def test_the_baseline_has_both_paths_of_ours() -> None:
    baseline = from_json(BASELINE.read_text(encoding="utf-8"))
    paths = {server.name: server.kernel for server in baseline.servers if server.name.startswith("ktls_server")}
    assert paths == {"ktls_server, uvloop, kTLS": True, "ktls_server, uvloop": False}


def test_every_server_that_is_to_be_measured_is_one_that_the_comparison_knows(tmp_path: Path) -> None:
    known = {one.name for one in contestants(make_site(tmp_path, 1), NO_KERNEL_TLS, None)}
    assert {name for name in NAMES if not name.startswith("aiohttp")} <= known


def test_a_shortened_run_measures_the_userspace_path_and_names_what_it_cannot(tmp_path: Path) -> None:
    site = make_site(tmp_path, EFFORT.large_bytes)
    found = {one.name: one for one in contestants(site, NO_KERNEL_TLS, None)}
    run = measure(site, [found[NAMES[0]], found[NAMES[1]], Missing("nginx", "not installed")], EFFORT)
    assert [(server.name, server.kernel) for server in run.servers] == [("ktls_server, uvloop", False)]
    assert run.missing == {"ktls_server, uvloop, kTLS": NO_KERNEL_TLS.reason, "nginx": "not installed"}
    assert set(run.environment) == {"Linux", "Python", "OpenSSL"}


def test_a_server_whose_path_the_counters_deny_has_no_figures(tmp_path: Path) -> None:
    site = make_site(tmp_path, EFFORT.large_bytes)
    (userspace,) = (one for one in contestants(site, NO_KERNEL_TLS, None) if one.name == "ktls_server, uvloop")
    assert isinstance(userspace, Contestant)
    run = measure(site, [replace(userspace, kernel=True)], EFFORT)
    assert run.servers == ()
    assert "the kernel encrypted 0" in run.missing["ktls_server, uvloop"]
