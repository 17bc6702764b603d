"""``autotune completion``: the lines that make a shell complete commands, options and symbols of the store."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the lines that make SHELL complete commands, options, and symbols that the store knows.

    Symbols are those of the store that --db names before them, else of the default one; none where it cannot be
    read.

    \b
    eval "$(autotune completion bash)"     in ~/.bashrc
    eval "$(autotune completion zsh)"      in ~/.zshrc, after compinit
    autotune completion fish > ~/.config/fish/completions/autotune.fish
    """
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    completer = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]
    click.echo(completer(context.find_root().command, {}, "autotune", "_AUTOTUNE_COMPLETE").source())
