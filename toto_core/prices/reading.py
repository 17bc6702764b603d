"""Reads the bytes of one price file into the prices of a symbol, oldest first, with what is to be said of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toto_core.prices import names
from toto_core.prices.choice import (
    Rows,
    cells_at,
    headerless_price,
    likely_columns,
    named_column,
    price_columns,
    rows_of,
    time_column,
)
from toto_core.prices.content import as_utf8, is_parquet, unpacked
from toto_core.prices.formats import Stamps
from toto_core.prices.numbers import Numbers, read_numbers
from toto_core.prices.options import AS_THEY_LIE, CellRefusedError, PriceOptions, SeriesError
from toto_core.prices.parquet import ParquetTable
from toto_core.prices.repair import DifferingPricesError, count, in_time_order
from toto_core.prices.stamps import in_seconds
from toto_core.prices.table import Column, Table, texts_of
from toto_core.prices.text import TextTable
from toto_core.prices.zones import in_utc
from toto_core.symbols import quoted

MOST_MISSING = 0.05
"""Share of the rows whose price may be missing; beyond it the file holds something else than prices."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prices:
    """``stamps`` datetime64[ns] UTC, strictly increasing, and ``close`` float64, both `(time,)`; and the notes."""

    stamps: Stamps
    close: npt.NDArray[np.float64]
    notes: tuple[str, ...]


def read_prices(
    content: bytes,
    symbol: str,
    label: str,
    options: PriceOptions = AS_THEY_LIE,
    *,
    now: np.datetime64 | None = None,
) -> Prices:
    """The prices of ``symbol`` in a file whose bytes are ``content``; ``label`` names it in messages.

    ``now`` is UTC, the clock's unless given: no price is later. Raises SeriesError, one line that names file,
    row and reason, for a file that holds no clear series.
    """
    content = unpacked(content, label)
    table: Table = (
        ParquetTable(content, label) if is_parquet(content) else TextTable(as_utf8(content, label), label)
    )
    table.columns(likely_columns(table, options, label))
    rows, notes = rows_of(table, symbol, label)
    reader = _Reader(table=table, symbol=symbol, label=label, options=options, rows=rows)
    name, numbers, chosen = reader.prices()
    time_name, stamps = reader.times(np.datetime64("now", "ns") if now is None else now)
    kept, left_out = reader.kept(name, numbers, time_name, stamps)
    reader.refuse_unsound(name, numbers.values, kept)
    try:
        ordered, close, repairs = in_time_order(stamps[kept], numbers.values[kept])
    except DifferingPricesError as error:
        raise reader.twice(stamps, kept, error) from None
    return Prices(stamps=ordered, close=close, notes=(*table.notes, *notes, *chosen, *left_out, *repairs))


