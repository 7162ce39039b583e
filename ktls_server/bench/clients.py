"""Load clients are processes of their own, so that what they cost is not what the server costs.

One process does many jobs, one after the other, and talks by lines of JSON: a job in; "ready" out once its connections
stand; "go" in; the result out. `ClientProcess` is the parent's end, `serve_jobs` the child's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from ..errors import SystemRefusal

Job: TypeAlias = dict[str, Any]
Result: TypeAlias = dict[str, Any]
Load: TypeAlias = Callable[[], Result]

_READY: Final[Result] = {"ready": True}
_GO: Final = "go"


class ClientProcess:
    """A load client that waits for jobs. Every method raises SystemRefusal where the client failed, with its reason."""

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            # Ctrl-C is for the parent, which ends the client in order.
            process_group=0,
        )

    def give(self, job: Job) -> None:
        """Hand a job over; several clients can then prepare for theirs at the same time."""
        self._write(json.dumps(job))

    def wait_until_ready(self) -> None:
        """Return once the job's connections stand."""
        self._read()

    def go(self) -> None:
        """Start the load."""
        self._write(_GO)

    def result(self) -> Result:
        """Wait for the end of the load, and for what came of it."""
        return self._read()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SystemRefusal("a load client has ended before its time") from None

    def _read(self) -> Result:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemRefusal("a load client has ended before its time")
        answer: Result = json.loads(line)
        if "error" in answer:
            raise SystemRefusal(f"a load client failed: {answer['error']}")
        return answer


def serve_jobs(prepare: Callable[[Job], Load]) -> None:
    """The child's loop. `prepare` makes the connections that a job needs, and returns what puts the load on."""
    for line in sys.stdin:
        try:
            load = prepare(json.loads(line))
            _answer(_READY)
            if sys.stdin.readline().strip() != _GO:
                return
            _answer(load())
        except Exception as error:
            _answer({"error": f"{type(error).__name__}: {error}"})


def _answer(result: Result) -> None:
    print(json.dumps(result), flush=True)


def environment_with_suite(suite: str, folder: Path) -> dict[str, str]:
    """The environment of a client that offers one TLS 1.3 cipher suite only.

    Before Python 3.15 `ssl` has no call for that; OpenSSL reads it from a configuration file, which is written to
    `folder` (config(5ssl), section "SSL Configuration").
    """
    configuration = folder / f"{suite}.cnf"
    configuration.write_text(
        "openssl_conf = all\n[all]\nssl_conf = tls\n[tls]\nsystem_default = suites\n"
        f"[suites]\nCiphersuites = {suite}\n",
        encoding="ascii",
    )
    return {**os.environ, "OPENSSL_CONF": str(configuration)}
