"""`ktls-server` itself: help, version, errors, and how quickly it starts."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ktls_server import __version__
from ktls_server.cli import _COMMANDS, _OPTIONS_OF_OTHERS, _commands
from ktls_server.errors import ConfigurationError, SystemRefusal
from ktls_server.settings import OPTIONS
from tests.cli.conftest import Command


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], check=False, capture_output=True, text=True, timeout=60)


def test_help_names_every_command_with_a_sentence(command: Command) -> None:
    for spelling in ("--help", "-h"):
        outcome = command(spelling)
        assert outcome.status == 0
        for name, (_, summary) in _COMMANDS.items():
            assert f"  {name} " in outcome.out
            assert summary in outcome.out


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_has_a_help_of_its_own(command: Command, name: str) -> None:
    outcome = command(name, "--help")
    assert outcome.status == 0
    assert outcome.out.startswith(f"Usage: ktls-server {name} ")


def test_version_is_the_packages(command: Command) -> None:
    assert command("--version").out == f"ktls-server {__version__}\n"


def test_the_module_runs_as_the_command_does() -> None:
    assert python("-m", "ktls_server", "--version").stdout == f"ktls-server {__version__}\n"


def test_without_a_command_the_first_steps_are_said(command: Command) -> None:
    outcome = command()
    assert outcome.status == 2
    assert outcome.out == ""
    assert all(len(line) <= 80 for line in outcome.err.splitlines())
    assert "All commands: ktls-server --help." in outcome.err
    steps = [line.strip().partition("  ")[0].split() for line in outcome.err.splitlines() if line.startswith("  ")]
    assert ["ktls-server", "serve"] in steps
    for _, name, *arguments in steps:
        assert name in _COMMANDS
        assert all(word in command(name, "--help").out for word in arguments if word.startswith("--"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("password",), "FILE is missing; ktls-server password FILE USER"),
        (("top",), "PORT|URL is missing; ktls-server top PORT|URL"),
        (("compress", "/nope"), "DIRECTORY: directory '/nope' does not exist; see ktls-server compress --help"),
        (("bench", "--size", "0"), "--size: '0' is not a size such as 1K, 16M or 1G; see ktls-server bench --help"),
        (("top", "1", "--interval", "0"), "--interval: 0.0 is not in the range x>=1.0; see ktls-server top --help"),
        (("doctor", "--jsn"), "there is no option --jsn; perhaps --json; see ktls-server doctor --help"),
        (("trust", "surplus"), "Got unexpected extra argument (surplus); see ktls-server trust --help"),
        (
            ("certs", "--name", "bad!"),
            "'bad!' is neither a host name nor an address; give one such as files.test or 192.168.1.7",
        ),
    ],
)
def test_errors_have_one_form_what_why_and_what_mends_it(
    command: Command, arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = command(*arguments)
    assert (outcome.status, outcome.out, outcome.err) == (2, "", f"ktls-server: {said}\n")


def test_an_unknown_command_or_option_ends_with_status_2(command: Command) -> None:
    outcome = command("surf")
    assert outcome.status == 2
    assert outcome.err == "ktls-server: there is no command 'surf'; see ktls-server --help\n"
    outcome = command("serve", "--prot", "1")
    assert outcome.status == 2
    assert "--port" in outcome.err
    assert outcome.err.endswith("; see ktls-server serve --help\n")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("--bind", "0.0.0.0"), "--host ADDRESS"),
        (("--directory", "public"), "ktls-server serve FOLDER"),
        (("-d", "public"), "ktls-server serve FOLDER"),
        (("--browse",), "--listing"),
        (("-p", "80"), "--port PORT"),
    ],
)
def test_an_option_of_another_server_is_answered_with_ours(
    command: Command, arguments: tuple[str, ...], meant: str
) -> None:
    outcome = command("serve", *arguments)
    assert outcome.status == 2
    assert outcome.err.startswith(f"ktls-server: there is no option {arguments[0]}; ")
    assert meant in outcome.err
    assert outcome.err.count("\n") == 1


def test_every_option_of_another_server_is_none_of_ours() -> None:
    assert not set(_OPTIONS_OF_OTHERS) & {option.flag for option in OPTIONS}


def test_what_was_most_likely_meant_is_said(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "did you mean 'serve'?" in command("serv").err
    (tmp_path / "my site").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "ktls-server serve 'my site'" in command("my site").err


@pytest.mark.parametrize(("error", "status"), [(ConfigurationError("say it so"), 2), (SystemRefusal("say it so"), 1)])
def test_errors_for_people_are_one_line_without_a_traceback(
    command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("ktls_server.server.run", fail)
    outcome = command("serve", "--cert", "/dev/null")
    assert (outcome.status, outcome.out, outcome.err) == (status, "", "ktls-server: say it so\n")


def test_an_error_of_the_program_itself_is_not_hidden(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("ktls_server.server.run", fail)
    with pytest.raises(ZeroDivisionError):
        command("serve", "--cert", "/dev/null")


def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    code = "import sys; sys.argv[0] = 'ktls-server'; from ktls_server.cli import main; main(['serve', '--help'])"
    run = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" | true; echo done', sys.executable, code],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (run.stdout, run.stderr) == ("done\n", "")


SERVE_BRIEFLY = """
import logging, sys
import ktls_server.server
from ktls_server.cli import main
from ktls_server.settings import BoundServer

def run(settings, announce):
    logging.basicConfig()
    announce(BoundServer(("https://127.0.0.1:40123/",), "userspace: why"))
    with open("started", "w") as file:
        file.write(str(file.fileno()))

