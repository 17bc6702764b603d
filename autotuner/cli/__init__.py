"""The command line: thin commands that parse, call one function, and print."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Sequence
from typing import Any

import click

from autotuner import __version__
from autotuner.cli.failures import one_line_failures, printing_what_can_be_printed, tell_safely
from autotuner.cli.interrupts import heed_every_interrupt

_MODULES = {
    "run": ("run",),
    "plan": ("plan",),
    "show": ("show", "list", "history"),
    "explain": ("explain",),
    "report": ("report",),
    "dashboard": ("dashboard",),
    "compare": ("compare",),
    "change": ("select", "rollback", "pin", "unpin"),
    "recheck": ("recheck",),
    "forecast": ("forecast",),
    "top": ("top",),
    "daemon": ("daemon", "config"),
    "cron": ("cron",),
    "selftest": ("selftest",),
    "engines": ("engines",),
    "doctor": ("doctor",),
    "export_import": ("export", "import"),
    "sync": ("share", "sync"),
    "data": ("data",),
    "database": ("db",),
    "studies": ("studies",),
    "completion": ("completion",),
}
"""Modules of this package and the ``<name>_command`` that each defines; in the order of the help."""
_COMMANDS = {name: module for module, names in _MODULES.items() for name in names}


class _Lazy(click.Group):
    """Imports a command's module only when it is asked for, so that ``--help`` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"autotuner.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        with one_line_failures():
            return super().invoke(ctx)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="autotune")
def cli() -> None:
    """Find, prove and keep the fastest safe way to run Toto forecasts, symbol by symbol.

    \b
    autotune doctor                  what this machine is missing
    autotune run --symbol AMD        tune AMD, prove the winner, store it
    autotune show --symbol AMD       what AMD runs
    autotune explain AMD             why, how sure that is, and what would change it
    autotune forecast --symbol AMD   a forecast with those settings

    Exit codes: 0 done, 1 failed with one line of reason, 2 bad usage.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry point."""
    gc.set_threshold(100_000)  # imports make many objects and no garbage: collecting took a tenth of `list`
    tell_safely()
    heed_every_interrupt()
    with printing_what_can_be_printed():
        cli(args=None if arguments is None else list(arguments), prog_name="autotune")
