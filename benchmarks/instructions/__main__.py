"""On the host: boot the kernel that counts instructions, have the servers measured there, show and compare the figures.

python -m benchmarks.instructions [--check | --update] [--peers-python PYTHON] [--only NAME]... [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.instructions.figures import differences, from_json, regressions, table, to_json

BASELINE: Final = Path(__file__).parent.with_name("instructions-baseline.json")
LANE: Final = "qemu-6.12"
TIMEOUT_SECONDS: Final = 900


def main(arguments: list[str]) -> int:
    """Returns 0; 1 where `--check` found a figure that got worse; the lane's own status where nothing was measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions", description="Server instructions per byte, request and connection."
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="fail where a figure of ours is 5 %% above the baseline")
    action.add_argument("--update", action="store_true", help="make this run the baseline")
    parser.add_argument(
        "--peers-python", type=Path, metavar="PYTHON", help="interpreter that has aiohttp and aiofastnet"
    )
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="one server, by its whole name")
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="medians of so many (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "run.json"
        forwarded = [str(result), "--repetitions", str(options.repetitions)]
        if options.peers_python is not None and options.peers_python.exists():
            forwarded += "--peers-python", str(options.peers_python.absolute())
        for name in options.only:
            forwarded += "--only", name
        status = measure_in_guest(forwarded)
        if status != 0:
            return status
        run = from_json(result.read_text(encoding="utf-8"))
    print(table(run))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(to_json(run), encoding="utf-8")
    if options.update:
        BASELINE.write_text(to_json(run), encoding="utf-8")
    if not options.check:
        return 0
    baseline = from_json(BASELINE.read_text(encoding="utf-8"))
    worse = list(regressions(baseline, run))
    for line in (*worse, *differences(baseline, run)):
        print(line, file=sys.stderr)
    return 1 if worse else 0


def measure_in_guest(arguments: list[str]) -> int:
    """Run `guest.py` on the lane; returns its exit status, or the lane's."""
    lane = [sys.executable, "-m", "tests.kernels", LANE, "--count-instructions", "--timeout", str(TIMEOUT_SECONDS)]
    measure = [sys.executable, "-m", "benchmarks.instructions.guest", *arguments]
    # Strings hash the same in every run, so that dictionaries and sets of them collide the same, too.
    return subprocess.run([*lane, "--", *measure], check=False, env={**os.environ, "PYTHONHASHSEED": "0"}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
