"""The ways in which files write times: patterns whose parts make stamps."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from toto_core.prices.options import CellRefusedError
from toto_core.prices.table import Column, filled, values_of
from toto_core.symbols import quoted

Stamps = npt.NDArray[np.datetime64]
Counts = npt.NDArray[np.int64]
EPOCH, COMPACT = "as an epoch", "YYYYMMDD"

_TIME = (
    r"(?:[T, ]+(?P<H>[0-9]{1,2})(?::(?P<M>[0-9]{2})(?::(?P<S>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?)?)?"
    r"(?: ?(?P<p>[AaPp])\.?[Mm]\.?)?)?"
)
_ZONE = r"(?: ?(?P<z>Z|z|UTC|GMT|(?:UTC|GMT)?[+-][0-9]{2}(?::?[0-9]{2})?))?$"
_TWO = "[0-9]{1,2}"
_YEAR = "(?P<y>[0-9]{4}|[0-9]{2})"
_WEEKDAY = "^(?:[A-Za-z]{3,9},? )?"
_NAME = r"(?P<b>[A-Za-z]{3,9})\.?"
_DATES = {
    "year-month-day": f"^(?P<y>[0-9]{{4}})[-/.](?P<m>{_TWO})[-/.](?P<d>{_TWO})",
    "month/day/year": f"^(?P<m>{_TWO})[-/](?P<d>{_TWO})[-/]{_YEAR}",
    "day/month/year": f"^(?P<d>{_TWO})[-/.](?P<m>{_TWO})[-/.]{_YEAR}",
    "year/month/day": f"^(?P<y>[0-9]{{2}})[-/.](?P<m>{_TWO})[-/.](?P<d>{_TWO})",
    "month day, year": f"{_WEEKDAY}{_NAME} (?P<d>{_TWO}),? (?P<y>[0-9]{{4}})",
    "day month year": f"{_WEEKDAY}(?P<d>{_TWO})[- ]{_NAME}[- ,]+{_YEAR}",
}
_CLOCK_DIGITS = (
    "(?:[T ]?(?P<H>[0-9]{2}):?(?:(?P<M>[0-9]{2}):?(?:(?P<S>[0-9]{2})(?:[.,](?P<f>[0-9]{1,9}))?)?)?)?"
)
_PATTERNS = {name: date + _TIME + _ZONE for name, date in _DATES.items()} | {
    COMPACT: f"^(?P<y>(?:19|20)[0-9]{{2}})(?P<m>[0-9]{{2}})(?P<d>[0-9]{{2}}){_CLOCK_DIGITS}{_ZONE}"
}
_EPOCH = r"^(?P<e>[0-9]{9,19})(?:\.(?P<f>[0-9]+))?$"
_OFFSET = "(?P<s>[+-])(?P<h>[0-9]{2}):?(?P<m>[0-9]{0,2})$"
_SAMPLE = 200
_LOOKS = tuple(re.compile(pattern) for pattern in (*_PATTERNS.values(), _EPOCH))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# From 1973 on each unit has magnitudes of its own: the least count, and its nanoseconds.
_UNITS = ((10**8, 10**9), (10**11, 10**6), (10**14, 10**3), (10**17, 1))
_OLDEST_YEAR, _NEWEST_YEAR = 1678, 2261  # what nanoseconds since 1970 can hold


def looks_like_time(cell: str) -> bool:
    """Whether a cell of text is written as a time, however it is to be read."""
    return any(pattern.match(cell.strip()) for pattern in _LOOKS)


def readings(texts: Column) -> Iterator[tuple[str, Stamps, bool]]:
    """Every format that fits some cell: its name, the stamps `(row,)`, and whether they are local times.

    NaT stands for a cell that the format does not fit. Raises CellRefusedError where only some of a format's
    cells name their offset from UTC.
    """
    epochs = pc.extract_regex(texts, _EPOCH).combine_chunks()
    if epochs.null_count < len(texts):
        yield EPOCH, _text_epochs(epochs), False
    for name, pattern in _likely(texts):
        fields = pc.extract_regex(texts, pattern).combine_chunks()
        if fields.null_count < len(texts):
            yield name, *_from_fields(fields, texts)


def _likely(texts: Column) -> Iterator[tuple[str, str]]:
    """The formats that fit every cell of a sample, all where none does: a format has to fit the whole column."""
    step = max(len(texts) // _SAMPLE, 1)
    sample = [text for text in texts.take(pa.array(range(0, len(texts), step))).to_pylist() if text]
    fitting = [name for name, pattern in _PATTERNS.items() if all(re.match(pattern, text) for text in sample)]
    for name in fitting or _PATTERNS:
        yield name, _PATTERNS[name]


def epochs_of(counts: Counts) -> Stamps:
    """Counts as epochs, each in the unit that its size tells; NaT below what 1973 is in seconds."""
    lowest, highest = _ends(counts)
    for least, nanoseconds in _UNITS:
        if lowest >= least and highest < least * 1000:  # nearly always one unit throughout
            return (counts * nanoseconds).view("datetime64[ns]")
    stamps = np.full(counts.shape, np.datetime64("NaT", "ns"))
    for least, nanoseconds in _UNITS:
        fits = counts >= least
        if nanoseconds > 1:
            fits &= counts < least * 1000
        stamps[fits] = (counts[fits] * nanoseconds).view("datetime64[ns]")
    return stamps


def _ends(counts: Counts) -> tuple[int, int]:
    return (int(counts.min()), int(counts.max())) if counts.size else (0, 0)


def unit_of(counts: Counts) -> Counts:
    """The nanoseconds that one of each count is, as ``epochs_of`` reads it."""
    units: Counts = np.select(
        [counts < least * 1000 for least, _ in _UNITS[:3]], [unit for _, unit in _UNITS[:3]], 1
    )
    return units


def calendar_of(counts: Counts) -> Stamps:
    """Counts written YYYYMMDD, with hours, minutes and seconds when all have them; NaT for what is none."""
    lowest, highest = _ends(counts)
    for clock in range(4):
        if lowest < 19_000_101 * 100**clock or highest >= 21_010_101 * 100**clock:
            continue
        parts: list[Counts] = []
        rest = counts
        for _ in range(clock + 2):
            rest, part = np.divmod(rest, 100)
            parts.insert(0, part)
        return _assembled(rest, *parts)
    return np.full(counts.shape, np.datetime64("NaT", "ns"))


def _text_epochs(fields: Column) -> Stamps:
    digits = fields.field("e")
    whole = values_of(filled(pc.cast(pc.if_else(pc.equal(digits, ""), "0", digits), pa.uint64()), 0))
    counts = np.where(whole > np.iinfo(np.int64).max, 0, whole).astype(np.int64)
    counts[_absent(fields)] = 0
    rest = _billionths(fields.field("f")) * unit_of(counts) // 10**9
    stamps: Stamps = epochs_of(counts) + rest.astype("timedelta64[ns]")
    return stamps


def _from_fields(fields: Column, texts: Column) -> tuple[Stamps, bool]:
    names = {field.name for field in fields.type}

    def number(name: str) -> Counts:
        return _whole(fields.field(name)) if name in names else np.zeros(len(fields), dtype=np.int64)

    year = number("y")
    year = np.where(
        year < 69, year + 2000, np.where(year < 100, year + 1900, year)
    )  # as POSIX reads two digits
    month = _month_numbers(fields.field("b")) if "b" in names else number("m")
    hour = _hours(number("H"), fields.field("p") if "p" in names else None)
    stamps = _assembled(year, month, number("d"), hour, number("M"), number("S"))
    stamps = stamps + _billionths(fields.field("f")).astype("timedelta64[ns]")
    absent, zones = _absent(fields), fields.field("z")
    zoned = values_of(filled(pc.not_equal(zones, ""), False)) & ~absent
    _refuse_mixed(zoned, absent, texts)
    stamps[absent] = np.datetime64("NaT", "ns")
    return stamps - _offsets(zones), not zoned.any()


def _refuse_mixed(zoned: npt.NDArray[np.bool_], absent: npt.NDArray[np.bool_], texts: Column) -> None:
    present = np.flatnonzero(~absent)
    differing = present[zoned[present] != zoned[present[0]]]
    if differing.size:
        row = int(differing[0])
        without = (
            "no offset from UTC, and rows before it do"
            if zoned[present[0]]
            else "its offset from UTC, and rows before it do not"
        )
        raise CellRefusedError(row, f"{quoted(texts[row].as_py())} names {without}: write them alike")


def _assembled(year: Counts, month: Counts, day: Counts, *clock: Counts) -> Stamps:
    """Stamps from year, month, day and perhaps hour, minute, second, all `(row,)`; NaT for what does not exist."""
    real = (year >= _OLDEST_YEAR) & (year <= _NEWEST_YEAR) & (month >= 1) & (month <= 12) & (day >= 1)
    first = ((np.where(real, year, 1970) - 1970) * 12 + np.where(real, month, 1) - 1).astype("datetime64[M]")
    date = first.astype("datetime64[D]") + (np.where(real, day, 1) - 1).astype("timedelta64[D]")
    exists = real & (date.astype("datetime64[M]") == first)
    seconds = np.zeros(year.shape, dtype=np.int64)
    for part, most, size in zip(clock, (24, 60, 60), (3600, 60, 1), strict=False):
        exists &= part < most
        seconds += part * size
    stamps = date.astype("datetime64[ns]") + (seconds * 10**9).astype("timedelta64[ns]")
    return np.where(exists, stamps, np.datetime64("NaT", "ns"))


def _month_numbers(names: Column) -> Counts:
    short = pc.utf8_slice_codeunits(pc.utf8_lower(names), 0, 3)
    found = values_of(filled(pc.index_in(short, value_set=pa.array(_MONTHS)), -1))
    months: Counts = found.astype(np.int64) + 1
    return months


def _hours(hours: Counts, halves: Column | None) -> Counts:
    """Hours of 24 from hours with AM and PM; 99, which no day has, for 13 PM and the like."""
    if halves is None:
        return hours
    half = pc.utf8_lower(halves).fill_null("")
    after_noon = values_of(pc.equal(half, "p"))
    either = values_of(pc.not_equal(half, ""))
    wrong = either & ((hours < 1) | (hours > 12))
    return np.where(wrong, 99, np.where(either, hours % 12 + 12 * after_noon, hours))


def _offsets(zones: Column) -> npt.NDArray[np.timedelta64]:
    """Each zone's offset from UTC, zero for none."""
    fields = pc.extract_regex(zones, _OFFSET)
    west = values_of(filled(pc.equal(fields.field("s"), "-"), False))
    minutes = (_whole(fields.field("h")) * 60 + _whole(fields.field("m"))) * np.where(west, -1, 1)
    return minutes.astype("timedelta64[m]").astype("timedelta64[ns]")


def _billionths(digits: Column) -> Counts:
    """Decimals after the point as nanoseconds; what is finer is cut."""
    return _whole(pc.utf8_slice_codeunits(pc.utf8_rpad(digits.fill_null(""), 9, "0"), 0, 9))


def _whole(digits: Column) -> Counts:
    """Digits as whole numbers; 0 for none."""
    values: Counts = values_of(filled(pc.cast(pc.if_else(pc.equal(digits, ""), "0", digits), pa.int64()), 0))
    return values


def _absent(fields: Column) -> npt.NDArray[np.bool_]:
    absent: npt.NDArray[np.bool_] = values_of(fields.is_null())
    return absent
