"""Reads the bytes of one price file into validated stamps and prices, in the file's own order."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from toto_core.series_cells import (
    NANOSECONDS,
    parse_prices,
    parse_stamps,
    price_refusal,
    stamp_refusal,
    stamps_from_counts,
)
from toto_core.series_columns import ChosenColumns, SeriesError, choose_columns
from toto_core.symbols import quoted

SUFFIXES = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True, kw_only=True)
class PriceColumns:
    """The rows of one file: `stamps` datetime64[ns] UTC and finite `prices` above zero, both `(time,)`."""

    stamps: npt.NDArray[np.datetime64]
    prices: npt.NDArray[np.float64]
    notices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Table:
    stamps: npt.NDArray[np.datetime64]  # NaT where the cell is refused
    prices: npt.NDArray[np.float64]  # not finite and above zero where the cell is refused
    stamp_cell: Callable[[int], str]
    price_cell: Callable[[int], str]
    place: Callable[[int], str]
    columns: ChosenColumns


def file_suffix(name: str) -> str | None:
    """Return which of `SUFFIXES` the file name ends with, in any case, or None."""
    lower = name.lower()
    return next((suffix for suffix in SUFFIXES if lower.endswith(suffix)), None)


def read_columns(content: bytes, suffix: str, label: str) -> PriceColumns:
    """Return the rows of a price file whose bytes are `content` and whose kind is one of `SUFFIXES`.

    `label` names the file in messages. Raises SeriesError for a file that cannot be decoded, has no rows,
    no time or close column, the same such column twice, or a cell that is not a time or a price above zero.
    """
    table = _parquet_table(content, label) if suffix == ".parquet" else _csv_table(content, suffix, label)
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
    return PriceColumns(stamps=table.stamps, prices=table.prices, notices=table.columns.notices)


def _csv_table(content: bytes, suffix: str, label: str) -> _Table:
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
    return _Table(
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


def _parquet_table(content: bytes, label: str) -> _Table:
    try:
        table = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True).read()
        header = [str(name) for name in table.column_names]
        index_columns = (table.schema.pandas_metadata or {}).get("index_columns", [])
    except Exception as error:  # a damaged file makes the decoder raise nearly any type
        reason = (str(error).splitlines() or [""])[0]
        raise SeriesError(f"{label}: not a sound parquet file ({quoted(reason)})") from error
    chosen = choose_columns(header, label, index=_time_index_column(table, header, index_columns))
    try:
        stamp_column = _plain(table.column(chosen.time_index))
        price_column = _plain(table.column(chosen.close_index))
        return _Table(
            stamps=_parquet_stamps(stamp_column),
            prices=_parquet_prices(price_column),
            stamp_cell=lambda i: _cell_text(stamp_column[i]),
            price_cell=lambda i: _cell_text(price_column[i]),
            place=lambda i: f"{label}, row {i + 1}",
            columns=chosen,
        )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        types = ", ".join(str(table.schema.field(i).type) for i in (chosen.time_index, chosen.close_index))
        raise SeriesError(
            f"{label}: {chosen.time!r} and {chosen.close!r} hold {quoted(types)}, not times and numbers"
        ) from error


def _time_index_column(table: Any, header: list[str], index_columns: Any) -> int | None:
    """Return the column that holds the single index pandas stored, unless it cannot be a time."""
    if not isinstance(index_columns, list) or len(index_columns) != 1 or index_columns[0] not in header:
        return None
    position = header.index(index_columns[0])
    kind = table.schema.field(position).type
    is_time = pa.types.is_temporal(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return position if is_time else None


def _plain(column: Any) -> Any:
    """Return the column without a dictionary, a date as its midnight, a zoned stamp as its UTC instant."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_date(column.type):
        return column.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.int64()).cast(pa.timestamp(column.type.unit))
    return column


def _cell_text(scalar: Any) -> str:
    return str(scalar.cast(pa.string()).as_py() or "").strip()


def _cell_texts(column: Any) -> list[str]:
    return [(cell or "").strip() for cell in column.cast(pa.string()).to_pylist()]


def _parquet_stamps(column: Any) -> npt.NDArray[np.datetime64]:
    if pa.types.is_floating(column.type):
        raise pa.ArrowTypeError("a float may have lost the seconds of its stamp")
    if not pa.types.is_timestamp(column.type):
        return parse_stamps(_cell_texts(column))
    counts = column.cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy()
    return stamps_from_counts(counts, NANOSECONDS[column.type.unit])


def _parquet_prices(column: Any) -> npt.NDArray[np.float64]:
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        prices: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()
        return prices
    return parse_prices(_cell_texts(column))
