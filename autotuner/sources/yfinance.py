"""Prices of Yahoo through the package yfinance, whose empty answers and hidden failures become errors."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

from autotuner.sources.protocol import SourceError, Wanted

if TYPE_CHECKING:
    import pandas as pd

_LONGER_THAN_A_DAY = ("d", "wk", "mo")


def fetch(wanted: Wanted) -> pd.DataFrame:
    """Adjusted prices, one symbol a request. Raises ``SourceError``.

    Times of a day or longer are the exchange's dates, as Yahoo's own files have them; of shorter ones moments.
    """
    import yfinance
    from yfinance.exceptions import YFRateLimitError

    if wanted.options:
        raise SourceError(f"yfinance takes no option {next(iter(wanted.options))!r}")
    yfinance.config.debug.hide_exceptions = False  # else a failure is an empty frame and a line in a log
    logging.getLogger("yfinance").setLevel(logging.CRITICAL)
    asked = {
        name: value for name in ("period", "start", "end") if (value := getattr(wanted, name)) is not None
    }
    try:
        with warnings.catch_warnings(action="ignore"):  # of what its pandas will no longer do one day
            frame: pd.DataFrame = yfinance.Ticker(wanted.symbol).history(
                interval=wanted.interval, auto_adjust=True, actions=False, keepna=True, **asked
            )
    except YFRateLimitError:
        raise SourceError("Yahoo refuses for now, after too many requests: try again later") from None
    except Exception as error:
        raise SourceError(
            f"Yahoo gave nothing: {' '.join(str(error).split()) or type(error).__name__}"
        ) from None
    if wanted.interval.endswith(_LONGER_THAN_A_DAY) and getattr(frame.index, "tz", None) is not None:
        frame = frame.tz_localize(None)
    return frame
