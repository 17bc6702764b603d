"""The rows of a price file, a column at a time, whether it is text or Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Column = Any
"""A ``pyarrow.ChunkedArray``, which has no types of its own."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What is known of the columns before their cells are read.

    ``names`` as they stand in the file, or positions from "1" where the file has none (``named`` is False).
    ``symbols`` has one entry a column in files with a second row of headers, "" for none. ``index`` is the
    position of a nameless index. ``separator`` is that of text, None for Parquet.
    """

    names: tuple[str, ...]
    named: bool = True
    symbols: tuple[str, ...] = ()
    index: int | None = None
    separator: str | None = None
    points_only: bool = False

    def __post_init__(self) -> None:
        # Names go into messages of one line.
        printable = tuple("".join(c if c.isprintable() else "?" for c in name) for name in self.names)
        object.__setattr__(self, "names", printable)


class Table(Protocol):
    """A file whose cells are read when they are asked for; ``place`` names a row, counted from 0, for people."""

    header: Header
    notes: tuple[str, ...]

    def columns(self, positions: Sequence[int]) -> list[Column]:
        """The cells of the columns at ``positions``, `(row,)`."""

    def sample(self, position: int) -> list[str]:
        """The first cells of a column of text that are not blank."""

    def place(self, row: int) -> str:
        """File and line or row, for people."""


def is_text(kind: Any) -> bool:
    """Whether an arrow type holds text."""
    return bool(pa.types.is_string(kind))


def texts_of(column: Column) -> Column:
    """The cells as text; a missing one is empty."""
    return filled(column.cast(pa.string()), "")


def values_of(column: Column) -> npt.NDArray[Any]:
    """The cells of a column of numbers or truths without gaps as an array, read-only."""
    # By the array exchange protocol: pyarrow's own to_numpy imports pandas, which takes longer than most files.
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_boolean(whole.type):
        return np.from_dlpack(whole.cast(pa.uint8())).view(np.bool_)
    return np.from_dlpack(whole)


def filled(column: Column, value: object) -> Column:
    """The cells, a missing one as ``value``."""
    # Only where it must be: pyarrow imports pandas to look at a value of Python.
    return column.fill_null(value) if column.null_count else column
