"""Become another user for good, once what needs root is done: ports below 1024 bound, keys and passwords read."""

from __future__ import annotations

import os
import pwd

from ..errors import ConfigurationError, SystemRefusal


def find(name: str) -> pwd.struct_passwd:
    """The user of that name. Raises ConfigurationError."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise ConfigurationError(f"user: this system knows no user {name!r}; `getent passwd` lists them") from None


def drop(name: str) -> None:
    """Take on the user's groups and identity, all three of each, with no way back. Raises the errors of this package.

    setuid(2) from root also gives up every capability, and makes the process undumpable: no core file holds its keys.
    """
    user = find(name)
    if (os.geteuid(), os.getegid()) == (user.pw_uid, user.pw_gid):
        return
    try:
        os.setgroups(os.getgrouplist(user.pw_name, user.pw_gid))
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except PermissionError:
        raise SystemRefusal(
            f"--user {name}: only root can become another user; start as root, or leave --user out"
        ) from None
    if user.pw_uid and 0 in os.getresuid() + os.getresgid():
        raise SystemRefusal(f"--user {name}: some of root's rights would remain; give the user a group of its own")
