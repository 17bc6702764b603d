"""Turns the cells of a price column into float64, to the last bit of what the file says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from toto_core.prices.options import CellRefusedError
from toto_core.prices.table import Column, filled, is_text, texts_of, values_of
from toto_core.symbols import quoted

MISSING = ("", "null", "none", "nan", "n/a", "na", "#n/a", "-", "--", "nil", "<na>")
_DECIDING_SAMPLE = 1_000

_EXPONENT = r"(?:[eE][+-]?[0-9]+)?$"
# Groups of two are Indian: 1,00,000.00 is a hundred thousand.
_WHOLE = r"(?:[0-9]+|[1-9][0-9]{0,2}(?:%s[0-9]{2,3})*%s[0-9]{3}|[1-9][0-9]{0,2}(?: [0-9]{3})+)"
_POINT = r"^[+-]?(?:" + _WHOLE % (",", ",") + r"(?:\.[0-9]*)?|\.[0-9]+)" + _EXPONENT
_COMMA = r"^[+-]?(?:" + _WHOLE % (r"\.", r"\.") + r"(?:,[0-9]*)?|,[0-9]+)" + _EXPONENT
_GRAMMARS = {".": _POINT, ",": _COMMA}
_GROUPED_BY_POINTS = r"^[+-]?(?:[0-9]+|[1-9][0-9]{0,2}(?:\.[0-9]{3})+)$"
_CURRENCY_BEFORE = r"^([+-]?)(?:US|C|A|NZ|HK|S|R)?[$€£¥₹₩₽₿]\s*([+-]?)"
_CURRENCY_AFTER = r"\s*(?:[$€£¥₹₩₽₿]|USDT?|EUR|GBP|JPY|CHF)$"
_GROUPING_BLANKS = r"[\x{a0}\x{202f}\x{2009}'\x{2019}]"
_INFINITE = r"(?i)^[+-]?inf(?:inity)?$"


@dataclass(frozen=True, kw_only=True, eq=False)
class Numbers:
    """``values`` float64 `(row,)`, NaN where ``missing`` `(row,)` says that there is none; ``cells`` they came of."""

    values: npt.NDArray[np.float64]
    missing: npt.NDArray[np.bool_]
    cells: Column

    def why_missing(self, row: int) -> str:
        """``is blank``, or what stands there instead of a number."""
        text = texts_of(self.cells.slice(row, 1))[0].as_py().strip()
        return f"{quoted(text)} is no price" if text else "is blank"


def read_numbers(
    cells: Column, *, decimal: str | None, points_only: bool, beside: Callable[[], Iterable[Column]]
) -> Numbers:
    """The numbers in ``cells``; text may hold currency signs, marks of thousands and either decimal mark.

    ``decimal`` is the decimal mark, None where the cells are to show it. ``points_only`` says that a lone point
    can only be one, as in a file whose separator is a comma. Where all cells can be read both ways, the columns
    ``beside`` this one are asked. Raises CellRefusedError for a cell that is no finite number, and for a mark
    that stays unclear.
    """
    if not is_text(cells.type):
        return _typed(cells)
    values = _cast(cells)
    if values is not None and (decimal == "." or (decimal is None and (points_only or _has_decimals(cells)))):
        missing = np.isnan(values)
        if not missing.any():
            return _finite(Numbers(values=values, missing=missing, cells=cells))
    texts = _cleaned(cells)
    missing = values_of(pc.is_null(texts))
    mark = decimal or _mark(texts, points_only, beside)
    return _finite(Numbers(values=_parsed(texts, mark), missing=missing, cells=cells))


def _typed(cells: Column) -> Numbers:
    kind = cells.type
    if pa.types.is_decimal(kind):  # through text, so that 100.0012 is the same float64 as in a CSV file
        cells = cells.cast(pa.string()).cast(pa.float64())
    elif pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind):
        cells = cells.cast(pa.float64(), safe=False)
    else:
        raise CellRefusedError(0, f"holds {kind}, not numbers")
    values = values_of(filled(cells, np.nan))
    return _finite(Numbers(values=values, missing=np.isnan(values), cells=cells))


def _cast(cells: Column) -> npt.NDArray[np.float64] | None:
    """All cells as they are, None where one is not a plain number."""
    try:
        values: npt.NDArray[np.float64] = values_of(filled(pc.cast(cells, pa.float64()), np.nan))
    except pa.ArrowInvalid:
        return None
    return values


def _has_decimals(cells: Column) -> bool:
    """Whether a cell, read as it is, can be no whole number whose thousands are marked by points."""
    for some in (cells.slice(0, _DECIDING_SAMPLE), cells):
        if pc.all(pc.match_substring_regex(some, _GROUPED_BY_POINTS)).as_py() is False:
            return True
    return False


def _cleaned(cells: Column) -> Column:
    """Trimmed cells without currency signs, with ordinary blanks and minus signs; null where one is missing."""
    texts = pc.utf8_trim_whitespace(cells)
    for pattern, instead in ((_GROUPING_BLANKS, " "), (r"^\x{2212}", "-")):
        texts = pc.replace_substring_regex(texts, pattern, instead)
    texts = pc.replace_substring_regex(texts, _CURRENCY_BEFORE, r"\1\2")
    texts = pc.replace_substring_regex(texts, _CURRENCY_AFTER, "")
    absent = pc.is_in(pc.utf8_lower(texts), value_set=pa.array(MISSING))
    return pc.if_else(absent, pa.scalar(None, pa.string()), texts)


def _mark(texts: Column, points_only: bool, beside: Callable[[], Iterable[Column]]) -> str:
    """The decimal mark under which every cell is a number. Raises CellRefusedError where that is not clear."""
    fits = {mark: pc.match_substring_regex(texts, grammar) for mark, grammar in _GRAMMARS.items()}
    whole = {mark: bool(pc.all(found).as_py() is not False) for mark, found in fits.items()}
    if not any(whole.values()):
        counts = {mark: pc.sum(found).as_py() or 0 for mark, found in fits.items()}
        _refuse_first(texts, fits[max(counts, key=lambda mark: counts[mark])])
    if not all(whole.values()):
        return next(mark for mark, all_fit in whole.items() if all_fit)
    for mark in _GRAMMARS:
        if not pc.any(pc.match_substring(texts, mark)).as_py():
            continue
        if mark == "." and points_only:
            return "."
        return _decided_beside(texts, mark, beside)
    return "."


def _decided_beside(texts: Column, mark: str, beside: Callable[[], Iterable[Column]]) -> str:
    """The decimal mark that another column of prices shows. Raises CellRefusedError where none does."""
    for column in beside():
        other = _cleaned(texts_of(column))
        fits = [
            name
            for name, grammar in _GRAMMARS.items()
            if pc.all(pc.match_substring_regex(other, grammar)).as_py()
        ]
        if len(fits) == 1:
            return fits[0]
    row = pc.index(pc.match_substring(texts, mark), pa.scalar(True)).as_py()
    cell = texts[row].as_py()
    whole = cell.replace(mark, "")
    raise CellRefusedError(
        row, f"{quoted(cell)} is {whole} or {cell.replace(mark, '.', 1)}: --decimal . or --decimal , decides"
    )


def _parsed(texts: Column, mark: str) -> npt.NDArray[np.float64]:
    fits = pc.match_substring_regex(texts, _GRAMMARS[mark])
    if pc.all(fits).as_py() is False:
        _refuse_first(texts, fits)
    group = "," if mark == "." else r"\."
    plain = pc.replace_substring_regex(texts, f"[ {group}]", "")
    if mark == ",":
        plain = pc.replace_substring(plain, ",", ".")
    values: npt.NDArray[np.float64] = values_of(filled(pc.cast(plain, pa.float64()), np.nan))
    return values


def _refuse_first(texts: Column, fits: Column) -> None:
    row = pc.index(fits, pa.scalar(False)).as_py()
    cell = texts[row].as_py()
    infinite = pc.match_substring_regex(pa.array([cell]), _INFINITE)[0].as_py()
    raise CellRefusedError(row, f"{quoted(cell)} is not {'finite' if infinite else 'a number'}")


def _finite(numbers: Numbers) -> Numbers:
    """``numbers``. Raises CellRefusedError for one that is infinite."""
    infinite = np.flatnonzero(np.isinf(numbers.values))
    if infinite.size:
        row = int(infinite[0])
        cell = texts_of(numbers.cells.slice(row, 1))[0].as_py().strip()
        named = pc.match_substring_regex(pa.array([cell]), _INFINITE)[0].as_py()
        raise CellRefusedError(row, f"{quoted(cell)} is {'not finite' if named else 'too large'}")
    return numbers
