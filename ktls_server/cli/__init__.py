"""The command line: one module for each command, imported when it is asked for.

Errors that a person can mend leave as one line on standard error: exit status 2 for what was asked (ConfigurationError,
as for a misspelt option), 1 for what the system refused.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import os
import shlex
import sys

import click

from .. import __version__
from ..errors import ConfigurationError, KtlsServerError

# Modules that hold a click command named `command`; the group's --help needs the short help only.
_COMMANDS = {
    "serve": ("ktls_server.cli.serve", "Serve a folder over HTTPS."),
    "certs": ("ktls_server.cli.certs", "Make a certificate for development."),
    "compress": ("ktls_server.cli.compress", "Write precompressed files beside the originals."),
    "doctor": ("ktls_server.cli.doctor", "Tell whether kernel TLS works here, and what to do."),
    "bench": ("ktls_server.cli.bench", "Measure what kernel TLS gives on this machine."),
    "password": ("ktls_server.cli.password", "Set a user's password in an --auth-file."),
    "completion": ("ktls_server.cli.completion", "Print the completion script for a shell."),
}


_OUTPUT_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE})


class _Commands(click.Group):
    """Imports a command's module when it runs."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = importlib.import_module(_COMMANDS[name][0])
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not name.startswith("-") and not context.resilient_parsing:
            context.fail(f"There is no command {name!r}.{_hint(name)}")
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


def _hint(name: str) -> str:
    """What was meant, most likely: a folder to serve, or a command by nearly its name."""
    if os.path.isdir(name):
        return f" To serve that folder: ktls-server serve {shlex.quote(name)}"
    matches = difflib.get_close_matches(name, _COMMANDS, n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", message="ktls-server %(version)s")
def _commands() -> None:
    """Static files over HTTPS, encrypted by the Linux kernel."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; never returns normally, raises SystemExit."""
    _open_missing_streams()
    try:
        _commands.main(arguments, prog_name="ktls-server")
    except KtlsServerError as error:
        _complain(str(error))
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS or error.filename is not None:
            raise
        # What is left in the buffer must not fail again when Python flushes it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:  # The reader of our output went away (`| head`).
            _complain(f"the output cannot be written: {error.strerror}")
        sys.exit(1)


def _complain(sentence: str) -> None:
    with contextlib.suppress(OSError):
        click.echo(f"ktls-server: {sentence}", err=True)


def _open_missing_streams() -> None:
    """Put /dev/null where the caller has closed a standard stream (`>&-`).

    Python sets `sys.stdout` to None then, and the next file or socket that is opened would get the stream's number: the
    access log would be written into it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
