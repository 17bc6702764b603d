"""Decides which columns of a price file are the prices and the times, and which rows are the symbol's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from toto_core.prices import names
from toto_core.prices.formats import looks_like_time
from toto_core.prices.numbers import read_numbers
from toto_core.prices.options import CellRefusedError, PriceOptions, SeriesError
from toto_core.prices.stamps import Times, read_times
from toto_core.prices.table import Column, Header, Table, texts_of, values_of
from toto_core.symbols import quoted

Rows = npt.NDArray[np.int64] | None
"""Positions of the rows that are read, None for all."""
_NAMED_AT_MOST = 8
_SAME_BAR = np.timedelta64(2, "D")  # a bar's begin and end, or local and UTC, lie no further apart


@dataclass(frozen=True, kw_only=True, eq=False)
class TimeColumn:
    """The column of times that was chosen, by its name in messages, with what it holds."""

    name: str
    times: Times


def rows_of(table: Table, symbol: str, label: str) -> tuple[Rows, tuple[str, ...]]:
    """The rows of ``symbol`` in a file that holds several, and what is to be said of a file of another's.

    Raises SeriesError for a file of several symbols without this one.
    """
    known = [names.plain(name) for name in table.header.names]
    position = next((known.index(name) for name in names.SYMBOLS if name in known), None)
    if position is None or not table.header.named:
        return None, ()
    cells = texts_of(table.columns([position])[0])
    distinct = [text for text in pc.unique(pc.utf8_upper(pc.utf8_trim_whitespace(cells))).to_pylist() if text]
    if len(distinct) <= 1:
        other = bool(distinct) and _bare(distinct[0]) != _bare(symbol)
        return None, (
            (f"column {quoted(table.header.names[position])} says {quoted(distinct[0])}",) if other else ()
        )
    matching = [text for text in distinct if text == symbol] or [
        t for t in distinct if _bare(t) == _bare(symbol)
    ]
    if len(matching) != 1:
        some = ", ".join(distinct[:_NAMED_AT_MOST]) + (", ..." if len(distinct) > _NAMED_AT_MOST else "")
        raise SeriesError(f"{label}: holds {len(distinct)} symbols ({some}), and not {symbol}")
    mask = pc.equal(pc.utf8_upper(pc.utf8_trim_whitespace(cells)), matching[0])
    rows = np.flatnonzero(values_of(mask))
    others = f"{len(distinct) - 1} other symbol{'s' if len(distinct) > 2 else ''}"
    return rows, (f"{len(rows)} rows of {matching[0]} among those of {others}",)


def cells_at(table: Table, position: int, rows: Rows) -> Column:
    """The cells of one column, of the rows that are read."""
    (column,) = table.columns([position])
    return column if rows is None else column.take(pa.array(rows))


def named_column(header: Header, wanted: str, option: str, label: str) -> int:
    """The position of the column that a person named. Raises SeriesError where there is none, or several."""
    for found in (
        [at for at, name in enumerate(header.names) if name == wanted],
        [at for at, name in enumerate(header.names) if names.plain(name) == names.plain(wanted)],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise SeriesError(f"{label}: column {quoted(wanted)} is there {len(found)} times: keep one")
    raise SeriesError(f"{label}: {option} {quoted(wanted)}: no such column ({said_of(header)})")


def said_of(header: Header) -> str:
    """``separator ';', columns 'Datum, Schluss'``."""
    columns = f"the columns are {quoted(', '.join(header.names))}"
    return columns if header.separator is None else f"separator {header.separator!r}; {columns}"


def price_columns(header: Header, symbol: str, label: str) -> list[int]:
    """The positions of the column of prices and, where that is an adjusted close, of the close beside it.

    Raises SeriesError for a header that names no price, and for a choice between equals.
    """
    symbols = header.symbols or ("",) * len(header.names)
    if any(symbols) and not any(_bare(text) == _bare(symbol) for text in symbols):
        several = sorted({text.upper() for text in symbols if text})
        if len(several) > 1:
            some = ", ".join(several[:_NAMED_AT_MOST])
            raise SeriesError(f"{label}: holds {len(several)} symbols ({some}), and not {symbol}")
        symbol = several[0]
    usable = [at for at, text in enumerate(symbols) if not text or _bare(text) == _bare(symbol)]
    plain = {at: names.plain(header.names[at]) for at in usable}
    found: list[int] = []
    for pattern in (names.ADJUSTED, names.CLOSE, names.OTHER_PRICE):
        matching = [at for at in usable if pattern.fullmatch(plain[at])]
        if len(matching) > 1:
            both = " and ".join(repr(header.names[at]) for at in matching[:2])
            raise SeriesError(f"{label}: columns {both} may both be the prices: --price-column decides")
        if matching and not (found and pattern is names.OTHER_PRICE):
            found += matching
    own = [at for at in usable if _bare(header.names[at].upper()) == _bare(symbol)]
    found = found or own[:1]
    if not found:
        raise SeriesError(
            f"{label}: no price column by a name we know, such as close: --price-column says which "
            f"({said_of(header)})"
        )
    return found


def headerless_price(table: Table, label: str) -> int:
    """The position of the close in a file without a header. Raises SeriesError where its rows do not show it."""
    width = len(table.header.names)
    begin = 2 if width > 2 and _is_clock(table.sample(1)) else 1
    if width == begin + 1:
        return begin
    if width >= begin + 4 and _is_candle([table.sample(begin + i) for i in range(4)]):
        return begin + 3
    raise SeriesError(
        f"{label}: no header, and its {width} columns are not a time with open, high, low and close: "
        "--price-column and --time-column say which they are, counted from 1"
    )


def time_column(table: Table, rows: Rows, given: int | None, now: np.datetime64, label: str) -> TimeColumn:
    """The column of times: of several that hold times, the one that tells most rows apart.

    Raises SeriesError when there is none; CellRefusedError, whose row counts ``rows``, for a bad cell of the
    only one.
    """
    header, clock = table.header, None if given is not None else _clock_beside(table)
    candidates = [given] if given is not None else _time_candidates(table, clock, label)
    read: list[TimeColumn] = []
    refusals: list[CellRefusedError] = []
    for position in candidates:
        name = header.names[position] if header.named else f"column {position + 1}"
        try:
            times = _times(table, position, clock, rows, now)
            read.append(TimeColumn(name=name or "index", times=times))
        except CellRefusedError as error:
            refusals.append(CellRefusedError(error.row, f"{name or 'index'} {error}"))
    if not read:
        raise refusals[0]
    if len(read) == 1:
        return read[0]
    told_apart = [np.unique(column.times.stamps).size for column in read]
    finest, *others = [
        column for column, count in zip(read, told_apart, strict=True) if count == max(told_apart)
    ]
    for other in others:
        if np.any(np.abs(other.times.stamps - finest.times.stamps) > _SAME_BAR):
            raise SeriesError(
                f"{label}: columns {finest.name!r} and {other.name!r} hold different times: --time-column decides"
            )
    return finest


def _times(table: Table, position: int, clock: int | None, rows: Rows, now: np.datetime64) -> Times:
    """The times of a column, with the hours of the column ``clock`` where its own are dates alone."""
    cells = cells_at(table, position, rows)
    times = read_times(cells, now)
    if clock is not None and _is_midnight(times):
        texts = pc.binary_join_element_wise(texts_of(cells), texts_of(cells_at(table, clock, rows)), " ")
        times = read_times(texts, now)
    return times


def _is_midnight(times: Times) -> bool:
    stamps = times.stamps[~np.isnat(times.stamps)]
    return bool(np.all(stamps == stamps.astype("datetime64[D]")))


def _time_candidates(table: Table, clock: int | None, label: str) -> list[int]:
    header = table.header
    if not header.named:
        return [0]
    plain = [names.plain(name) for name in header.names]
    found = [at for name in names.TIMES for at, known in enumerate(plain) if known == name]
    if header.index is not None and header.index not in found:
        found.append(header.index)
    found = [at for at in found if at != clock] or _columns_of_times(table)
    if not found:
        raise SeriesError(
            f"{label}: no column of times by a name we know, such as date: --time-column says which "
            f"({said_of(header)})"
        )
    return found


def _columns_of_times(table: Table) -> list[int]:
    """The only column whose cells are written as times, whatever its name."""
    found = []
    for position in range(len(table.header.names)):
        sample = table.sample(position)
        kind = None if sample else table.columns([position])[0].type
        timed = kind is not None and (pa.types.is_timestamp(kind) or pa.types.is_date(kind))
        if timed or (sample and all(looks_like_time(cell) for cell in sample)):
            found.append(position)
    return found if len(found) == 1 else []


def _clock_beside(table: Table) -> int | None:
    """The position of a column of hours and minutes that belongs to a column of dates."""
    header = table.header
    at = (
        1
        if not header.named
        else next((i for i, n in enumerate(header.names) if names.plain(n) == "time"), None)
    )
    if at is None or at >= len(header.names):
        return None
    return at if _is_clock(table.sample(at)) else None


def _is_clock(sample: Sequence[str]) -> bool:
    return bool(sample) and all(names.CLOCK.fullmatch(cell) for cell in sample)


def _is_candle(samples: Sequence[Sequence[str]]) -> bool:
    """Whether four columns are open, high, low and close in every row."""
    try:
        opens, highs, lows, closes = (
            read_numbers(
                pa.chunked_array([sample], pa.string()), decimal=None, points_only=True, beside=lambda: ()
            ).values
            for sample in samples
        )
        return bool(np.all((highs >= np.maximum(opens, closes)) & (lows <= np.minimum(opens, closes))))
    except ValueError:  # no numbers, or cells missing
        return False


def likely_columns(table: Table, options: PriceOptions, label: str) -> list[int]:
    """The columns that are read nearly always, so that one pass over the file may do. Raises SeriesError."""
    header = table.header
    if not header.named:
        clock = [1] if len(header.names) > 1 and _is_clock(table.sample(1)) else []
        return [0, *clock, *([] if options.price_column else [headerless_price(table, label)])]
    plain = [names.plain(name) for name in header.names]
    wanted = (names.ADJUSTED, names.CLOSE)
    return [
        at
        for at, name in enumerate(plain)
        if name in names.TIMES or name in names.SYMBOLS or any(pattern.fullmatch(name) for pattern in wanted)
    ]


def _bare(text: str) -> str:
    return "".join(letter for letter in text.upper() if letter.isalnum())
