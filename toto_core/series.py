"""Price files in, validated series out."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from toto_core.prices.columns import PriceTable, SeriesError
from toto_core.prices.reading import SUFFIXES, file_suffix, read_columns
from toto_core.prices.repair import describe_gaps, in_time_order
from toto_core.symbols import SymbolError, parse_symbol

__all__ = ["EMBEDDED", "PriceSeries", "SeriesError", "available_symbols", "find_series", "read_series"]

EMBEDDED = "embedded"


# Compared by identity: an array has no single truth value; `digest` says whether two series are equal.
@dataclass(frozen=True, kw_only=True, eq=False)
class PriceSeries:
    """The price history of one symbol, oldest first.

    `timestamps` is datetime64[ns] UTC, strictly increasing, `(time,)`; `close` is float64, finite and above
    zero, `(time,)`; both are read-only copies. `source` is a path or "embedded". `repairs` are sentences
    on what was repaired or noticed in the file. Raises SeriesError or SymbolError when a field breaks this.
    """

    symbol: str
    source: str
    timestamps: npt.NDArray[np.datetime64]
    close: npt.NDArray[np.float64]
    repairs: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.symbol != parse_symbol(self.symbol):
            raise SymbolError(f"{self.symbol!r} is not upper-case: pass it through parse_symbol")
        timestamps = np.array(self.timestamps, dtype="datetime64[ns]")
        close = np.array(self.close, dtype=np.float64)
        if timestamps.ndim != 1 or timestamps.shape != close.shape or not timestamps.size:
            raise SeriesError(
                f"{self.symbol}: timestamps {timestamps.shape} and close {close.shape} must be "
                "one-dimensional, of one length and not empty"
            )
        # A comparison with NaT is false, so this refuses NaT as well.
        if np.isnat(timestamps[0]) or not np.all(timestamps[1:] > timestamps[:-1]):
            raise SeriesError(f"{self.symbol}: timestamps must be strictly increasing")
        if not np.all(np.isfinite(close) & (close > 0)):
            raise SeriesError(f"{self.symbol}: every close must be finite and above zero")
        timestamps.setflags(write=False)
        close.setflags(write=False)
        object.__setattr__(self, "timestamps", timestamps)
        object.__setattr__(self, "close", close)

    def __len__(self) -> int:
        return int(self.close.size)

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256, in hex, of the timestamps and prices: the same on every machine."""
        sha = hashlib.sha256(self.timestamps.astype("<i8").tobytes())
        sha.update(self.close.astype("<f8").tobytes())
        return sha.hexdigest()

    def last_fifth_start(self) -> int:
        """Return the index at which the last fifth of the series begins, rounded down."""
        return len(self) * 4 // 5


def read_series(path: Path, symbol: str, *, minimum_points: int = 1) -> PriceSeries:
    """Return the series of `symbol` held by the file `path` (.csv, .csv.gz or .parquet).

    `minimum_points` is what the caller needs, context length + prediction length. Raises SymbolError for
    a bad symbol and SeriesError for a file that is missing, unreadable, too short or holds bad prices.
    """
    symbol = parse_symbol(symbol)
    label = _label(path)
    suffix = file_suffix(path.name)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SeriesError(f"{label}: a folder or device where a price file is wanted")
        if suffix is None:
            raise SeriesError(f"{label}: the name of a price file must end in {', '.join(SUFFIXES)}")
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    return _series(read_columns(content, suffix, label), symbol, str(path), label, minimum_points)


def find_series(symbol: str, data: Path | None, *, minimum_points: int = 1) -> PriceSeries:
    """Return the series of `symbol` from the file or folder `data`, or the embedded one when it is None.

    In a folder the name is the symbol, upper-case or lower-case, with one of the suffixes. Raises
    SymbolError for a bad symbol and SeriesError as `read_series` does, or when there is no such file.
    """
    symbol = parse_symbol(symbol)
    if data is None:
        return _embedded_series(symbol, minimum_points)
    if not _holds(data.is_dir):
        return read_series(data, symbol, minimum_points=minimum_points)
    wanted = _file_names(symbol)
    listed = set(_listed(data))
    present = [name for name in wanted if name in listed]
    if not present:
        raise SeriesError(f"{_label(data)}: no price file for {symbol}: looked for {', '.join(wanted)}")
    series = read_series(data / present[0], symbol, minimum_points=minimum_points)
    if len(present) == 1:
        return series
    return replace(series, repairs=(*series.repairs, f"{', '.join(present[1:])} also there: not read"))


def available_symbols(data: Path | None) -> tuple[str, ...]:
    """Return, sorted, the symbols `find_series` has a file for. Raises SeriesError when `data` cannot be listed."""
    if data is None:
        assets = resources.files("toto_core").joinpath("assets").iterdir()
        names = [asset.name for asset in assets if asset.name.endswith(".csv.gz")]
    elif _holds(data.is_file):
        names = [data.name]
    else:
        names = [name for name in _listed(data) if _is_looked_for(name) and _holds((data / name).is_file)]
    return tuple(sorted({symbol for name in names if (symbol := _symbol_in(name)) is not None}))


def _embedded_series(symbol: str, minimum_points: int) -> PriceSeries:
    asset = resources.files("toto_core").joinpath("assets", f"{symbol}.csv.gz")
    if not asset.is_file():
        known = ", ".join(available_symbols(None))
        raise SeriesError(f"no embedded series for {symbol}, only for {known}: give --data for others")
    label = f"{EMBEDDED} {symbol}.csv.gz"
    columns = read_columns(asset.read_bytes(), ".csv.gz", label)
    return _series(columns, symbol, EMBEDDED, label, minimum_points)


def _file_names(symbol: str) -> list[str]:
    names = (f"{name}{suffix}" for suffix in SUFFIXES for name in (symbol, symbol.lower()))
    return list(dict.fromkeys(names))


def _listed(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError as error:
        raise _unreadable(folder, error) from error


def _holds(check: Callable[[], bool]) -> bool:
    # What may not be looked at, or has too long a name, is refused with its reason when it is read.
    try:
        return check()
    except OSError:
        return False


def _unreadable(path: Path, error: OSError) -> SeriesError:
    return SeriesError(f"{_label(path)}: cannot be read: {error.strerror or type(error).__name__}")


def _symbol_in(file_name: str) -> str | None:
    suffix = file_suffix(file_name)
    if suffix is None:
        return None
    try:
        return parse_symbol(file_name[: -len(suffix)])
    except SymbolError:
        return None


def _is_looked_for(file_name: str) -> bool:
    symbol = _symbol_in(file_name)
    return symbol is not None and file_name in _file_names(symbol)


def _label(path: Path) -> str:
    text = str(path)
    return text if text.isprintable() else repr(text)


def _series(table: PriceTable, symbol: str, source: str, label: str, minimum_points: int) -> PriceSeries:
    timestamps, close, repairs = in_time_order(table.stamps, table.prices)
    if close.size < minimum_points:
        raise SeriesError(
            f"{label}: {close.size} points where context length + prediction length needs {minimum_points}: "
            "give a longer history or ask for less"
        )
    told = (*table.columns.notices, *repairs, *describe_gaps(timestamps))
    return PriceSeries(symbol=symbol, source=source, timestamps=timestamps, close=close, repairs=told)
