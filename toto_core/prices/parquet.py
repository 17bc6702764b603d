"""Reads Parquet, column by column."""

from __future__ import annotations

import ast
import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from toto_core.prices.names import is_known
from toto_core.prices.options import SeriesError
from toto_core.prices.table import Column, Header, is_text, texts_of
from toto_core.symbols import quoted

_SAMPLE_ROWS = 60
_NAMELESS = "__index_level_"

MOST_ROWS = 200_000_000
"""A file of a few kilobytes can unpack to more rows than there is memory for."""


class ParquetTable:
    """A Parquet file as a ``Table``; ``label`` names it in messages. Raises SeriesError for a damaged one."""

    notes: tuple[str, ...] = ()

    def __init__(self, content: bytes, label: str) -> None:
        self._label = label
        try:
            self._file = pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True)
            names = [str(name) for name in self._file.schema_arrow.names]
            index = (self._file.schema_arrow.pandas_metadata or {}).get("index_columns", [])
        except Exception as error:  # a damaged file makes the decoder raise nearly any type
            raise self._damaged(error) from error
        rows = self._file.metadata.num_rows
        if rows > MOST_ROWS:
            raise SeriesError(f"{label}: says it holds {rows} rows, and at most {MOST_ROWS} are read")
        self._table: Any = None
        fields, symbols = _split(names)
        self.header = Header(names=fields, symbols=symbols, index=_index(names, index), points_only=True)

    def columns(self, positions: Sequence[int]) -> list[Column]:
        """The cells of the columns at ``positions``, of whatever type they have, `(row,)`."""
        try:
            self._table = self._table or self._file.read()
            return [_plain(self._table.column(position)) for position in positions]
        except Exception as error:
            raise self._damaged(error) from error

    def sample(self, position: int) -> list[str]:
        """The first cells of a column of text that are not blank; empty for other columns."""
        (column,) = self.columns([position])
        if not is_text(column.type):
            return []
        return [
            text for cell in texts_of(column.slice(0, _SAMPLE_ROWS)).to_pylist() if (text := cell.strip())
        ]

    def place(self, row: int) -> str:
        """``prices.parquet, row 7``."""
        return f"{self._label}, row {row + 1}"

    def _damaged(self, error: Exception) -> SeriesError:
        reason = (str(error).splitlines() or [""])[0]
        return SeriesError(f"{self._label}: not a sound parquet file ({quoted(reason)})")


def _plain(column: Column) -> Column:
    """The column without a dictionary, text as the one kind of it; bytes that are no text raise ``ArrowInvalid``."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    column.validate(full=True)
    return column


def _index(names: list[str], index_columns: Any) -> int | None:
    """The position of the single index that pandas stored, None for none that may be a time."""
    if not isinstance(index_columns, list) or len(index_columns) != 1 or index_columns[0] not in names:
        return None
    return names.index(index_columns[0])


def _split(names: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Fields and symbols of names such as ``('Close', 'AMD')``, as pandas writes two rows of headers."""
    pairs = [_pair(name) for name in names]
    if not any(symbol for _, symbol in pairs):
        return tuple("" if name.startswith(_NAMELESS) else name for name in names), ()
    return tuple(field for field, _ in pairs), tuple(symbol for _, symbol in pairs)


def _pair(name: str) -> tuple[str, str]:
    if not name.startswith("("):
        return name, ""
    try:
        first, second = ast.literal_eval(name)
    except Exception:  # a name may nest deeper than Python parses
        return name, ""
    first, second = str(first), str(second)
    return (second, first) if is_known(second) and not is_known(first) else (first, second)