@dataclass(frozen=True, kw_only=True)
class _Reader:
    """One file with the rows of one symbol. Methods raise SeriesError."""

    table: Table
    symbol: str
    label: str
    options: PriceOptions
    rows: Rows

    def prices(self) -> tuple[str, Numbers, tuple[str, ...]]:
        """The name of the column of prices, its numbers, and what is to be said of the choice."""
        header = self.table.header
        if self.options.price_column is not None:
            return self._numbers(
                named_column(header, self.options.price_column, "--price-column", self.label)
            )
        if not header.named:
            return self._numbers(headerless_price(self.table, self.label))
        first, *others = price_columns(header, self.symbol, self.label)
        name, numbers, _ = self._numbers(first)
        if not others:
            return name, numbers, ()
        if numbers.missing.all():
            close = header.names[others[0]]
            return *self._numbers(others[0])[:2], (f"column {name!r} is blank throughout: {close!r} used",)
        return name, numbers, (f"column {name!r} used rather than {header.names[others[0]]!r}",)

    def times(self, now: np.datetime64) -> tuple[str, Stamps]:
        """The name of the column of times and its stamps in UTC, NaT for a blank cell."""
        given = self.options.time_column
        position = (
            None if given is None else named_column(self.table.header, given, "--time-column", self.label)
        )
        try:
            chosen = time_column(self.table, self.rows, position, now, self.label)
        except CellRefusedError as error:
            raise self._at(error.row, str(error)) from error
        if not chosen.times.local or self.options.timezone is None:
            return chosen.name, chosen.times.stamps
        try:
            return chosen.name, in_utc(chosen.times.stamps, self.options.timezone)
        except CellRefusedError as error:
            raise self._at(error.row, f"{chosen.name} {error}") from error

    def kept(
        self, name: str, numbers: Numbers, time_name: str, stamps: Stamps
    ) -> tuple[npt.NDArray[np.bool_], tuple[str, ...]]:
        """Which rows hold a time and a price, and what is to be said of the others."""
        timeless = np.isnat(stamps)
        odd = np.flatnonzero(timeless & ~numbers.missing)
        if odd.size:
            raise self._at(int(odd[0]), f"{time_name} is blank")
        blank = int(np.count_nonzero(timeless))
        without = int(np.count_nonzero(numbers.missing & ~timeless))
        rows = stamps.size - blank
        if not rows:
            raise SeriesError(f"{self.label}: empty: there is no row of prices")
        if without > MOST_MISSING * rows:
            first = int(np.flatnonzero(numbers.missing & ~timeless)[0])
            raise self._at(
                first,
                f"{name} {numbers.why_missing(first)}, as in {without} of {rows} rows ({without / rows:.0%}, and at "
                f"most {MOST_MISSING:.0%} may lack one): --price-column names another column",
            )
        said = [f"{count(blank, 'blank row')} left out"] if blank else []
        said += [f"{count(without, 'row')} without {name} left out"] if without else []
        return ~numbers.missing & ~timeless, tuple(said)

    def refuse_unsound(self, name: str, values: npt.NDArray[np.float64], kept: npt.NDArray[np.bool_]) -> None:
        """Raise SeriesError for a price of zero or below, unless such prices are allowed."""
        if self.options.allow_negative:
            return
        low = np.flatnonzero(kept & (values <= 0))
        if low.size:
            row, header = int(low[0]), self.table.header
            other = next(
                (n for n in header.names if names.CLOSE.fullmatch(names.plain(n)) and n != name), None
            )
            instead = f"--price-column {quoted(other)} reads another column, " if other else ""
            reason = f"{name} {float(values[row])!r} is not above zero: {instead}--allow-negative allows it"
            raise self._at(row, reason)

    def twice(self, stamps: Stamps, kept: npt.NDArray[np.bool_], error: DifferingPricesError) -> SeriesError:
        """The refusal of two prices of one time."""
        first, second = np.flatnonzero(kept & (stamps == error.stamp))[:2]
        return self._at(
            int(second),
            f"{in_seconds(error.stamp)}Z is there twice with different prices (first in {self._place(int(first))}): "
            "--time-column names a finer column, --timezone the zone of local times across a clock change",
        )

    def _numbers(self, position: int) -> tuple[str, Numbers, tuple[str, ...]]:
        header = self.table.header
        name = header.names[position] if header.named else f"column {position + 1}"
        try:
            numbers = read_numbers(
                cells_at(self.table, position, self.rows),
                decimal=self.options.decimal,
                points_only=header.points_only,
                beside=self._beside,
            )
        except CellRefusedError as error:
            raise self._at(error.row, f"{name} {error}") from error
        return name, numbers, ()

    def _beside(self) -> Iterator[Column]:
        header = self.table.header
        for position, name in enumerate(header.names):
            if header.named and names.BESIDE_CLOSE.fullmatch(names.plain(name)):
                yield texts_of(cells_at(self.table, position, self.rows))

    def _place(self, row: int) -> str:
        return self.table.place(row if self.rows is None else int(self.rows[row]))

    def _at(self, row: int, reason: str) -> SeriesError:
        return SeriesError(f"{self._place(row)}: {reason}")
