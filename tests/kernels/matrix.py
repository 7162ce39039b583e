"""What works on which kernel: `python -m tests.kernels.matrix [LANE...]`, or `make test-kernels`.

A feature is what tests marked `@pytest.mark.kernel_matrix("feature")` say it is; "{suite}" in the name stands for the test's
parameter. They are run on each lane's kernel, where this module is a pytest plugin, too: it picks the marked tests, and
writes down what became of them. A test that expects different things of different kernels says which by
`record_property("kernel_matrix", "closed in order")`.

The exit status is 0 where every lane ran and every test passed on it. A feature that no test has spoken for on a kernel
(skipped there, or not reached in time) has a "-" in the table.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.kernels.__main__ import leave
from tests.kernels.packages import PROJECT
from tests.kernels.qemu import SOURCES

MARKER = "kernel_matrix"
MARKER_DESCRIPTION = f"{MARKER}(feature): one of the tests that `make test-kernels` runs on several kernels"
LANES = ("uml", "qemu-7")
"""Linux 6.1, and the newest: without rekeying and with it."""
TESTS = ("tests/tls", "tests/operation/test_workers.py", "tests/server/test_example.py")
ONE_SUITE = "TLS_AES_128_GCM_SHA256"
TIMEOUT_SECONDS = 1500
"""For one lane. Software emulation takes some minutes, twice that on a busy machine."""
CUTS = 60
"""Connections that tests/tls/test_cuts.py cuts: a kernel's leak shows after few, an emulated machine is slow."""
WORKS, FAILED, NOT_TESTED = "yes", "FAILED", "-"

Outcomes = dict[str, str]


# The plugin, inside a lane


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kernel-matrix", type=Path, metavar="FILE", help="run the marked tests, write outcomes to FILE")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--kernel-matrix", None)
    if path is not None:
        config.pluginmanager.register(_Recorder(path))


class _Recorder:
    """Notes, feature by feature, the worst that happened to its tests."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._features: dict[str, str] = {}
        self._outcomes: Outcomes = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if self._choose(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen

    def _choose(self, item: pytest.Item) -> bool:
        """Whether the test is part of the matrix. Where a feature does not name its suite, one of them is enough."""
        marker = item.get_closest_marker(MARKER)
        if marker is None:
            return False
        (feature,) = marker.args
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if "{suite}" not in feature and parameters.get("suite", ONE_SUITE) != ONE_SUITE:
            return False
        self._features[item.nodeid] = feature.format(**parameters)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        feature = self._features[report.nodeid]
        if report.failed:
            self._outcomes[feature] = FAILED
        elif report.when == "call" and not report.skipped and self._outcomes.get(feature) != FAILED:
            said = dict(report.user_properties).get(MARKER, WORKS)
            assert isinstance(said, str)
            # What a test has to say counts for more than that others of the same feature have nothing to say.
            if said != WORKS or feature not in self._outcomes:
                self._outcomes[feature] = said

        # Now, and not at the end only: an emulated machine may be out of time before that.
        self._path.write_text(json.dumps({"kernel": os.uname().release, "outcomes": self._outcomes}))


# The command, outside


def main(arguments: list[str]) -> int:
    """Run the lanes one after the other and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels.matrix", description="What works on which kernel.")
    known = ("native", "uml", *SOURCES)
    help_text = f"of {', '.join(known)}; default: {' '.join(LANES)}"
    parser.add_argument("lanes", nargs="*", metavar="LANE", default=LANES, help=help_text)
    lanes: list[str] = parser.parse_args(arguments).lanes
    for lane in lanes:
        if lane not in known:
            parser.error(f"no lane is called {lane!r}: {help_text}")
    columns: dict[str, Outcomes] = {}
    failed = []
    # Below the project, because a guest has a /run and a TMPDIR of its own.
    cache = PROJECT / ".cache"
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kernel-matrix-", dir=cache) as folder:
        for lane in lanes:
            path = Path(folder, f"{lane}.json")
            print(f"== {lane}", flush=True)
            started = time.monotonic()
            if not _run(lane, path) or not path.exists():
                failed.append(lane)
            print(f"== {lane}: {time.monotonic() - started:.0f} s", flush=True)
            if path.exists():
                written = json.loads(path.read_text())
                columns[f"{lane} ({written['kernel']})"] = written["outcomes"]
    print(table(columns))
    for lane in failed:
        ran = any(column.startswith(f"{lane} ") for column in columns)
        print(f"{lane}: {'a test failed, or was not reached' if ran else 'did not run'}; what is above says more")
    return 1 if failed else 0


def _run(lane: str, path: Path) -> bool:
    python = [sys.executable, "-m"]
    pytest_command = [*python, "pytest", "-p", "no:cacheprovider", "-p", __spec__.name, "--ktls-kernel", "-q"]
    tests = ["--kernel-matrix", str(path), *TESTS]
    options = ["--timeout", str(TIMEOUT_SECONDS), "--env", f"KTLS_TEST_CUTS={CUTS}"]
    command = [*python, "tests.kernels", lane, *options, "--", *pytest_command, *tests]
    with subprocess.Popen(command) as running:
        try:
            return running.wait() == 0
        except BaseException:
            running.terminate()  # the lane powers its machine off on the way out; `run` would kill it at once
            raise


def table(columns: dict[str, Outcomes]) -> str:
    """Features down, kernels across."""
    features = sorted({feature for outcomes in columns.values() for feature in outcomes})
    rows = [["", *columns], *([f, *(outcomes.get(f, NOT_TESTED) for outcomes in columns.values())] for f in features)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(columns) + 1)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)  # so that the lane ends, and the folder goes
    sys.exit(main(sys.argv[1:]))
