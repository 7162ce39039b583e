"""docs/options.md, written from the table of options: `python -m ktls_server.cli.reference > docs/options.md`.

With `--table` it prints the short form, one line an option, that stands in README.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from ..settings import OPTIONS, Option
from ..settings.options import GROUPS

_INTRODUCTION = """\
# Options of `ktls-server serve`

Written from the code by `python -m ktls_server.cli.reference > docs/options.md`; do not edit.

Every option can be given in three places. The first that has it wins:

1. on the command line: `--http-port 80`
2. as an environment variable: `KTLS_SERVER_HTTP_PORT=80`. An empty variable counts as not set. Flags take `true` or
   `false`. An option that may be repeated takes one value on each line.
3. in the TOML file that `--config` names: `http_port = 80`. Flags are `true` or `false`, an option that may be repeated
   is an array, `cert = ["a.pem", "b.pem"]`. Relative paths start at the file's folder.

A name that no option has, or a value that is not accepted, stops the start with a message that says where it stands.
"""


def reference() -> str:
    """The whole document."""
    return "\n".join([_INTRODUCTION, *_groups()])


def table() -> str:
    """One row an option: an example, and the first sentence of what it does."""
    rows = ["| example | what it does |", "| --- | --- |"]
    for group in GROUPS:
        rows += (
            f"| `{_on_command_line(option)}` | {_in_one_sentence(option)} |"
            for option in OPTIONS
            if option.group == group and not option.hidden
        )
    return "\n".join(rows) + "\n"


def _in_one_sentence(option: Option) -> str:
    sentence, stop, _ = option.help.partition(". ")
    sentence += stop.strip()
    switched_off = option.kind.is_flag and option.example == "false"
    return f"Switch off: {sentence[0].lower()}{sentence[1:]}" if switched_off else sentence


def _groups() -> Iterator[str]:
    for group in GROUPS:
        yield f"## {group}\n"
        for option in OPTIONS:
            if option.group == group and not option.hidden:
                yield _section(option)


def _section(option: Option) -> str:
    lines = [f"### `{_heading(option)}`\n", f"{option.help}\n", f"- takes: {_accepts(option)}"]
    lines.append(f"- default: {_default(option)}")
    lines.append(f"- environment: `{option.environment_variable}`")
    lines.append(
        f"- example: `{_on_command_line(option)}`" + (f", in TOML `{toml}`" if (toml := _in_toml(option)) else "")
    )
    return "\n".join(lines) + "\n"


def _heading(option: Option) -> str:
    if option.kind.is_flag:
        return f"{option.flag}` / `--no-{option.flag.removeprefix('--')}"
    return option.flag if option.name == "directory" else f"{option.flag} {option.kind.metavar}"


def _accepts(option: Option) -> str:
    return option.kind.accepts + ("; may be repeated" if option.kind.repeatable else "")


def _default(option: Option) -> str:
    if option.default in (None, ()):
        return "none"
    value = option.default[0] if isinstance(option.default, tuple) else option.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _on_command_line(option: Option) -> str:
    if option.kind.is_flag:
        return option.flag if option.example == "true" else f"--no-{option.flag.removeprefix('--')}"
    value = option.example if option.example.replace("-", "").isalnum() else _quoted(option.example)
    return f"ktls-server serve {value}" if option.name == "directory" else f"{option.flag} {value}"


def _quoted(text: str) -> str:
    """For a shell; `shlex.quote` is right, too, but turns a single quote into five characters."""
    if not any(character in " *;'\"$" for character in text):
        return text
    return f'"{text}"' if "'" in text else f"'{text}'"


def _in_toml(option: Option) -> str | None:
    if option.name == "config":
        return None
    is_bare = option.kind.is_flag or option.example.isdecimal()
    text = option.example if is_bare else json.dumps(option.example)
    return f"{option.name} = [{text}]" if option.kind.repeatable else f"{option.name} = {text}"


if __name__ == "__main__":
    print(table() if "--table" in sys.argv[1:] else reference(), end="")
