"""What a source answered as a series, or the one line that says why it is none: nothing is repaired in silence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from autotuner.errors import cause
from autotuner.sources.protocol import Source, SourceError, Wanted
from toto_core.prices.options import SeriesError
from toto_core.series import PriceSeries, read_series

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("adj close", "adj_close", "adjclose", "close", "price")
"""By which of its columns a frame's prices go, the first that is there."""


def fetched(source: Source, name: str, wanted: Wanted) -> PriceSeries:
    """The prices that a source gives; their ``repairs`` are what is worth saying. Raises ``SourceError``, one line.

    Refused: nothing at all, prices that are no numbers above 0, a time with two prices, two missing prices in a row.
    One that is missing by itself is left out, and said.
    """
    try:
        answer = source(wanted)
    except SourceError as error:
        raise SourceError(f"{wanted.symbol}: {error}") from None
    except Exception as error:  # whatever another package's code raises
        raise SourceError(f"{wanted.symbol}: {name} failed: {cause(error)}") from None
    try:
        if isinstance(answer, str | Path):
            return read_series(Path(answer), wanted.symbol)
        return _of_frame(answer, wanted.symbol, name)
    except SeriesError as error:
        raise SourceError(f"{wanted.symbol}: what {name} gave cannot be used: {error}") from None


def _of_frame(frame: pd.DataFrame, symbol: str, name: str) -> PriceSeries:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise SeriesError(f"it is a {type(frame).__name__}, neither a DataFrame nor a path")
    if frame.empty:
        raise SourceError(
            f"{symbol}: {name} has no prices of it: check the symbol, the interval and the period"
        )
    if not isinstance(frame.index, pd.DatetimeIndex):
        raise SeriesError("its index holds no times")
    zone = frame.index.tz
    stamps = (frame.index.tz_localize("UTC") if zone is None else frame.index.tz_convert("UTC")).tz_localize(
        None
    )
    order = np.argsort(stamps.to_numpy(), kind="stable")
    times = stamps.to_numpy(dtype="datetime64[ns]")[order]
    prices = pd.to_numeric(_column(frame, symbol), errors="coerce").to_numpy(dtype=np.float64)[order]
    _refuse_times(times)
    missing = np.isnan(prices)
    _refuse_prices(times, prices, missing)
    return PriceSeries(
        symbol=symbol,
        source=name,
        timestamps=times[~missing],
        close=prices[~missing],
        repairs=(f"{int(missing.sum())} single missing prices left out",) if missing.any() else (),
    )


def _refuse_times(times: npt.NDArray[np.datetime64]) -> None:
    if np.isnat(times).any():
        raise SeriesError("a time is missing")
    repeated = times[1:][times[1:] == times[:-1]]
    if repeated.size:
        raise SeriesError(f"{repeated.size} times come twice, the first {_second(repeated[0])}")


def _refuse_prices(
    times: npt.NDArray[np.datetime64], prices: npt.NDArray[np.float64], missing: npt.NDArray[np.bool_]
) -> None:
    if (missing[1:] & missing[:-1]).any() or missing.all():
        first = _second(times[int(np.argmax(missing))])
        raise SeriesError(
            f"{int(missing.sum())} of {prices.size} prices are missing, several in a row, the first at {first}"
        )
    wrong = ~missing & ~(np.isfinite(prices) & (prices > 0))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise SeriesError(f"the price at {_second(times[place])} is {prices[place]:g}")


def _second(time: np.datetime64) -> str:
    return f"{time.astype('datetime64[s]')}Z"


def _column(frame: pd.DataFrame, symbol: str) -> pd.Series[float]:
    """The column of prices; of a frame with a column for each symbol, this one's."""
    import pandas as pd

    if frame.columns.nlevels > 1:
        level = next(
            (n for n in range(frame.columns.nlevels) if symbol in frame.columns.get_level_values(n)), None
        )
        if level is None:
            raise SeriesError(f"its columns are of several symbols, {symbol} not among them")
        frame = pd.DataFrame(frame.xs(symbol, axis=1, level=level))
    names = {str(column).strip().lower(): column for column in frame.columns}
    chosen = next((names[name] for name in _COLUMNS if name in names), None)
    if chosen is None and len(names) == 1:
        (chosen,) = frame.columns
    if chosen is None:
        raise SeriesError(f"none of its columns {', '.join(map(str, names))} is called close")
    found: pd.Series[float] = frame[chosen]
    return found
