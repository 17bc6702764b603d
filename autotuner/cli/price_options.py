"""The options that say where a command's prices lie and how to read them, over ``[prices]`` of ``autotune.toml``."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path
from typing import Any, cast

import click

from autotuner.cli.options import Command
from autotuner.errors import UsageError
from autotuner.paths import config_path
from toto_core.prices.options import DECIMALS, PriceOptions, PriceSource

_OPTIONS = (
    click.option(
        "--data",
        type=click.Path(exists=True, path_type=Path),
        help="Folder with <SYMBOL>.csv[.gz] or .parquet, or one file [default: the embedded samples].",
    ),
    click.option("--price-column", metavar="NAME", help="Column of prices, where the file leaves a choice."),
    click.option("--time-column", metavar="NAME", help="Column of times, where the file leaves a choice."),
    click.option("--timezone", metavar="ZONE", help="Zone of times without an offset [default: UTC]."),
    click.option(
        "--decimal", type=click.Choice(DECIMALS), help="Decimal mark, where the file leaves a choice."
    ),
    click.option("--allow-negative", is_flag=True, help="Take prices of zero and below for prices."),
)


def price_options(command: Command) -> Command:
    """``--data`` and how to read it; the command gets a ``PriceSource`` as ``prices``."""
    made: Any = with_prices(command)
    for option in reversed(_OPTIONS):
        made = option(made)
    return cast("Command", made)


def with_prices(command: Command) -> Command:
    """Make a ``PriceSource``, which the command gets as ``prices``, of what these options were given."""

    @functools.wraps(command)
    def wrapped(*args: Any, data: Path | None, allow_negative: bool, **options: Any) -> Any:
        names = ("price_column", "time_column", "timezone", "decimal")
        given: dict[str, Any] = {name: options.pop(name) for name in names}
        given = {name: value for name, value in given.items() if value is not None}
        if allow_negative:
            given["allow_negative"] = True
        source = PriceSource(
            data=None if data is None else str(data.absolute()), options=_options(_configured() | given)
        )
        return command(*args, prices=source, **options)

    return cast("Command", wrapped)


def _options(values: dict[str, Any]) -> PriceOptions:
    try:
        return PriceOptions.from_dict(values)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _configured() -> dict[str, Any]:
    """What ``[prices]`` of the configuration file says; a command needs nothing else of that file."""
    path = config_path()
    if path is None:
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("prices", {})
        PriceOptions.from_dict(found)
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: prices: {' '.join(str(error).split())}") from None
    return dict(found)
