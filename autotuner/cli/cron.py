"""``autotune cron``: the nightly line in the user's crontab."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import click

from autotuner.cli.fleet_nodes import on_options, refuse_without_cluster
from autotuner.cli.options import (
    COUNT,
    EXISTING_FILE,
    Command,
    answer,
    device_option,
    json_option,
    store_options,
    workload_option,
)
from autotuner.cli.price_options import price_options
from autotuner.daemon import crontab
from autotuner.daemon.units import service_unit, timer_units
from autotuner.environment import environment_label
from autotuner.errors import UsageError
from autotuner.paths import CACHE_VARIABLE, cache_folder, config_path, data_folder
from toto_core.prices.options import PriceSource

_schedule_option = click.option(
    "--schedule",
    metavar="FIELDS",
    default=crontab.DEFAULT_SCHEDULE,
    show_default=True,
    help="Minute, hour, day of month, month, day of week.",
)


def _what_to_run(command: Command) -> Command:
    """Options that decide what the line runs; the command gets them as ``task``, the arguments of ``autotune``."""

    @functools.wraps(command)
    def with_task(
        *args: Any,
        config_file: Path | None,
        prices: PriceSource,
        profile: str | None,
        model: str | None,
        workload_file: Path | None,
        threads: int | None,
        device: str,
        on: str | None,
        environments: tuple[str, ...],
        **others: Any,
    ) -> Any:
        from autotuner.daemon.config import price_arguments  # pydantic takes long to import

        given = {
            "profile": profile,
            "model": model,
            "workload": workload_file and str(workload_file.absolute()),
            "threads": threads and str(threads),
            "device": None if device == "cpu" else device,
            "on": on,
        }
        refuse_without_cluster(on, environments)
        named = [part for name, value in given.items() if value for part in (f"--{name}", value)]
        named += [part for environment in environments for part in ("--environment", environment)]
        named += price_arguments(prices)
        if config_file is None:
            return command(*args, task=[*crontab.TUNE_WHAT_IS_DUE, *named], **others)
        if named:
            raise UsageError(f"--config and {named[0]} contradict each other: the file says it all")
        return command(*args, task=[*crontab.TICK, "--config", str(config_file.absolute())], **others)

    made: Any = price_options(with_task)
    for option in (
        click.option(
            "--config", "config_file", type=EXISTING_FILE, help="The line ticks by this configuration."
        ),
        click.option("--profile", help="As of `autotune run` [default: as each symbol was tuned]."),
        click.option("--model", help="As of `autotune run` [default: as each symbol was tuned]."),
        workload_option,
        click.option("--threads", type=COUNT, help="Most CPU threads of a process."),
        device_option,
        *on_options("The line tunes"),
    ):
        made = option(made)
    return cast("Command", made)


@click.group()
def cron_command() -> None:
    """Keep the settings fresh: one line in your crontab that tunes every night what is due.

    The line stands in a marked block of its own; nothing else in the crontab is touched. What is due is tuned again
    on its own prices, for its own workload and profile; a configuration file (--config) says most. Output goes to
    cron.log in the user data folder.

    \b
    autotune cron show
    autotune cron install --schedule "17 3 * * 1-5"
    autotune cron install --config autotune.toml
    autotune cron install --on ray://head.example
    autotune cron remove
    """


@cron_command.command("show")
@_schedule_option
@_what_to_run
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
@store_options
def show_command(
    schedule: str, task: list[str], kind: str, calendar: str, db: str | None, as_json: bool
) -> None:
    """Print the line that would be installed and whether it is, or units for systemd.

    \b
    autotune cron show
    autotune cron show --format systemd > ~/.config/systemd/user/autotune.service
    autotune cron show --format systemd-timer --calendar "Mon..Fri 22:00"
    """
    if kind != "cron":
        units = _units(kind, calendar, db)
        lines = (f"# {name}\n{text}" if len(units) > 1 else text for name, text in units.items())
        answer({"units": units}, *lines, as_json=as_json)
        return
    line = _line(schedule, task, db)
    installed = crontab.installed_lines(crontab.read_crontab())
    state = f"another line: {'; '.join(installed)}" if installed else "no; `autotune cron install` does it"
    up_to_date = installed == (line,)
    document = {"line": line, "installed": bool(installed), "installed_lines": installed}
    document |= {"up_to_date": up_to_date, "log": str(_log())}
    answer(document, line, f"installed: {'yes' if up_to_date else state}", as_json=as_json)


@cron_command.command("install")
@_schedule_option
@_what_to_run
@store_options
def install_command(schedule: str, task: list[str], db: str | None, as_json: bool) -> None:
    """Put the line into your crontab, in place of the one that is there.

    \b
    autotune cron install --schedule "17 3 * * *"
    """
    line = _line(schedule, task, db)
    before = crontab.read_crontab()
    after = crontab.with_block(before, crontab.block_of(line))
    _make_folder(_log().parent)
    if after != before:
        crontab.write_crontab(after)
    document = {"line": line, "installed": True, "changed": after != before, "log": str(_log())}
    said = "installed" if after != before else "installed already: nothing changed"
    answer(document, line, said, as_json=as_json)


@cron_command.command("remove")
@json_option
def remove_command(as_json: bool) -> None:
    """Take the line out of your crontab and leave the rest as it is.

    \b
    autotune cron remove
    """
    before = crontab.read_crontab()
    after = crontab.without_block(before)
    if after != before:
        crontab.write_crontab(after)
    said = "removed" if after != before else "not installed: nothing changed"
    answer({"installed": False, "changed": after != before}, said, as_json=as_json)


def _line(schedule: str, task: Sequence[str], db: str | None) -> str:
    executable, store = crontab.find_executable(sys.argv[0]), crontab.store_for_cron(db, os.environ)
    arguments = [*task, *(["--db", store] if store else [])]
    return crontab.cron_line(
        schedule=schedule,
        executable=executable,
        log=_log(),
        arguments=arguments,
        cache=_cache(),
        label=environment_label(),
    )


def _cache() -> str | None:
    """The compile cache that a variable names here; cron and systemd have none of our variables."""
    return str(cache_folder().absolute()) if os.environ.get(CACHE_VARIABLE) else None


def _units(kind: str, calendar: str, db: str | None) -> dict[str, str]:
    executable, store = crontab.find_executable(sys.argv[0]), crontab.store_for_cron(db, os.environ)
    found = config_path()
    config = found and found.absolute()
    if kind == "systemd":
        return service_unit(
            executable=executable, store=store, config=config, cache=_cache(), label=environment_label()
        )
    return timer_units(
        executable=executable,
        store=store,
        config=config,
        calendar=calendar,
        cache=_cache(),
        label=environment_label(),
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        fault = f"the folder of the log cannot be made ({error.strerror}): check its owner"
        raise crontab.CrontabError(f"{folder}: {fault}") from None


def _log() -> Path:
    return data_folder().absolute() / "cron.log"
