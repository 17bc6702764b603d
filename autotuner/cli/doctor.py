"""``autotune doctor``: what this machine is missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from autotuner.cli.options import db_option, json_option, print_json
from autotuner.paths import DATABASE_VARIABLE, cache_folder, store_location

if TYPE_CHECKING:
    from rich.table import Table

    from autotuner.doctor.checks import Check


@click.command()
@click.option(
    "--model",
    default="toto-mini",
    show_default=True,
    help="toto-mini, a folder in the official layout, or a hub id (looked for in the hub cache only).",
)
@db_option
@json_option
@click.pass_context
def doctor_command(ctx: click.Context, model: str, db: str | None, as_json: bool) -> None:
    """Check what tuning needs; say what is missing and the command that fixes it.

    Changes, downloads and upgrades nothing. Exits with 1 when something essential is missing: torch, a C++
    compiler with OpenMP and Python's headers (without them nothing but eager mode can run), the model, a place
    for compiled code, a store that can be read. Warnings (!) leave the exit code 0.

    \b
    autotune doctor
    autotune doctor --model Datadog/Toto-Open-Base-1.0 --json
    """
    from autotuner.doctor.checks import essential_missing
    from autotuner.doctor.probes import machine_checks
    from autotuner.doctor.spool_checks import spool_checks
    from autotuner.doctor.store_checks import check_password, store_checks

    place = _location(db)
    of_store = (*store_checks(place, cache_folder(), model), *spool_checks(place), *check_password(db))
    checks = (*machine_checks(os.environ), *of_store)
    failed = essential_missing(checks)
    if as_json:
        print_json({"ok": not failed, "checks": [check.to_dict() for check in checks]})
    else:
        _draw(checks)
    if failed:
        ctx.exit(1)


def _draw(checks: Sequence[Check]) -> None:
    from autotuner.cli.safe_console import SafeConsole

    console = SafeConsole(markup=True)
    console.print(_table(checks, ascii_only=console.options.ascii_only))
    wrong = [check.severity for check in checks if not check.ok]
    counted = f"{wrong.count('essential')} essential missing, {wrong.count('warning')} warnings"
    console.print(counted if wrong else "nothing is missing")


def _table(checks: Sequence[Check], *, ascii_only: bool) -> Table:
    from rich.table import Table

    table = Table("", "what", show_edge=False, pad_edge=False)
    table.add_column("found", overflow="fold")  # a path that is cut cannot be used
    good, bad, fix = ("ok", "X", "->") if ascii_only else ("✓", "✗", "→")
    for check in checks:
        wrong = f"[red]{bad}[/]" if check.severity == "essential" else "[yellow]![/]"
        found = _cell(check.found, ascii_only)
        if check.fix:
            found += f"\n[bold]{fix} {_cell(check.fix, ascii_only)}[/]"
        table.add_row(f"[green]{good}[/]" if check.ok else wrong, check.name, found)
    return table


def _cell(text: str, ascii_only: bool) -> str:
    from rich.markup import escape

    return escape(text.encode("ascii", "backslashreplace").decode() if ascii_only else text)


def _location(db: str | None) -> str:
    """The store's address as it was given, good or not: the checks say what is wrong with it."""
    return db or os.environ.get(DATABASE_VARIABLE) or store_location()
