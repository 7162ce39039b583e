"""The command line of the lanes, and what `auto` does on which machine."""

from collections.abc import Callable

import pytest

from tests.kernels import __main__ as command
from tests.kernels.errors import EXIT_STATUS_NOT_RUN, LaneFailed, LaneUnavailable


def test_everything_after_the_dashes_is_the_command() -> None:
    request = command.parse(["uml", "--memory", "512M", "--env", "A=b=c", "--", "sh", "-c", "x", "--", "--timeout"])
    assert request.command == ("sh", "-c", "x", "--", "--timeout")
    assert request.memory_mib == 512
    assert request.extra_environment == {"A": "b=c"}


def test_a_self_test_takes_the_place_of_a_command() -> None:
    assert command.parse(["qemu-7", "--self-test"]).command == command.SELF_TEST


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["uml"],
        ["uml", "--"],
        ["uml", "true"],
        ["vmware", "--self-test"],
        ["uml", "--self-test", "--", "true"],
        ["uml", "--count-instructions", "--self-test"],
        ["uml", "--memory", "2", "--self-test"],
        ["uml", "--memory", "-1G", "--self-test"],
        ["uml", "--env", "NAME", "--self-test"],
    ],
)
def test_a_wrong_command_line_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.parse(arguments)
    assert caught.value.code == 2


def answering(status: int) -> Callable[[command.Request], int]:
    return lambda _request: status


def unavailable(_request: command.Request) -> int:
    raise LaneUnavailable("Mend it with: this")


def crashing(_request: command.Request) -> int:
    raise LaneFailed("crashed", exit_status=EXIT_STATUS_NOT_RUN)


def auto(monkeypatch: pytest.MonkeyPatch, *, native_reason: str | None, uml: Callable[[command.Request], int]) -> int:
    monkeypatch.setattr(command, "why_not_natively", lambda: native_reason)
    monkeypatch.setattr(command, "natively", answering(3))
    monkeypatch.setattr(command, "in_user_mode_linux", uml)
    return command.main(["auto", "--", "true"])


def test_auto_runs_natively_where_the_kernel_has_kernel_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    assert auto(monkeypatch, native_reason=None, uml=answering(4)) == 3


def test_auto_runs_in_user_mode_linux_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert auto(monkeypatch, native_reason="ENOENT", uml=answering(4)) == 4


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("1", 1), ("false", 0), ("", 0)])
def test_auto_without_any_kernel_fails_in_ci_only_and_says_so(
    ci: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", ci)
    assert auto(monkeypatch, native_reason="ENOENT", uml=unavailable) == status
    said = capsys.readouterr().err
    assert "NOTHING WAS TESTED WITH KERNEL TLS" in said
    assert "Mend it with: this" in said


def test_a_kernel_that_crashes_is_never_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "")
    assert auto(monkeypatch, native_reason="ENOENT", uml=crashing) == EXIT_STATUS_NOT_RUN
