"""Work in a forked process: for what one process may do once only, or must not do to the test's own."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable


def in_a_child(work: Callable[[], object]) -> int:
    """How a child that does this ends: 0, 1 after an exception (its traceback is on standard error), -9 by SIGKILL."""
    with warnings.catch_warnings():
        # The test's process may have threads: the child uses nothing of theirs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
