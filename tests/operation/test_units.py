"""The systemd units of deploy/systemd against the server that they start."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ktls_server.cli.serve import command
from ktls_server.operation.supervisor import STOP_MARGIN_SECONDS
from ktls_server.settings import OPTIONS, Settings

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
SERVICE = (UNITS / "ktls-server.service").read_text()


def value_of(unit: str, name: str) -> str:
    """What the one line `name=` of a unit says, continued lines and all."""
    (value,) = re.findall(rf"^{name}=((?:.*\\\n)*.*)$", unit, re.MULTILINE)
    return str(value).replace("\\\n", " ")


def test_the_service_starts_the_server_with_options_that_it_has() -> None:
    program, name, *arguments = shlex.split(value_of(SERVICE, "ExecStart"))
    assert (Path(program).name, name) == ("ktls-server", "serve")
    given = {key: value for key, value in command.make_context("serve", arguments).params.items() if value}
    options = {option.name: option for option in OPTIONS}
    for key, value in given.items():
        options[key].kind.read(value)  # raises where it is not accepted
    credentials = re.findall(r"^LoadCredential=(.+?):", SERVICE, re.MULTILINE)
    assert [Path(path).name for path in (*given["cert"], *given["key"])] == credentials


def test_systemd_waits_longer_than_the_server_may_take_to_stop() -> None:
    assert int(value_of(SERVICE, "TimeoutStopSec")) > Settings().grace + STOP_MARGIN_SECONDS


def test_sockets_have_the_names_that_the_server_knows_them_by() -> None:
    names = {path.name: value_of(path.read_text(), "FileDescriptorName") for path in UNITS.glob("*.socket")}
    assert names == {"ktls-server.socket": "https", "ktls-server-redirect.socket": "http"}


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze: apt-get install systemd"
)
def test_systemd_has_nothing_to_say_against_the_units(tmp_path: Path) -> None:
    for unit in UNITS.iterdir():
        installed = shlex.split(value_of(SERVICE, "ExecStart"))[0]
        (tmp_path / unit.name).write_text(unit.read_text().replace(installed, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(unit) for unit in tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
