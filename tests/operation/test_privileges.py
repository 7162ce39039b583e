"""Giving up root: what is called, in which order, and that the result is looked at."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable

import pytest

from ktls_server.errors import ConfigurationError, SystemRefusal
from ktls_server.operation import privileges
from tests.operation.forking import in_a_child

ANN = pwd.struct_passwd(("ann", "x", 1000, 1001, "", "/", "/bin/sh"))


class Process:
    """A process's identity as the kernel keeps it, and the calls that changed it, in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, ignores: str = "") -> None:
        self.calls: list[str] = []
        self.groups = [0, 27]
        self.gids = self.uids = (0, 0, 0)
        self._ignores = ignores
        monkeypatch.setattr(pwd, "getpwnam", {"ann": ANN}.__getitem__)
        monkeypatch.setattr(os, "geteuid", lambda: self.uids[1])
        monkeypatch.setattr(os, "getegid", lambda: self.gids[1])
        monkeypatch.setattr(os, "getresuid", lambda: self.uids)
        monkeypatch.setattr(os, "getresgid", lambda: self.gids)
        monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, 44])
        for name, change in (
            ("setgroups", self._set_groups),
            ("setresgid", self._set_gids),
            ("setresuid", self._set_uids),
        ):
            monkeypatch.setattr(os, name, self._noted(name, change))

    def _noted(self, name: str, change: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object) -> None:
            self.calls.append(name)
            if self.uids[1]:
                raise PermissionError
            if name != self._ignores:
                change(*arguments)

        return call

    def _set_groups(self, groups: list[int]) -> None:
        self.groups = groups

    def _set_gids(self, *gids: int) -> None:
        self.gids = (gids[0], gids[1], gids[2])

    def _set_uids(self, *uids: int) -> None:
        self.uids = (uids[0], uids[1], uids[2])


def test_groups_come_before_the_user_who_could_not_change_them(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(monkeypatch)
    privileges.drop("ann")
    assert process.calls == ["setgroups", "setresgid", "setresuid"]
    assert (process.groups, process.gids, process.uids) == ([1001, 44], (1001,) * 3, (1000,) * 3)


@pytest.mark.parametrize("ignores", ["setresgid", "setresuid"])
def test_a_change_that_did_not_happen_is_noticed(monkeypatch: pytest.MonkeyPatch, ignores: str) -> None:
    """As under a security module or an emulator that says yes and does nothing."""
    Process(monkeypatch, ignores=ignores)
    with pytest.raises(SystemRefusal, match="some of root's rights would remain"):
        privileges.drop("ann")


def test_who_is_not_root_can_become_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(monkeypatch)
    process.uids = process.gids = (5, 5, 5)
    with pytest.raises(SystemRefusal, match="only root can become another user"):
        privileges.drop("ann")


def test_who_is_that_user_already_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(monkeypatch)
    process.uids, process.gids = (1000,) * 3, (1001,) * 3
    privileges.drop("ann")
    assert process.calls == []


def test_a_user_whom_the_system_does_not_know_is_named() -> None:
    with pytest.raises(ConfigurationError, match="knows no user 'no such user'"):
        privileges.find("no such user")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up root")
def test_nothing_of_root_is_left_in_a_real_process() -> None:
    nobody = pwd.getpwnam("nobody")

    def check() -> None:
        os.setgroups([0, 12345])
        privileges.drop("nobody")
        assert set(os.getgroups()) == {nobody.pw_gid, *os.getgrouplist("nobody", nobody.pw_gid)}
        assert set(os.getresuid() + os.getresgid()) == {nobody.pw_uid, nobody.pw_gid}
        with pytest.raises(PermissionError):
            os.setuid(0)
        with pytest.raises(PermissionError):
            os.setgid(0)
        with pytest.raises(PermissionError):
            os.setgroups([0])

    assert in_a_child(check) == 0
