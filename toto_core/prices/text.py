"""Reads text with separators, column by column: a header of one row, of two, or none."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from toto_core.prices.formats import looks_like_time
from toto_core.prices.names import is_known, plain
from toto_core.prices.options import SeriesError
from toto_core.prices.table import Column, Header
from toto_core.symbols import quoted

_SEPARATORS = (",", ";", "\t", "|")
_HEAD_BYTES = 1 << 16
_HEAD_ROWS = 60
_TAIL_BYTES = 4_096
_MOST_PREAMBLE = 20
_SEPARATOR_LINE = re.compile(r'^"?sep=(.)"?$', re.IGNORECASE)
_NOISE = re.compile(r"^\s*(?:#|//|https?://\S+$|%)")
_NUMBER = re.compile(r"[-+$€£]?[0-9][0-9.,' ]*%?")
_LINE_END = re.compile(r"\r\n|\n|\r")
_TRAILER = re.compile(r'^(?:#.*|"?[A-Za-z][^,;\t|]*)$')


class TextTable:
    """A file of text as a ``Table``. ``content`` is UTF-8; ``label`` names the file in messages.

    Raises SeriesError when no separator makes rows of it, and later for a row of another length.
    """

    def __init__(self, content: bytes, label: str) -> None:
        self._label = label
        self._content, self.notes = _without_noise(content)
        lines = _lines(self._content[:_HEAD_BYTES])
        given, skipped = _preamble(lines)
        rows = lines[skipped : skipped + _HEAD_ROWS]
        self._separator = given or _separator(rows)
        parsed = list(csv.reader(rows, delimiter=self._separator))
        if not parsed:
            raise SeriesError(f"{label}: empty: there is no row of prices")
        if not parsed[0]:
            raise SeriesError(
                f"{label}, line {skipped + 1}: is blank, as are those before it: no header is found"
            )
        self.header, headers = _header(parsed, self._separator)
        named, symbols = len(self.header.names), len(self.header.symbols)
        if symbols not in {0, named}:
            raise SeriesError(
                f"{label}, line {skipped + 2}: has {symbols} fields where the row above has {named}: both are headers"
            )
        self._first = skipped + headers
        self._head = parsed[headers:]
        self._read: dict[int, Column] = {}
        self._width = len(self.header.names)

    def columns(self, positions: Sequence[int]) -> list[Column]:
        """The cells of the columns at ``positions`` as text, `(row,)`."""
        wanted = [position for position in dict.fromkeys(positions) if position not in self._read]
        if wanted:
            self._read |= zip(wanted, self._columns(wanted), strict=True)
        return [self._read[position] for position in positions]

    def sample(self, position: int) -> list[str]:
        """The first cells of a column that are not blank."""
        return [cell for row in self._head if position < len(row) and (cell := row[position].strip())]

    def _columns(self, positions: Sequence[int]) -> list[Column]:
        names = [str(position) for position in range(self._width)]
        wanted = [names[position] for position in positions]
        types = dict.fromkeys(wanted, pa.string())
        try:
            table = pa_csv.read_csv(
                pa.py_buffer(self._content),
                read_options=pa_csv.ReadOptions(
                    column_names=names,
                    skip_rows=self._first,
                    use_threads=False,  # several take twice the memory, and are no faster on two cores
                ),
                parse_options=pa_csv.ParseOptions(
                    delimiter=self._separator, newlines_in_values=b'"' in self._content
                ),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=wanted, column_types=types, strings_can_be_null=False, check_utf8=False
                ),
            )
        except pa.ArrowInvalid as error:
            self._refuse_rows()
            reason = quoted(str(error).splitlines()[0])
            raise SeriesError(f"{self._label}: not well-formed text ({reason})") from error
        return [table.column(name) for name in wanted]

    def place(self, row: int) -> str:
        """``prices.csv, line 7``."""
        line, _ = next(islice(self._records(), row, None), (0, []))
        return f"{self._label}, line {line}"

    def _refuse_rows(self) -> None:
        """Raise SeriesError where there is no row at all, or one of another length."""
        number = 0
        for line, record in self._records():
            number += 1
            if len(record) != self._width:
                raise SeriesError(
                    f"{self._label}, line {line}: the header has {self._width} fields, this line {len(record)}"
                )
        if not number:
            raise SeriesError(f"{self._label}: empty: there is no row of prices")

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Each row that is not blank with the line of the file that it begins on."""
        text = io.StringIO(self._content.decode(errors="replace"), newline="")
        reader = csv.reader(text, delimiter=self._separator)
        for _ in islice(_physical(text), self._first):
            pass
        before = self._first
        try:
            for record in reader:
                if record:
                    yield before + 1, record
                before = self._first + reader.line_num
        except csv.Error as error:
            raise SeriesError(f"{self._label}, line {before + 1}: not well-formed CSV ({error})") from error