ktls_server.server.run = run
main(sys.argv[1:])
"""


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_a_server_starts_whatever_becomes_of_its_output(tmp_path: Path, redirection: str) -> None:
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", SERVE_BRIEFLY]
    run = subprocess.run(
        [*shell, "serve", "--cert", "/dev/null"], check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    # No file of the server's gets the number of a standard stream.
    assert int((tmp_path / "started").read_text()) > 2
    if redirection == ">/dev/full":
        assert "No space left on device" in run.stderr
        assert run.stderr.count("\n") == 1
    elif redirection != "2>&-":
        assert run.stderr == ""


@pytest.mark.parametrize("arguments", [("doctor",), ("doctor", "--json"), ("serve", "--help"), ("--version",)])
def test_output_that_cannot_be_written_is_one_line_and_a_status(arguments: tuple[str, ...]) -> None:
    shell = ["sh", "-c", 'exec "$@" >/dev/full', "sh", sys.executable, "-m", "ktls_server", *arguments]
    run = subprocess.run(shell, check=False, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert run.stderr == "ktls-server: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_doctor_ends_as_usual_without_a_stream(redirection: str) -> None:
    usual = python("-m", "ktls_server", "doctor").returncode
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "ktls_server", "doctor"]
    run = subprocess.run(shell, check=False, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (usual, "")


INTERRUPTED = """
import importlib.abc, os, signal, sys

class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from ktls_server.__main__ import main
main(["serve", "--cert", "/dev/null"])
"""


@pytest.mark.parametrize(
    "module", ["ktls_server.cli", "click", "ktls_server.cli.serve", "ktls_server.server", "asyncio", "ssl"]
)
def test_ctrl_c_while_it_starts_leaves_no_traceback(module: str) -> None:
    run = python("-c", INTERRUPTED, module)
    assert (run.returncode, run.stderr.strip()) in ((-signal.SIGINT, ""), (130, "ktls-server: interrupted"))


def test_a_background_job_still_ignores_ctrl_c() -> None:
    code = INTERRUPTED.replace("main([", "signal.signal(signal.SIGINT, signal.SIG_IGN); main([").replace(
        '["serve", "--cert", "/dev/null"]', '["--version"]'
    )
    run = python("-c", code, "click")
    assert (run.returncode, run.stderr) == (0, "")


def test_nobody_is_told_to_install_a_name_from_pypi_that_is_not_ours_yet() -> None:
    """Whoever registers it would get the installs. Advise `pip install .`, or the library that is missing."""
    top = Path(__file__).parents[2]
    advice = re.compile(r"(?:pip|pipx|uv|uvx)\b[^\n`]*?\s['\"]?ktls[-_]server(?![/.\w-])|pypi\.org/project/ktls")
    files = [
        path
        for folder in ("ktls_server", "docs", "deploy", "docker", ".")
        for path in (top / folder).glob("**/*" if folder != "." else "*.md")
        if path.suffix in (".py", ".md", ".service", ".socket", ".yaml") or path.name == "Dockerfile"
    ]
    assert len(files) > 50
    found = [(path.name, line) for path in files for line in path.read_text().splitlines() if advice.search(line)]
    assert found == []


def test_help_loads_nothing_heavy() -> None:
    heavy = ["asyncio", "ssl", "cryptography", "h11", "uvloop", "rich", "bcrypt", "argon2", "brotli", "zstandard"]
    code = (
        "import sys\nfrom ktls_server.cli import main\n"
        "try: main(['serve', '--help'])\nexcept SystemExit: pass\n"
        f"print('LOADED', [name for name in {heavy} if name in sys.modules])"
    )
    assert python("-c", code).stdout.endswith("LOADED []\n")


# serve --help


def test_the_help_of_serve_shows_every_option_that_is_not_hidden(command: Command) -> None:
    lines = command("serve", "--help").out
    for option in OPTIONS:
        if option.name == "directory":
            assert "[DIRECTORY]" in lines
        elif option.hidden:
            assert option.flag not in lines
        else:
            assert f"  {option.flag} " in lines, option.flag


def test_the_help_of_serve_groups_options_by_topic(command: Command) -> None:
    text = command("serve", "--help").out
    headings = [line for line in text.splitlines() if line and not line.startswith(" ") and line.endswith(":")]
    assert headings == [
        "What and where:",
        "Certificates and TLS:",
        "Kernel TLS:",
        "Files and folders:",
        "Response headers and access:",
        "Limits:",
        "Running it:",
        "Help:",
    ]
    assert "[default: 8443]" in text
    assert "KTLS_SERVER_HTTP_PORT" in text
    assert all(len(line) <= 100 for line in text.splitlines())


# completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(command: Command, shell: str) -> None:
    outcome = command("completion", shell)
    assert outcome.status == 0
    assert "_KTLS_SERVER_COMPLETE" in outcome.out
    assert "ktls-server" in outcome.out


def completions(*words: str) -> list[str]:
    """What bash would offer for the last of these words."""
    from click.shell_completion import BashComplete

    complete = BashComplete(_commands, {}, "ktls-server", "_KTLS_SERVER_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


def test_completion_knows_commands_options_and_choices() -> None:
    assert isinstance(_commands, click.Group)
    assert completions("s") == ["serve"]
    assert completions("serve", "--ktls") == ["--ktls", "--ktls-rx"]
    assert completions("serve", "--ktls", "") == ["auto", "require", "off"]
    assert completions("completion", "f") == ["fish"]
    assert "--json" in completions("doctor", "--")
