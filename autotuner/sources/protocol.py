"""What a source of prices is: something that gives the prices of a symbol when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from autotuner.errors import AutotuneError

if TYPE_CHECKING:
    import pandas as pd


class SourceError(AutotuneError):
    """A source gave no prices that could be used; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which prices: of ``symbol``, one every ``interval``, the last ``period``, or from ``start`` to before ``end``.

    Interval and period are in the source's own words (``1d``, ``2y``). ``options`` are what else it was told.
    """

    symbol: str
    interval: str = "1d"
    period: str | None = None
    start: date | None = None
    end: date | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values of what was asked, without what was not."""
        dates = {name: day.isoformat() for name in ("start", "end") if (day := getattr(self, name))}
        period = {} if self.period is None else {"period": self.period}
        options = {"options": dict(self.options)} if self.options else {}
        return {"symbol": self.symbol, "interval": self.interval, **period, **dates, **options}


class Source(Protocol):
    """Called with what is wanted it gives a DataFrame with times as its index, or the path of a price file.

    The frame has a column ``close`` (or ``Close``, ``Adj Close``, ``price``, or just one); times without an offset
    are UTC. What it cannot give it raises, in one line.
    """

    def __call__(self, wanted: Wanted) -> pd.DataFrame | Path:
        """The prices."""
        ...
