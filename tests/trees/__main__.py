"""Runs pytest in another Debian release: `python -m tests.trees debian-13 [--timeout S] -- PYTEST ARGUMENTS...`, as root.

The exit status is pytest's own; 124 when the time limit was reached, 125 when the tree could not be made or entered.
"""

import argparse
import os
import signal
import subprocess
import sys
from types import FrameType
from typing import NoReturn

from tests.kernels.job import guest_environment
from tests.trees.errors import EXIT_STATUS_NOT_RUN, EXIT_STATUS_TIMED_OUT, TreeUnavailable
from tests.trees.release import DEBIAN_13
from tests.trees.tree import BASE_ENVIRONMENT, INSIDE_PYTHON, prepare, say

RELEASES = {release.name: release for release in (DEBIAN_13,)}


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit status."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="python -m tests.trees", description=__doc__, allow_abbrev=False)
    parser.add_argument("release", choices=sorted(RELEASES))
    parser.add_argument("--timeout", type=float, default=1500, metavar="S", help="wall-clock seconds (default: 1500)")
    options = parser.parse_args(arguments[:end])
    if not arguments[end + 1 :]:
        parser.error("name the tests to run, after --")
    signal.signal(signal.SIGTERM, leave)
    try:
        tree = prepare(RELEASES[options.release])
        environment = guest_environment(os.environ, BASE_ENVIRONMENT)
        command = (INSIDE_PYTHON, "-m", "pytest", "-p", "no:cacheprovider", *arguments[end + 1 :])
        return tree.run(command, environment, timeout=options.timeout)
    except TreeUnavailable as error:
        say(f"NOTHING WAS TESTED on {options.release}. {error}")
        return EXIT_STATUS_NOT_RUN
    except subprocess.TimeoutExpired:
        say(f"no end within {options.timeout:g} seconds (--timeout): killed")
        return EXIT_STATUS_TIMED_OUT


def leave(signal_number: int, _frame: FrameType | None) -> NoReturn:
    """Turn the signal into an exception: what runs in the tree is killed on the way out."""
    sys.exit(128 + signal_number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
