"""The table of options as click parameters, and a `--help` that groups them by topic.

Values reach `settings.load` as they were written: it checks all sources alike. click knows the choices and the paths
only for the sake of shell completion.
"""

from __future__ import annotations

import os
from typing import Any

import click

from ..settings import OPTIONS, Option, Settings, Sources, load
from ..settings.options import GROUPS

_EPILOG = (
    "Every option can also be set by an environment variable (--http-port by KTLS_SERVER_HTTP_PORT) or in the file that"
    " --config names (http_port = 8080). The command line wins over the environment, that over the file."
)


def default_text(option: Option) -> str | None:
    """The default as a person would write it; None where there is none or where the help tells it."""
    if option.default in (None, ()) or option.name in {"directory", "ciphers"}:
        return None
    if option.kind.is_flag:
        return "on" if option.default else "off"
    if isinstance(option.default, tuple):
        return ", ".join(map(str, option.default))
    return f"{option.default:g}" if isinstance(option.default, float) else str(option.default)


class SettingsCommand(click.Command):
    """A command with every option of the table, shown by group."""

    def __init__(self, name: str, **attributes: Any) -> None:
        super().__init__(name, epilog=_EPILOG, **attributes)
        self.params.extend(_parameter(option) for option in OPTIONS)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        rows: dict[str, list[tuple[str, str]]] = {group: [] for group in (*GROUPS, "Help")}
        groups = {option.name: option.group for option in OPTIONS}
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
            if record is not None:
                rows[groups.get(parameter.name or "", "Help")].append(record)
        for group, records in rows.items():
            if records:
                with formatter.section(group):
                    formatter.write_dl(records, col_max=34)


def _parameter(option: Option) -> click.Parameter:
    kind: click.ParamType[Any] = click.STRING
    if option.kind.choices:
        kind = click.Choice(option.kind.choices)
    elif option.kind.is_path:
        kind = click.Path(file_okay=option.name != "directory")
    if option.name == "directory":
        return click.Argument([option.name], required=False, metavar="[DIRECTORY]", type=kind, default=None)
    help = _help(option)
    if option.kind.is_flag:
        spelling = f"{option.flag}/--no-{option.flag.removeprefix('--')}"
        return click.Option([spelling, option.name], default=None, help=help, hidden=option.hidden)
    return click.Option(
        [option.flag, option.name],
        type=kind,
        multiple=option.kind.repeatable,
        default=None,
        metavar=option.kind.metavar,
        help=help,
        hidden=option.hidden,
    )


def _help(option: Option) -> str:
    default = default_text(option)
    if default:
        return f"{option.help}  [default: {default}]"
    # What a path looks like is known; what a rule or a header looks like is not.
    if option.default in (None, ()) and not option.kind.is_path:
        return f"{option.help}  [example: {option.example}]"
    return option.help


def settings_from(parameters: dict[str, object]) -> Settings:
    """What click parsed, with environment and configuration file. Raises ConfigurationError."""
    given = {name: value for name, value in parameters.items() if value not in (None, ())}
    return load(Sources(given, os.environ), lambda text: click.echo(f"ktls-server: note: {text}", err=True))
