"""``autotune data``: prices from outside, fetched into files that runs read."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from autotuner.cli import options
from autotuner.errors import AutotuneError, UsageError
from autotuner.files import read_symbols

_DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.group()
def data_command() -> None:
    """Prices from outside.

    \b
    autotune data sources
    autotune data fetch --source yfinance --symbol AMD --to prices
    """


@data_command.command()
@click.option(
    "--source", required=True, metavar="NAME", help="One of `autotune data sources`, such as yfinance."
)
@click.option(
    "--symbol", "symbols", type=options.SYMBOL, multiple=True, help="Symbol to fetch; may be given again."
)
@click.option(
    "--symbols-file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="One symbol a line; # starts a comment; - reads standard input.",
)
@click.option(
    "--to", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of files."
)
@click.option(
    "--interval", default="1d", show_default=True, help="Between two prices, in the source's words."
)
@click.option("--period", help="How far back, in the source's words [default: 2y, without --start].")
@click.option("--start", type=_DAY, help="First day.")
@click.option("--end", type=_DAY, help="Day after the last.")
@click.option(
    "--option", "told", multiple=True, metavar="NAME=VALUE", help="For the source; may be given again."
)
@click.option("--replace", "anew", is_flag=True, help="Replace what is there, whatever it is.")
@options.json_option
def fetch(
    source: str,
    symbols: tuple[str, ...],
    symbols_file: Path | None,
    folder: Path,
    interval: str,
    period: str | None,
    start: datetime | None,
    end: datetime | None,
    told: tuple[str, ...],
    anew: bool,
    as_json: bool,
) -> None:
    """Fetch prices into a folder that `--data` reads.

    \b
    autotune data fetch --source yfinance --symbol AMD --to prices
    autotune data fetch --source yfinance --symbol AMD --interval 1h --period 2y --to hourly
    autotune run --all --data prices

    Again: goes on where the prices that both have agree, and replaces the file where they were adjusted since.
    """
    from autotuner.commands.fetch import fetch as fetch_all
    from autotuner.sources.protocol import Wanted

    if bool(symbols) == (symbols_file is not None):
        raise UsageError("name the symbols with --symbol or with --symbols-file")
    wanted = Wanted(
        symbol="",
        interval=interval,
        period=period if period or start else "2y",
        start=start and start.date(),
        end=end and end.date(),
        options=_options(told),
    )
    named = read_symbols(symbols_file) if symbols_file else tuple(dict.fromkeys(symbols))
    kept, failures = fetch_all(named, wanted, source=source, folder=folder, anew=anew)
    if as_json:
        fetched = [{**vars(each), "path": str(each.path), "said": list(each.said)} for each in kept]
        options.print_json({"source": source, "symbols": fetched, "failed": list(failures)})
    else:
        for each in kept:
            said = "".join(f"; {line}" for line in each.said)
            options.say(f"{each.symbol}: {each.path}: {each.points:,} prices, {each.added:,} new{said}")
    if failures:
        for line in failures[:-1]:
            options.note(f"Error: {line}")
        raise AutotuneError(failures[-1])


@data_command.command()
@options.json_option
def sources(as_json: bool) -> None:
    """List the sources of prices that are installed.

    \b
    autotune data sources
    """
    from autotuner.sources.registry import installed

    found = [vars(each) for each in installed()]
    if as_json:
        options.print_json({"sources": found})
        return
    from rich.text import Text

    from autotuner.report.tables import bare_table, plain

    table = bare_table("source", "version", "from", "")
    for each in found:
        row = (each["name"], each["version"], each["package"], each["fault"])
        table.add_row(*(Text(plain(cell)) for cell in row), style="red" if each["fault"] else "")
    options.print_table(table)


def _options(told: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in told]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise UsageError(f"--option {name!r}: write NAME=VALUE")
    return {name: value for name, _, value in pairs}
