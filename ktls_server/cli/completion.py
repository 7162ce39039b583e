"""`ktls-server completion`: the script that teaches a shell the commands, options and choices."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash:  eval "$(ktls-server completion bash)"   in ~/.bashrc
    zsh:   eval "$(ktls-server completion zsh)"    in ~/.zshrc
    fish:  ktls-server completion fish > ~/.config/fish/completions/ktls-server.fish
    """
    shell_class = get_completion_class(shell)
    assert shell_class is not None
    program = context.find_root().command
    click.echo(shell_class(program, {}, "ktls-server", "_KTLS_SERVER_COMPLETE").source())
