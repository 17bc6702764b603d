"""Tables of thousands of rows, printed at once: laying one out as a short one is takes half a millisecond a row."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterator, Sequence

Row = Sequence[str]

LONG = 500
"""Rows from which a table is a long one."""
_GAP, _NARROWEST = 3, 12


def long_lines(names: Row, rows: Sequence[Row], *, width: int, line: str = "─") -> Iterator[str]:
    """The lines of a table: as wide as its cells where that fits into ``width``, else the widest are folded."""
    widths = _fitted([max(map(len, column)) for column in zip(names, *rows, strict=True)], width)
    yield ""
    yield from _lines(names, widths)
    yield f" {line * (sum(widths) + _GAP * (len(widths) - 1))}"
    for row in rows:
        yield from _lines(row, widths)
    yield ""


def _fitted(natural: list[int], width: int) -> list[int]:
    """Widths of the columns, taken from the widest until all fit, if they can."""
    room = width - _GAP * (len(natural) - 1) - 2
    widths = list(natural)
    while sum(widths) > room and max(widths) > _NARROWEST:
        widest = max(range(len(widths)), key=lambda place: widths[place])
        second = max((each for each in widths if each < widths[widest]), default=_NARROWEST)
        over = sum(widths) - room
        widths[widest] = max(_NARROWEST, min(second, widths[widest] - 1), widths[widest] - over)
    return widths


def _lines(cells: Row, widths: Sequence[int]) -> Iterator[str]:
    if all(len(cell) <= width for cell, width in zip(cells, widths, strict=True)):
        yield _line(cells, widths)
        return
    folded = [_folded(cell, width) for cell, width in zip(cells, widths, strict=True)]
    for place in range(max(map(len, folded))):
        yield _line([cell[place] if place < len(cell) else "" for cell in folded], widths)


def _line(cells: Row, widths: Sequence[int]) -> str:
    gap = " " * _GAP
    return f" {gap.join(map(str.ljust, cells, widths))}".rstrip()


@functools.lru_cache(maxsize=4096)
def _folded(text: str, width: int) -> tuple[str, ...]:
    return tuple(textwrap.wrap(text, width)) or ("",)
