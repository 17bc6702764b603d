"""Decides which columns of a price file hold the times and the closing prices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toto_core.symbols import quoted

_CLOSE = "close"
_ADJUSTED_CLOSE = ("adj close", "adj. close", "adjclose", "adjusted close")
# Finest first: where `datetime` stands beside `date`, reading the date alone would drop the hours.
_TIMES = ("timestamp", "datetime", "date", "time")


class SeriesError(ValueError):
    """Bad price data; the message is one line: file, row (when known), reason."""


@dataclass(frozen=True, kw_only=True)
class ChosenColumns:
    """The chosen columns: names in lower case, positions in the header, and what to tell of the choice."""

    time: str
    time_index: int
    close: str
    close_index: int
    notices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PriceTable:
    """The rows of one file, in its order: `stamps` datetime64[ns] UTC, `prices` float64, both `(time,)`.

    A cell that was refused is NaT, or a price that is not finite and above zero. `stamp_cell` and `price_cell`
    give a row's cells as text, `place` where in the file it stands.
    """

    stamps: npt.NDArray[np.datetime64]
    prices: npt.NDArray[np.float64]
    stamp_cell: Callable[[int], str]
    price_cell: Callable[[int], str]
    place: Callable[[int], str]
    columns: ChosenColumns


def choose_columns(header: Sequence[str], label: str, index: int | None = None) -> ChosenColumns:
    """Return which columns of `header` to read; case, spaces around and `_` for a space do not matter.

    `index` is the column that holds the index of a parquet file, used when no column is named as a time.
    Raises SeriesError, beginning with `label`, when there is no such column, or a choice between equals.
    """
    names = [" ".join(name.replace("_", " ").lower().split()) for name in header]
    for name in (_CLOSE, *_ADJUSTED_CLOSE, *_TIMES):
        if names.count(name) > 1:
            raise SeriesError(f"{label}: column {name!r} is there {names.count(name)} times: keep one")
    found = f"the columns are {quoted(', '.join(header))}"
    close = _close_name(names, label, found)
    time, time_index = _time_column(names, index, label, found)
    adjusted = close != _CLOSE and _CLOSE in names
    notices = (f"column {close!r} used rather than 'close'",) if adjusted else ()
    place = names.index(close)
    return ChosenColumns(time=time, time_index=time_index, close=close, close_index=place, notices=notices)


def _close_name(names: list[str], label: str, found: str) -> str:
    adjusted = [name for name in _ADJUSTED_CLOSE if name in names]
    if len(adjusted) > 1:
        raise SeriesError(f"{label}: columns {adjusted[0]!r} and {adjusted[1]!r} say the same: keep one")
    if not adjusted and _CLOSE not in names:
        raise SeriesError(f"{label}: no column 'close' or 'adj close' ({found})")
    return adjusted[0] if adjusted else _CLOSE


def _time_column(names: list[str], index: int | None, label: str, found: str) -> tuple[str, int]:
    name = next((name for name in _TIMES if name in names), None)
    if name == "date" and "time" in names:
        raise SeriesError(f"{label}: columns 'date' and 'time': join them into one column 'timestamp'")
    if name is not None:
        return name, names.index(name)
    if index is None:
        raise SeriesError(f"{label}: no column 'timestamp', 'datetime', 'date' or 'time' ({found})")
    return "index", index
