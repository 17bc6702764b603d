"""Reads the bytes of one price file into validated stamps and prices, in the file's own order."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator

import numpy as np

from toto_core.prices.cells import parse_prices, parse_stamps, price_refusal, stamp_refusal
from toto_core.prices.columns import PriceTable, SeriesError, choose_columns

SUFFIXES = (".csv", ".csv.gz", ".parquet")


def file_suffix(name: str) -> str | None:
    """Return which of `SUFFIXES` the file name ends with, in any case, or None."""
    lower = name.lower()
    return next((suffix for suffix in SUFFIXES if lower.endswith(suffix)), None)


def read_columns(content: bytes, suffix: str, label: str) -> PriceTable:
    """Return the rows of a price file whose bytes are `content` and whose kind is one of `SUFFIXES`.

    Every stamp in it is a time and every price is above zero. `label` names the file in messages. Raises
    SeriesError for a file that cannot be decoded, has no rows, no time or close column, the same such column
    twice, or a cell that is not a time or a price above zero.
    """
    if suffix == ".parquet":
        from toto_core.prices.parquet import parquet_table  # pyarrow takes long to import

        table = parquet_table(content, label)
    else:
        table = _csv_table(content, suffix, label)
    if not table.stamps.size:
        raise SeriesError(f"{label}: empty: there is no row of prices")
    bad_stamps = np.flatnonzero(np.isnat(table.stamps))
    if bad_stamps.size:
        i = int(bad_stamps[0])
        raise SeriesError(f"{table.place(i)}: {table.columns.time} {stamp_refusal(table.stamp_cell(i))}")
    bad_prices = np.flatnonzero(~(np.isfinite(table.prices) & (table.prices > 0)))
    if bad_prices.size:
        i = int(bad_prices[0])
        raise SeriesError(f"{table.place(i)}: {table.columns.close} {price_refusal(table.price_cell(i))}")
    return table


def _csv_table(content: bytes, suffix: str, label: str) -> PriceTable:
    records = _csv_records(_csv_text(content, suffix, label), label)
    _, header = next(records, (0, None))
    if header is None:
        raise SeriesError(f"{label}: the file is empty")
    chosen = choose_columns(header, label)
    lines: list[int] = []
    stamp_cells: list[str] = []
    price_cells: list[str] = []
    for line, record in records:
        if len(record) != len(header):
            raise SeriesError(
                f"{label}, line {line}: the header has {len(header)} fields, this line {len(record)}"
            )
        lines.append(line)
        stamp_cells.append(record[chosen.time_index].strip())
        price_cells.append(record[chosen.close_index].strip())
    return PriceTable(
        stamps=parse_stamps(stamp_cells),
        prices=parse_prices(price_cells),
        stamp_cell=stamp_cells.__getitem__,
        price_cell=price_cells.__getitem__,
        place=lambda i: f"{label}, line {lines[i]}",
        columns=chosen,
    )


def _csv_text(content: bytes, suffix: str, label: str) -> str:
    if suffix == ".csv.gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise SeriesError(f"{label}: not a sound gzip file ({error})") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SeriesError(f"{label}, line {line}: not UTF-8 text: save the file as UTF-8") from error


def _csv_records(text: str, label: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each record that is not blank with the line of the file it begins on."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines_before = 0
    try:
        for record in reader:
            if len(record) > 1 or (record and record[0].strip()):
                yield lines_before + 1, record
            lines_before = reader.line_num
    except csv.Error as error:
        raise SeriesError(f"{label}, line {lines_before + 1}: not well-formed CSV ({error})") from error