def _physical(text: io.StringIO) -> Iterator[str]:
    return iter(text.readline, "")


def _lines(content: bytes) -> list[str]:
    return _LINE_END.split(content.decode(errors="replace"))


def _without_noise(content: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The text without a last line that holds no row, such as a source's own name."""
    tail = content[-_TAIL_BYTES:].rstrip()
    begin = max(tail.rfind(b"\n"), tail.rfind(b"\r")) + 1
    last = tail[begin:].decode(errors="replace").strip()
    if begin and _TRAILER.match(last) and not is_known(last):
        end = max(len(content) - _TAIL_BYTES, 0) + begin
        return content[:end], (f"the last line, {quoted(last)}, holds no row: left out",)
    return content, ()


def _preamble(lines: list[str]) -> tuple[str | None, int]:
    """The separator that a ``sep=`` line names, and how many lines come before the header."""
    given = None
    for number, line in enumerate(lines[:_MOST_PREAMBLE]):
        named = _SEPARATOR_LINE.match(line.strip())
        if named:
            given = named.group(1)
        elif line.strip() and not _NOISE.match(line):
            return given, number
    return given, min(len(lines), _MOST_PREAMBLE)


def _separator(lines: list[str]) -> str:
    """The separator under which the rows are alike and their first cells known names or times."""

    def worth(separator: str) -> tuple[bool, int, float, int]:
        rows = [row for row in csv.reader(lines, delimiter=separator) if row]
        width = len(rows[0]) if rows else 0
        alike = sum(len(row) == width for row in rows) / max(len(rows), 1)
        known = sum(is_known(cell) or looks_like_time(cell) for row in rows[:3] for cell in row)
        return width > 1 and alike > 0.5, min(known, 2), alike, width

    return max(_SEPARATORS, key=worth)


def _header(rows: list[list[str]], separator: str) -> tuple[Header, int]:
    """What the first rows say of the columns, and how many rows they take."""
    first, *others = rows
    points_only = separator == "," or first[0].strip().startswith("<")
    if _is_data(first):
        names = tuple(str(number) for number in range(1, len(first) + 1))
        return Header(names=names, named=False, separator=separator, points_only=points_only), 0
    common: dict[str, Any] = {"separator": separator, "points_only": points_only}
    labels = _index_row(rows)
    if labels is not None or _second_row_is_a_header(rows):
        return _tall_header(rows, labels, common)
    named = _widened(first, others)
    index = 0 if not named[0].strip() or plain(named[0]).startswith("unnamed") else None
    return Header(names=tuple(named), index=index, **common), 1


def _is_data(row: list[str]) -> bool:
    return any(looks_like_time(cell) for cell in row) and not any(is_known(cell) for cell in row)


def _index_row(rows: list[list[str]]) -> int | None:
    """The number of the row that names the index alone, as pandas writes it under rows of headers."""
    for number, row in enumerate(rows[1:4], start=1):
        if len(row) > 1 and not any(cell.strip() for cell in row[1:]):
            return number if row[0].strip() and not looks_like_time(row[0]) else None
    return None


def _second_row_is_a_header(rows: list[list[str]]) -> bool:
    return (
        len(rows) > 1 and bool(rows[1]) and plain(rows[1][0]) in {"ticker", "symbols", "price", "attributes"}
    )


def _tall_header(rows: list[list[str]], labels: int | None, common: dict[str, Any]) -> tuple[Header, int]:
    """A header of several rows: fields, perhaps symbols, perhaps the index's own name."""
    index = "date" if labels is None else rows[labels][0]
    if labels == 1:
        return Header(names=(index, *rows[0][1:]), **common), 2
    fields, symbols = _fields_and_symbols(rows[0], rows[1])
    levels = 2 if labels is None else labels + 1
    return Header(names=(index, *fields[1:]), symbols=("", *symbols[1:]), **common), levels


def _fields_and_symbols(upper: list[str], lower: list[str]) -> tuple[list[str], list[str]]:
    """Which of two rows of headers names the fields (close, high), and which the symbols."""
    upper_known, lower_known = (sum(is_known(cell) for cell in row[1:]) for row in (upper, lower))
    return (lower, upper) if lower_known > upper_known else (upper, lower)


def _widened(names: list[str], rows: list[list[str]]) -> list[str]:
    """The names, with one more where every row ends in a separator or begins with a nameless index."""
    rows = [row for row in rows if row]
    if not rows or any(len(row) != len(names) + 1 for row in rows):
        return names
    if any(row[-1].strip() for row in rows):
        return ["", *names]
    return [*names, ""]
