"""Whether a command line of a page could be run: its command and its options exist; nothing is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click

from autotuner.cli import cli


def every_command(
    group: click.Group = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    """Every command with its words behind ``autotune``, groups and what is in them included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


def wrong_with(line: str) -> str | None:
    """What of a line that calls ``autotune`` does not exist, None where all of it does."""
    for part in re.split(r"[|;&]+|\$\(", line):
        try:
            words = shlex.split(part.strip(" )…"), comments=True)
        except ValueError:  # a quotation that goes on behind a pipe or a bracket
            words = part.replace('"', " ").replace("'", " ").strip(" )…").split()
        while words and ("=" in words[0] or words[0] in {"eval", "$"}):
            del words[0]
        begin = 2 if words[:1] == ["ssh"] else 0
        if words[begin : begin + 1] == ["autotune"] and (wrong := _wrong(words[begin + 1 :])):
            return f"{line}: {wrong}"
    return None


def _wrong(words: list[str]) -> str | None:
    command: click.Command = cli
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        names, rest = words[0].split("|"), words[1:]
        found = [command.get_command(click.Context(command), name) for name in names]
        if None in found:
            return f"no command {words[0]!r}"
        command, words = found[0] or command, rest
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"-h", "--help"}
    given = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return next((f"no option {name}" for name in given if name not in known), None)
