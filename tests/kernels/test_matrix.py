"""The table of `make test-kernels`, without a kernel: what it says, what the exit status is, what is left behind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernels import matrix

WORKS, FAILED = matrix.WORKS, matrix.FAILED


def test_the_table_has_features_down_and_kernels_across() -> None:
    columns = {"uml (6.1)": {"alerts": WORKS, "rekeying": "closed in order"}, "qemu-7 (7.3)": {"rekeying": WORKS}}
    assert matrix.table(columns).splitlines() == [
        "          uml (6.1)        qemu-7 (7.3)",
        "alerts    yes              -",
        "rekeying  closed in order  yes",
    ]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Runs the command with lanes that leave these outcomes; None for one that cannot run."""

    def run(**outcomes: dict[str, str] | None) -> int:
        def lane_has_run(lane: str, path: Path) -> bool:
            written = outcomes[lane]
            if written is None:
                return False
            path.write_text(json.dumps({"kernel": "6.1", "outcomes": written}))
            return FAILED not in written.values()

        monkeypatch.setattr(matrix, "_run", lane_has_run)
        monkeypatch.setattr(matrix, "PROJECT", tmp_path)
        return matrix.main(list(outcomes))

    return run


def test_all_went_well(run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(uml={"alerts": WORKS}) == 0
    assert capsys.readouterr().out.endswith("        uml (6.1)\nalerts  yes\n")
    assert list((tmp_path / ".cache").iterdir()) == []


def test_a_test_failed(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(uml={"alerts": FAILED}, native={"alerts": WORKS}) == 1
    output = capsys.readouterr().out
    assert "alerts  FAILED     yes" in output
    assert output.splitlines()[-1].startswith("uml: a test failed")


def test_a_lane_did_not_run(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(uml={"alerts": WORKS}, native=None) == 1
    output = capsys.readouterr().out
    assert "alerts  yes" in output
    assert output.splitlines()[-1].startswith("native: did not run")


def test_a_lane_that_does_not_exist_stops_it_before_anything_is_booted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        matrix.main(["uml", "umm"])
    assert ending.value.code == 2
    assert "'umm'" in capsys.readouterr().err
