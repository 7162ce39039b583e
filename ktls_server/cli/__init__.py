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
    "trust": ("ktls_server.cli.trust", "Let browsers on this machine trust the certificate."),
    "compress": ("ktls_server.cli.compress", "Write precompressed files beside the originals."),
    "doctor": ("ktls_server.cli.doctor", "Tell whether kernel TLS works here, and what to do."),
    "top": ("ktls_server.cli.top", "Show what a running server does, live in the terminal."),
    "bench": ("ktls_server.cli.bench", "Measure what kernel TLS gives on this machine."),
    "password": ("ktls_server.cli.password", "Set a user's password in an --auth-file."),
    "completion": ("ktls_server.cli.completion", "Print the completion script for a shell."),
}


_INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""

_OPTIONS_OF_OTHERS = {
    **dict.fromkeys(("--bind", "-b", "--address", "--addr", "--listen", "--interface", "-i"), "--host ADDRESS"),
    **dict.fromkeys(
        ("--directory", "-d", "--dir", "--root", "--folder", "--path"),
        "the folder's name without an option: ktls-server serve FOLDER",
    ),
    **dict.fromkeys(("--browse", "--autoindex", "--directory-listing", "--list"), "--listing"),
    **dict.fromkeys(("--certfile", "--ssl-certfile", "--tls-cert", "--certificate"), "--cert FILE"),
    **dict.fromkeys(("--keyfile", "--ssl-keyfile", "--tls-key", "--private-key"), "--key FILE"),
    **dict.fromkeys(("-p", "--listen-port"), "--port PORT"),
    **dict.fromkeys(("-w", "--processes", "--threads"), "--workers N"),
}
"""Python's http.server, caddy, nginx, uvicorn and others."""

_FIRST_STEPS = """\
Static files over HTTPS, encrypted by the Linux kernel.

  ktls-server serve                       serve this folder, on this machine
  ktls-server serve FOLDER --listing      another folder, with a listing
  ktls-server serve --host 0.0.0.0        let other machines reach it
  ktls-server trust                       have browsers trust the certificate
  ktls-server doctor                      tell whether the kernel encrypts here

All commands: ktls-server --help. Options of one: ktls-server serve --help.
"""

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
            context.fail(f"there is no command {name!r}{_hint(name)}")
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


def _hint(name: str) -> str:
    """What was meant, most likely: a folder to serve, or a command by nearly its name."""
    if os.path.isdir(name):
        return f"; to serve that folder: ktls-server serve {shlex.quote(name)}"
    matches = difflib.get_close_matches(name, _COMMANDS, n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", message="ktls-server %(version)s")
def _commands() -> None:
    """Static files over HTTPS, encrypted by the Linux kernel."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; never returns normally, raises SystemExit."""
    _open_missing_streams()
    try:
        # Not standalone: click would print what is wrong in a style of its own.
        status = _commands.main(arguments, prog_name="ktls-server", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except KtlsServerError as error:
        _complain(str(error))
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(_FIRST_STEPS, err=True, nl=False)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _complain(_in_words(error))
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted")
        sys.exit(_INTERRUPTED)
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS or error.filename is not None:
            raise
        # What is left in the buffer must not fail again when Python flushes it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:  # The reader of our output went away (`| head`).
            _complain(f"the output cannot be written: {error.strerror}")
        sys.exit(1)


def _in_words(error: click.ClickException) -> str:
    """One line: what is wrong, what was meant most likely, and where the help is."""
    words = " ".join(error.format_message().split()).removesuffix(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is None:
        return words
    if isinstance(error, click.NoSuchOption):
        meant = _OPTIONS_OF_OTHERS.get(error.option_name) if context.info_name == "serve" else None
        if meant:
            return f"there is no option {error.option_name}; what other servers call so is {meant}"
        words = f"there is no option {error.option_name}"
        if error.possibilities:
            words += f"; perhaps {' or '.join(error.possibilities)}"
    elif isinstance(error, click.BadParameter) and error.param is not None:
        name = error.param.opts[0] if isinstance(error.param, click.Option) else error.param.make_metavar(context)
        if isinstance(error, click.MissingParameter):
            usage = " ".join(context.command.collect_usage_pieces(context)).removeprefix("[OPTIONS] ")
            return f"{name} is missing; {context.command_path} {usage}"
        reason = " ".join(error.message.split()).removesuffix(".")
        words = f"{name}: {reason[0].lower() + reason[1:]}"
    return f"{words}; see {context.command_path} --help"


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
