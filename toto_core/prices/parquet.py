"""Reads a parquet file of prices; the only module that imports pyarrow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from toto_core.prices.cells import NANOSECONDS, parse_prices, parse_stamps, stamps_from_counts
from toto_core.prices.columns import PriceTable, SeriesError, choose_columns
from toto_core.symbols import quoted


def parquet_table(content: bytes, label: str) -> PriceTable:
    """The table of the parquet file whose bytes are ``content``; ``label`` names it in messages.

    Raises SeriesError for a damaged file and for columns that hold neither times nor numbers.
    """
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
        return PriceTable(
            stamps=_stamps(stamp_column),
            prices=_prices(price_column),
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


def _stamps(column: Any) -> npt.NDArray[np.datetime64]:
    if pa.types.is_floating(column.type):
        raise pa.ArrowTypeError("a float may have lost the seconds of its stamp")
    if not pa.types.is_timestamp(column.type):
        return parse_stamps(_cell_texts(column))
    counts = column.cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy()
    return stamps_from_counts(counts, NANOSECONDS[column.type.unit])


def _prices(column: Any) -> npt.NDArray[np.float64]:
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        prices: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy()
        return prices
    return parse_prices(_cell_texts(column))
