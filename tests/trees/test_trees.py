"""What a tree is made from, and what of this machine goes into it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.trees import __main__ as command
from tests.trees import tree
from tests.trees.errors import EXIT_STATUS_NOT_RUN, TreeUnavailable
from tests.trees.pip_settings import INSIDE_AUTHORITIES, pip_environment
from tests.trees.release import DEBIAN_13, sources

MACHINE = """\
:env:.cert='/etc/somewhere.crt'
:env:.find-links='/somewhere/wheels'
global.constraint='/etc/constraints.txt'
global.extra-index-url='file:///somewhere/simple https://two.example/simple'
global.index-url='https://one.example/simple'
global.timeout='180'
"""


def test_packages_come_from_the_mirror_that_the_machine_uses() -> None:
    mirror = ["http://mirror.example/debian-security/", "http://mirror.example/debian/"]
    words = [line.split() for line in sources(DEBIAN_13, mirror)]
    assert [(uri, suite, component) for _, _, uri, suite, component in words] == [
        ("http://mirror.example/debian", "trixie", "main"),
        ("http://mirror.example/debian", "trixie-updates", "main"),
        ("http://mirror.example/debian-security", "trixie-security", "main"),
    ]


def test_pip_gets_the_machines_index_but_none_of_its_paths() -> None:
    environment = pip_environment(MACHINE, {"HTTPS_PROXY": "http://proxy.example", "TOKEN": "secret"})
    assert environment == {
        "HTTPS_PROXY": "http://proxy.example",
        "PIP_CERT": INSIDE_AUTHORITIES,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_EXTRA_INDEX_URL": "https://two.example/simple",
        "PIP_INDEX_URL": "https://one.example/simple",
        "PIP_TIMEOUT": "180",
    }


def test_the_strongest_source_of_a_setting_wins() -> None:
    assert pip_environment("global.timeout='1'\n:env:.timeout='2'\n", {})["PIP_TIMEOUT"] == "2"


def test_a_tree_that_cannot_be_had_is_a_failure_and_never_a_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(release: object) -> None:
        raise TreeUnavailable("mmdebstrap is missing.")

    monkeypatch.setattr(command, "prepare", refuse)
    assert command.main(["debian-13", "--", "tests/keys"]) == EXIT_STATUS_NOT_RUN
    assert "NOTHING WAS TESTED" in capsys.readouterr().err


def test_tests_have_to_be_named() -> None:
    for arguments in (["debian-13"], ["debian-13", "--"], ["debian-2", "--", "tests"]):
        with pytest.raises(SystemExit) as ended:
            command.main(arguments)
        assert ended.value.code == 2


def test_without_root_the_lane_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(TreeUnavailable, match="sudo"):
        tree.prepare(DEBIAN_13)


def test_a_missing_tool_comes_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda tool: None)
    with pytest.raises(TreeUnavailable, match="apt-get install mmdebstrap"):
        tree.prepare(DEBIAN_13)


def test_a_tree_with_other_versions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree.Tree, "run", lambda self, command, environment, *, timeout: 1)
    with pytest.raises(TreeUnavailable, match="to make it anew"):
        tree._check_versions(tree.Tree(DEBIAN_13, tmp_path))
