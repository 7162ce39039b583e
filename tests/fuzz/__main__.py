"""`make fuzz`: the request path with bytes that nobody thought of, for as long as one likes.

    python -m tests.fuzz [SECONDS [SEED]]

Stops at the first input for which something does not hold that must, prints it, and leaves it in .cache/fuzz/.
"""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.mutation import mutations
from tests.fuzz.target import RequestPath, seeds

FINDINGS = Path(".cache/fuzz")


def main(seconds: float, seed: int) -> int:
    print(f"fuzzing for {seconds:.0f} s; the same again: python -m tests.fuzz {seconds:.0f} {seed}", flush=True)
    deadline = time.monotonic() + seconds
    inputs = answers = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "folder"
        folder.mkdir()
        path = RequestPath(folder)
        for data in mutations(seeds(), random.Random(seed)):
            try:
                answers += path.check(data)
            except BaseException:
                FINDINGS.mkdir(parents=True, exist_ok=True)
                finding = FINDINGS / hashlib.blake2b(data, digest_size=8).hexdigest()
                finding.write_bytes(data)
                print(f"{finding}: {data!r}")
                raise
            inputs += 1
            if time.monotonic() > deadline:
                break
        path.close()
    print(f"{inputs:,} inputs, {answers:,} answers, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(
        main(
            float(sys.argv[1]) if len(sys.argv) > 1 else 180,
            int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().getrandbits(32),
        )
    )
