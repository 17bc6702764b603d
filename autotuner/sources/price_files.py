"""Fetched prices as files: written whole, with where they came from, and put together with what was there before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from autotuner.files import failing_as
from autotuner.sources.origin import MARK, provenance
from autotuner.sources.protocol import SourceError, Wanted
from storage.whole_files import written_whole
from toto_core.prices.options import SeriesError
from toto_core.series import PriceSeries, price_files, read_series
from toto_core.symbols import file_stem

_ALIKE = 1e-5
"""Relative difference of a price fetched twice: sources round to single precision, and dividends are larger."""
_FEWEST_COMMON = 2


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What became of a symbol's file: ``points`` in it now, ``added`` of them new; ``said`` is worth reading."""

    symbol: str
    path: Path
    points: int
    added: int
    said: tuple[str, ...] = ()


def keep(
    folder: Path,
    series: PriceSeries,
    wanted: Wanted,
    *,
    source: str,
    version: str,
    now: datetime,
    replace: bool,
) -> Kept:
    """Put fetched prices into the symbol's file in ``folder``.

    What is there of the same source and interval goes on where the prices that both have agree; its newest price may
    differ, because its day or hour may not have been over. Where they do not agree, prices were adjusted since, and
    the new ones replace all. Raises ``SourceError``, and then the file is as it was: for one that this did not write
    or that is of another source or interval, and where nothing is common to both, unless ``replace``.
    """
    path = folder / f"{file_stem(series.symbol)}.csv"
    before, said = None, series.repairs
    try:
        there = price_files(folder).get(series.symbol) if folder.exists() else None
    except SeriesError as error:
        raise SourceError(f"{series.symbol}: {error}") from None
    if there is not None and not replace:
        before = _before(there, series.symbol, {"source": source, "interval": wanted.interval})
    stamps, close = series.timestamps, series.close
    if before is not None:
        stamps, close, more = _together(before, series, there or path)
        said = (*said, *more)
    old = 0 if before is None else len(before)
    if before is not None and stamps.size == old and np.array_equal(close, before.close):
        return Kept(symbol=series.symbol, path=path, points=old, added=0, said=(*said, "nothing new"))
    about = {
        "source": source,
        "version": version,
        "fetched_at": now.isoformat(timespec="seconds"),
        **wanted.to_dict(),
    }
    with failing_as(SourceError, f"{path}: cannot be written"), written_whole(path, mode=0o644) as aside:
        aside.write_text(_text(stamps, close, about), encoding="utf-8")
    added = int(stamps.size if before is None else np.setdiff1d(stamps, before.timestamps).size)
    return Kept(symbol=series.symbol, path=path, points=int(stamps.size), added=added, said=said)


def _before(path: Path, symbol: str, wanted: Mapping[str, str]) -> PriceSeries:
    about = provenance(path)
    if about is None:
        raise SourceError(
            f"{symbol}: {path} was not fetched by autotune: name another folder, or give --replace"
        )
    for name, value in wanted.items():
        if about.get(name) != value:
            raise SourceError(
                f"{symbol}: {path} has {name} {about.get(name)}, not {value}: name another folder, or give --replace"
            )
    try:
        return read_series(path, symbol)
    except SeriesError as error:
        raise SourceError(f"{symbol}: {error}; --replace fetches it anew") from None


def _together(before: PriceSeries, new: PriceSeries, path: Path) -> tuple[Any, Any, tuple[str, ...]]:
    """Times and prices of both, or of the new one alone where they do not agree, and what is worth saying."""
    first, last = max(before.timestamps[0], new.timestamps[0]), min(before.timestamps[-1], new.timestamps[-1])
    # The newest price of what was there may have been of a day or an hour that was not over.
    old_part = (
        (before.timestamps >= first)
        & (before.timestamps <= last)
        & (before.timestamps < before.timestamps[-1])
    )
    new_part = (new.timestamps >= first) & (new.timestamps <= last) & (new.timestamps < before.timestamps[-1])
    common = int(old_part.sum())
    if common < _FEWEST_COMMON:
        raise SourceError(
            f"{new.symbol}: {path} ends {_day(before.timestamps[-1])} and what was fetched begins "
            f"{_day(new.timestamps[0])}, too little in common to compare: fetch a longer period, or give --replace"
        )
    same_times = np.array_equal(before.timestamps[old_part], new.timestamps[new_part])
    if not same_times:
        differ = int(np.setxor1d(before.timestamps[old_part], new.timestamps[new_part]).size)
    else:
        differ = int((~np.isclose(before.close[old_part], new.close[new_part], rtol=_ALIKE, atol=0.0)).sum())
    if differ:
        earlier = int((before.timestamps < new.timestamps[0]).sum())
        gone = f"; {earlier} earlier ones are gone" if earlier else ""
        return (
            new.timestamps,
            new.close,
            (
                f"{differ} of {common} prices that were there are others now (adjusted?): replaced as a whole{gone}",
            ),
        )
    kept = before.timestamps < new.timestamps[0]
    later = before.timestamps > new.timestamps[-1]
    agreeing = np.isin(new.timestamps, before.timestamps[old_part])
    ours = new.close.copy()
    ours[agreeing] = before.close[old_part]  # the very numbers: a series that did not change keeps its digest
    stamps = np.concatenate([before.timestamps[kept], new.timestamps, before.timestamps[later]])
    return stamps, np.concatenate([before.close[kept], ours, before.close[later]]), ()


def _text(stamps: Any, close: Any, about: Mapping[str, Any]) -> str:
    seconds = stamps.astype("datetime64[s]")
    times = np.datetime_as_string(seconds if (seconds == stamps).all() else stamps)
    rows = (f"{time}Z,{price!r}\n" for time, price in zip(times, close.tolist(), strict=True))
    return f"{MARK}{json.dumps(about)}\ntimestamp,close\n{''.join(rows)}"


def _day(stamp: Any) -> str:
    return str(stamp.astype("datetime64[D]"))
