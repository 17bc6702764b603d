"""Price files in, validated series out."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from toto_core.prices.options import AS_THEY_LIE, EMBEDDED, PriceOptions, PriceSource, SeriesError
from toto_core.prices.repair import describe_gaps, describe_jumps
from toto_core.symbols import SymbolError, file_stem, parse_symbol, symbol_of_stem

__all__ = [
    "EMBEDDED",
    "PriceOptions",
    "PriceSeries",
    "PriceSource",
    "SeriesError",
    "available_symbols",
    "find_series",
    "passed_over",
    "price_files",
    "read_series",
]

SUFFIXES = (".csv", ".csv.gz", ".parquet")
"""Endings, in any case, of the files that a folder is searched for; what a file is, its bytes tell."""


# Compared by identity: an array has no single truth value; `digest` says whether two series are equal.
@dataclass(frozen=True, kw_only=True, eq=False)
class PriceSeries:
    """The price history of one symbol, oldest first.

    `timestamps` is datetime64[ns] UTC, strictly increasing, `(time,)`; `close` is float64 and finite, `(time,)`,
    and above zero unless its reader was told to allow less; both are read-only copies. `source` is a path or
    "embedded". `repairs` are sentences on what was repaired, left out or noticed in the file. Raises
    SeriesError or SymbolError when a field breaks this.
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
        if not np.all(np.isfinite(close)):
            raise SeriesError(f"{self.symbol}: every close must be finite")
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


def read_series(
    path: Path, symbol: str, *, minimum_points: int = 1, options: PriceOptions = AS_THEY_LIE
) -> PriceSeries:
    """Return the series of `symbol` held by the file `path`, whatever its name.

    `minimum_points` is what the caller needs, context length + prediction length; `options` decide where the
    file leaves a choice. Raises SymbolError for a bad symbol and SeriesError for a file that is missing,
    unreadable, too short, unclear or holds bad prices.
    """
    symbol = parse_symbol(symbol)
    label = _label(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SeriesError(f"{label}: a folder or device where a price file is wanted")
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    return _series(content, symbol, _Origin(str(path), label), minimum_points, options)


def find_series(
    symbol: str, data: Path | None, *, minimum_points: int = 1, options: PriceOptions = AS_THEY_LIE
) -> PriceSeries:
    """Return the series of `symbol` from the file or folder `data`, or the embedded one when it is None.

    In a folder the name is the symbol, in any case and percent-encoded where needed (`BTC%2FUSDT.csv`), with one
    of `SUFFIXES`. Raises SymbolError for a bad symbol and SeriesError as `read_series` does, or when there is
    no such file.
    """
    symbol = parse_symbol(symbol)
    if data is None:
        return _embedded_series(symbol, minimum_points)
    if not _holds(data.is_dir):
        return read_series(data, symbol, minimum_points=minimum_points, options=options)
    present = _files_of(symbol, data)
    if not present:
        wanted = ", ".join(f"{file_stem(symbol)}{suffix}" for suffix in SUFFIXES)
        raise SeriesError(f"{_label(data)}: no price file for {symbol}: looked for {wanted}, in any case")
    series = read_series(data / present[0], symbol, minimum_points=minimum_points, options=options)
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
        names = [name for name in _listed(data) if _holds((data / name).is_file)]
    return tuple(sorted({symbol for name in names if (symbol := _symbol_in(name)) is not None}))


def price_files(data: Path | None) -> dict[str, Path]:
    """Return the file that `find_series` reads of each symbol; for the embedded ones, whose files never change, none.

    One look at a folder, where `find_series` looks for every symbol. Raises SeriesError when it cannot be listed.
    """
    if data is None:
        return {}
    if not _holds(data.is_dir):
        symbol = _symbol_in(data.name)
        return {} if symbol is None else {symbol: data}
    found: dict[str, list[str]] = {}
    for name in _listed(data):
        if (symbol := _symbol_in(name)) is not None:
            found.setdefault(symbol, []).append(name)
    return {symbol: data / _first_read(symbol, names) for symbol, names in found.items()}


def passed_over(data: Path | None) -> tuple[str, ...]:
    """Return, sorted, the names in the folder `data` that are no price file of a symbol, hidden ones left out."""
    if data is None or not _holds(data.is_dir):
        return ()
    names = (name for name in _listed(data) if not name.startswith("."))
    return tuple(
        sorted(name for name in names if _symbol_in(name) is None or not _holds((data / name).is_file))
    )


def _embedded_series(symbol: str, minimum_points: int) -> PriceSeries:
    asset = resources.files("toto_core").joinpath("assets", f"{file_stem(symbol)}.csv.gz")
    if not asset.is_file():
        known = ", ".join(available_symbols(None))
        raise SeriesError(f"no embedded series for {symbol}, only for {known}: give --data for others")
    label = f"{EMBEDDED} {symbol}.csv.gz"
    return _series(asset.read_bytes(), symbol, _Origin(EMBEDDED, label), minimum_points, AS_THEY_LIE)


def _files_of(symbol: str, folder: Path) -> list[str]:
    """The names in the folder that stand for the symbol, the one to read first."""
    return _in_order(symbol, [name for name in _listed(folder) if _symbol_in(name) == symbol])


def _first_read(symbol: str, names: list[str]) -> str:
    return names[0] if len(names) == 1 else _in_order(symbol, names)[0]


def _in_order(symbol: str, names: list[str]) -> list[str]:
    stem = file_stem(symbol)
    return sorted(
        names, key=lambda name: (SUFFIXES.index(_suffix(name) or ""), not name.startswith(stem), name)
    )


def _suffix(name: str) -> str | None:
    lower = name.lower()
    return next((suffix for suffix in SUFFIXES if lower.endswith(suffix)), None)


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
    suffix = _suffix(file_name)
    if suffix is None:
        return None
    try:
        return symbol_of_stem(file_name[: -len(suffix)])
    except (SymbolError, UnicodeDecodeError):
        return None


def _label(path: Path) -> str:
    text = str(path)
    return text if text.isprintable() else repr(text)


class _Origin(NamedTuple):
    """Where prices come from: as a series keeps it, and as messages name it."""

    source: str
    label: str


def _series(
    content: bytes, symbol: str, origin: _Origin, minimum_points: int, options: PriceOptions
) -> PriceSeries:
    from toto_core.prices.reading import read_prices  # pyarrow takes long to import

    prices = read_prices(content, symbol, origin.label, options)
    if prices.close.size < minimum_points:
        raise SeriesError(
            f"{origin.label}: {prices.close.size} points where context length + prediction length needs "
            f"{minimum_points}: give a longer history or ask for less"
        )
    told = (*prices.notes, *describe_gaps(prices.stamps), *describe_jumps(prices.stamps, prices.close))
    return PriceSeries(
        symbol=symbol, source=origin.source, timestamps=prices.stamps, close=prices.close, repairs=told
    )
