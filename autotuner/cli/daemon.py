"""``autotune daemon`` and ``autotune config``: keeps the settings right by itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from autotuner.cli.options import answer, db_option, json_line, json_option, warn_of_password
from autotuner.paths import store_location

_EXAMPLE = """\
# autotune.toml: what `autotune daemon` keeps, when, and within what limits
[daemon]
schedule = "17 3 * * *"        # minute, hour, day of month, month, day of week
timezone = "America/New_York"  # of the schedule and the quiet windows
watchlist = "watchlist.txt"    # one symbol a line; read again at every tick
quiet = ["09:30-16:00 mon-fri"]
load_ceiling = 0.8             # no measuring above this load average per CPU
budget_seconds_per_day = 3600
cool_down_hours = 6
recheck_hours = 20             # drift on prices that came since, once a day; 0 for never
max_age_days = 7
cache_days = 30                # compiled code that nobody used for so long is removed; 0 for never
# on = "ray://head.example"     # tunes on the nodes of this Ray cluster, in each of its environments
cache_gb = 20                  # what runs have compiled is, above this size; 0 for never

[defaults]
profile = "production"
# data = "prices"               # folder of <SYMBOL>.csv; left out: the prices that each symbol was tuned on

[prices]                       # only where your files leave a choice
# price_column = "Settle"
# timezone = "America/New_York"

[symbols.AMD]
profile = "accuracy"

[share]                        # signed releases for hosts that trade, which `autotune sync` fetches
# to = "s3://desk/autotune"     # or a folder, file://, hf://
# key = "share.key"             # `autotune share --new-key share.key` makes it
every_minutes = 10

[sync]                         # on those hosts
# from = "s3://desk/autotune"
# key = "ed25519:..."
max_age_hours = 6
"""

_config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Configuration [default: AUTOTUNE_CONFIG, else autotune.toml here, else built-in].",
)


@click.command()
@_config_option
@click.option("--once", is_flag=True, help="Tick once, now, and end: what cron or a timer calls.")
@db_option
def daemon_command(config_file: Path | None, once: bool, db: str | None) -> None:
    """Keep settings right: tune again when something says so, take back what regresses.

    One JSON line a event on standard error. SIGTERM ends it within ten seconds, SIGHUP reads its files again.

    \b
    autotune config example > autotune.toml
    autotune daemon
    autotune daemon --once
    """
    from autotuner.daemon.loop import Daemon
    from autotuner.paths import config_path
    from autotuner.web.server import serving

    warn_of_password(db)
    path = config_path(config_file)
    daemon = Daemon(location=store_location(db), config_file=path, log=_log)
    daemon.handle_signals()
    if once:
        daemon.run(once=True)
        return
    with serving(daemon):
        daemon.run()


@click.group()
def config_command() -> None:
    """Check the daemon's configuration, or print one to begin with.

    \b
    autotune config example > autotune.toml
    autotune config check
    """


@config_command.command("example")
def example_command() -> None:
    """Print a configuration to begin with.

    \b
    autotune config example > autotune.toml
    """
    click.echo(_EXAMPLE, nl=False)


@config_command.command("check")
@_config_option
@json_option
def check_command(config_file: Path | None, as_json: bool) -> None:
    """Read the configuration, its watchlist and schedule, and say what they come to.

    \b
    autotune config check
    """
    from autotuner.daemon.config import read_config
    from autotuner.daemon.loop import settle
    from autotuner.daemon.schedule import next_tick, parse_zone
    from autotuner.paths import config_path

    path = config_path(config_file)
    settled = settle(read_config(path))
    daemon = settled.config.daemon
    upcoming = next_tick(daemon.schedule, datetime.now(UTC), parse_zone(daemon.timezone))
    answer(
        {
            "file": path and str(path),
            "symbols": settled.symbols,
            "next_tick": upcoming.isoformat(),
            "config": json.loads(settled.config.model_dump_json()),
        },
        f"{path or 'built-in configuration'}: good",
        f"symbols: {', '.join(settled.symbols) or 'those of the store, or the samples while it is empty'}",
        f"next tick: {upcoming:%Y-%m-%d %H:%M} UTC ({daemon.schedule} in {daemon.timezone})",
        *(f"quiet: {window}" for window in settled.quiet),
        as_json=as_json,
    )


def _log(event: str, **fields: Any) -> None:
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **fields}
    click.echo(json_line(line), err=True)
