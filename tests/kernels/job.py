"""What the host tells the guest to do, as a file in a directory that both see.

One boot has one run directory: `job.json` goes in; `stdout`, `stderr` and `status` come out. Files and not consoles
carry the output, because a console is a terminal (it would turn newlines into CRLF, and programs would colour) and
because the kernel writes to it too.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self

JOB = "job.json"
STDOUT = "stdout"
STDERR = "stderr"
STATUS = "status"
CONSOLE = "console"

# What a command needs to find its tools and to know that it is in CI. Everything else (proxies, credentials, a
# terminal's settings) stays outside, so that a test sees the same on every machine.
KEPT_VARIABLES = ("PATH", "HOME", "USER", "LANG", "LC_*", "CI", "PYTHON*")


@dataclass(frozen=True, slots=True)
class Job:
    """One command, and the modules that the kernel has to load before it."""

    command: tuple[str, ...]
    working_directory: str
    environment: dict[str, str]
    modules: tuple[str, ...]

    def write_to(self, run_directory: Path) -> None:
        (run_directory / JOB).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read_from(cls, run_directory: Path) -> Self:
        fields = json.loads((run_directory / JOB).read_text(encoding="utf-8"))
        return cls(
            command=tuple(fields["command"]),
            working_directory=fields["working_directory"],
            environment=fields["environment"],
            modules=tuple(fields["modules"]),
        )


def guest_environment(host: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """Return the command's environment: the kept variables of `host`, then `extra` over them.

    PYTHONUNBUFFERED is set: standard output is a file in there, and a block-buffered file would show a test run only
    at its end.
    """
    kept = {name: value for name, value in host.items() if any(fnmatchcase(name, kept) for kept in KEPT_VARIABLES)}
    return {"PYTHONUNBUFFERED": "1", **kept, **extra}
