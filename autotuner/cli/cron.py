"""``autotune cron``: the nightly line in the user's crontab."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from autotuner.cli.options import db_option, json_option, print_json
from autotuner.daemon.crontab import (
    DEFAULT_SCHEDULE,
    CrontabError,
    block_of,
    cron_line,
    find_executable,
    installed_lines,
    read_crontab,
    store_for_cron,
    with_block,
    without_block,
    write_crontab,
)
from autotuner.daemon.units import service_unit, timer_units
from autotuner.paths import data_folder

_schedule_option = click.option(
    "--schedule",
    metavar="FIELDS",
    default=DEFAULT_SCHEDULE,
    show_default=True,
    help="Minute, hour, day of month, month, day of week.",
)


@click.group()
def cron_command() -> None:
    """Keep the settings fresh: one line in your crontab that tunes every night what is due.

    The line stands in a marked block of its own; nothing else in the crontab is touched. Output goes to
    cron.log in the user data folder.

    \b
    autotune cron show
    autotune cron install --schedule "17 3 * * 1-5"
    autotune cron remove
    """


@cron_command.command("show")
@_schedule_option
@click.option(
    "--format",
    "kind",
    type=click.Choice(["cron", "systemd", "systemd-timer"]),
    default="cron",
    show_default=True,
    help="A crontab line, a service unit for the daemon, or a timer that ticks.",
)
@click.option(
    "--calendar", default="*-*-* 03:17:00", show_default=True, help="When the timer ticks (systemd.time(7))."
)
@db_option
@json_option
def show_command(schedule: str, kind: str, calendar: str, db: str | None, as_json: bool) -> None:
    """Print the line that would be installed and whether it is, or units for systemd.

    \b
    autotune cron show
    autotune cron show --format systemd > ~/.config/systemd/user/autotune.service
    autotune cron show --format systemd-timer --calendar "Mon..Fri 22:00"
    """
    if kind != "cron":
        _print_units(_units(kind, calendar, db), as_json=as_json)
        return
    line = _line(schedule, db)
    installed = installed_lines(read_crontab())
    if as_json:
        print_json(
            {
                "line": line,
                "installed": bool(installed),
                "installed_lines": installed,
                "up_to_date": installed == (line,),
                "log": str(_log()),
            }
        )
        return
    click.echo(line)
    if installed == (line,):
        click.echo("installed: yes")
    elif installed:
        click.echo(f"installed: another line: {'; '.join(installed)}")
    else:
        click.echo("installed: no; `autotune cron install` does it")


@cron_command.command("install")
@_schedule_option
@db_option
@json_option
def install_command(schedule: str, db: str | None, as_json: bool) -> None:
    """Put the line into your crontab, in place of the one that is there.

    \b
    autotune cron install --schedule "17 3 * * *"
    """
    line = _line(schedule, db)
    before = read_crontab()
    after = with_block(before, block_of(line))
    _make_folder(_log().parent)
    if after != before:
        write_crontab(after)
    if as_json:
        print_json({"line": line, "installed": True, "changed": after != before, "log": str(_log())})
        return
    click.echo(line)
    click.echo("installed" if after != before else "installed already: nothing changed")


@cron_command.command("remove")
@json_option
def remove_command(as_json: bool) -> None:
    """Take the line out of your crontab and leave the rest as it is.

    \b
    autotune cron remove
    """
    before = read_crontab()
    after = without_block(before)
    if after != before:
        write_crontab(after)
    if as_json:
        print_json({"installed": False, "changed": after != before})
        return
    click.echo("removed" if after != before else "not installed: nothing changed")


def _line(schedule: str, db: str | None) -> str:
    return cron_line(
        schedule=schedule,
        executable=find_executable(sys.argv[0]),
        log=_log(),
        store=store_for_cron(db, os.environ),
    )


def _units(kind: str, calendar: str, db: str | None) -> dict[str, str]:
    from autotuner.daemon.config import config_path

    executable, store = find_executable(sys.argv[0]), store_for_cron(db, os.environ)
    config = config_path()
    config = None if config is None else config.absolute()
    if kind == "systemd":
        return service_unit(executable=executable, store=store, config=config)
    return timer_units(executable=executable, store=store, config=config, calendar=calendar)


def _print_units(units: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print_json({"units": units})
        return
    for name, text in units.items():
        if len(units) > 1:
            click.echo(f"# {name}")
        click.echo(text)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CrontabError(
            f"{folder}: the folder of the log cannot be made ({error.strerror}): check its owner"
        ) from None


def _log() -> Path:
    return data_folder().absolute() / "cron.log"
