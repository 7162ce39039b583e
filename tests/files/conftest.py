"""What the tests of the files share."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

_NOBODY = 65534


@pytest.fixture
def as_nobody(tmp_path: Path) -> Callable[[Callable[[], None]], None]:
    """Runs something as a user to whom file modes apply: in a child process where the tests run as root."""

    def run(what: Callable[[], None]) -> None:
        if os.geteuid() != 0:
            what()
            return
        for parent in (tmp_path, *tmp_path.parents):
            if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
                parent.chmod(parent.stat().st_mode | 0o055)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setgid(_NOBODY)
                os.setuid(_NOBODY)
                what()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0

    return run
