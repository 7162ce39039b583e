"""The Makefile's virtual environments, with a Python that only pretends: what is installed once stays installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

# Stands for every Python: notes what it is asked to do, makes "environments" that hold itself, and fails as a test run.
PRETENDER = """#!/bin/sh
echo "$*" >>"{log}"
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/ktls-server" ;;
    "-m pytest"*) exit 1 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile beside a `.ci/pythons` that knows two Pythons."""
    shutil.copy(PROJECT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".ci").mkdir()
    for path, text in (
        (tmp_path / "python", PRETENDER.format(log=tmp_path / "log")),
        (tmp_path / ".ci/pythons", f"#!/bin/sh\necho 3.13 {tmp_path}/python\necho 3.11 {tmp_path}/python\n"),
    ):
        path.write_text(text)
        path.chmod(0o755)
    return tmp_path


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", "--keep-going", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=checkout,
        env=inherited,
    )


def asked(checkout: Path, beginning: str) -> int:
    """How often Python was run with arguments that begin so."""
    return sum(line.startswith(beginning) for line in (checkout / "log").read_text().splitlines())


def test_tests_that_fail_do_not_install_everything_again(checkout: Path) -> None:
    for _ in range(2):
        assert make(checkout, "test-native").returncode != 0
    assert asked(checkout, "-m pytest") == 4
    assert asked(checkout, "-m venv") == 2
    assert asked(checkout, "-m pip install") == 2
    assert (checkout / ".venv-3.11/development.stamp").exists()


def test_a_changed_pyproject_is_installed_again(checkout: Path) -> None:
    make(checkout, "venv")
    later = (checkout / ".venv/development.stamp").stat().st_mtime_ns + 1_000_000_000
    os.utime(checkout / "pyproject.toml", ns=(later, later))
    make(checkout, "venv")
    assert asked(checkout, "-m pip install") == 2


def test_serve_says_what_it_waits_for_the_first_time_and_never_again(checkout: Path) -> None:
    first, second = make(checkout, "serve"), make(checkout, "serve")
    assert "making .venv" in first.stdout
    assert "half a minute" in first.stdout
    assert second.stdout == ""


def test_help_lists_every_target_that_has_a_word_for_itself(checkout: Path) -> None:
    shown = make(checkout).stdout
    described = [line.partition(":")[0] for line in (checkout / "Makefile").read_text().splitlines() if ": ## " in line]
    assert described
    for target in (*described, "test-debian-13"):
        assert f"  make {target} " in shown
