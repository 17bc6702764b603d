"""The prices that are there now: a file that was read before and not touched since is not read again."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import NamedTuple

from toto_core.series import PriceSeries, PriceSource, find_series, price_files, read_series

_SETTLED_SECONDS = 2.0
"""How long a file must have been left alone before it is known by its times: those of two changes may be the same."""

_State = tuple[int, ...]


class Prices(NamedTuple):
    """A series by its digest, and how long it is."""

    digest: str
    points: int


class SeenPrices:
    """What was read of price files, for as long as a daemon lives; ``look_again`` at the begin of every tick."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, PriceSource], tuple[Path, _State, Prices]] = {}
        self.look_again()

    def look_again(self) -> None:
        """List folders anew."""
        self._files = functools.cache(price_files)

    def of(self, symbol: str, source: PriceSource) -> Prices:
        """The prices of a symbol. Raises ``SeriesError`` and ``SymbolError`` as ``find_series`` does."""
        file = None if source.path is None else self._files(source.path).get(symbol)
        before = None if file is None else _state(file)
        if file is None or before is None:  # embedded, or it says what is wrong
            return _prices(find_series(symbol, source.path, options=source.options))
        known = self._read.get((symbol, source))
        if known is not None and known[:2] == (file, before):
            return known[2]
        found = _prices(read_series(file, symbol, options=source.options))
        if _state(file) == before and _is_settled(before):
            self._read[symbol, source] = (file, before, found)
        return found


def _prices(series: PriceSeries) -> Prices:
    return Prices(series.digest, len(series))


def _state(file: Path) -> _State | None:
    """What changes whenever the file does, its times last; None where it cannot be looked at."""
    try:
        found = file.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mode, found.st_mtime_ns, found.st_ctime_ns


def _is_settled(state: _State) -> bool:
    return time.time() - max(state[-2:]) / 1e9 > _SETTLED_SECONDS
