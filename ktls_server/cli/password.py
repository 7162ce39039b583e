"""`ktls-server password`: the lines of an --auth-file."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..passwords import HashKind


@click.command("password")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("user")
@click.option(
    "--hash",
    "kind",
    type=click.Choice(["argon2id", "bcrypt"]),
    default="argon2id",
    show_default=True,
    help="bcrypt is for files that other servers read, too.",
)
@click.option("--stdin", "from_stdin", is_flag=True, help="Take the password from the first line of standard input.")
def command(file: Path, user: str, kind: HashKind, from_stdin: bool) -> None:
    """Set the password of USER in FILE, for ktls-server serve --auth-file.

    Asks for the password. FILE is made if it is not there.
    """
    from ..passwords import hash_password, set_password

    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    is_new = set_password(file, user, hash_password(password, kind))
    click.echo(f"{'added' if is_new else 'changed'}: {user} in {file}")
