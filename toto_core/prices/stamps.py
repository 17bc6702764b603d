"""Turns the cells of a time column into UTC stamps, by the one format in which all of them make sense."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from toto_core.prices.formats import COMPACT, EPOCH, Stamps, calendar_of, epochs_of, readings, unit_of
from toto_core.prices.options import CellRefusedError
from toto_core.prices.table import Column, filled, is_text, values_of
from toto_core.symbols import quoted

_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_AHEAD = np.timedelta64(2, "D")  # a close of today, in the zone that is furthest ahead
_NO_TIME = (
    "is not a time as price files have them: an ISO date (2024-01-31, 2024-01-31T09:30:00Z), 01/31/2024, "
    "31.01.2024, Jan 31, 2024, 20240131, or an epoch in s, ms, us or ns"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Times:
    """``stamps`` datetime64[ns] `(row,)`, NaT where a cell is blank; ``local`` is True where no zone is known."""

    stamps: Stamps
    local: bool


def read_times(cells: Column, now: np.datetime64) -> Times:
    """The times in ``cells``: stamps, dates, epochs, or text in a format that price files have.

    Text is read by the one format in which every cell exists and does not lie after ``now``. Raises
    CellRefusedError when there is none, when two differ, and when only some cells name their offset from UTC.
    """
    kind = cells.type
    if pa.types.is_timestamp(kind):
        times = Times(
            stamps=_from_counts(cells.cast(pa.int64()), _NANOSECONDS[kind.unit]), local=kind.tz is None
        )
    elif pa.types.is_date(kind):
        times = Times(stamps=_from_counts(cells.cast(pa.timestamp("s")).cast(pa.int64()), 10**9), local=True)
    elif pa.types.is_integer(kind) or pa.types.is_null(kind):
        times = _from_integers(cells, now)
    elif pa.types.is_floating(kind):
        times = _from_floats(cells, now)
    elif is_text(kind):
        times = _iso(cells) or _digits(cells, now) or _from_text(cells, now)
    else:
        raise CellRefusedError(0, f"holds {kind}, not times")
    ahead = np.flatnonzero(_is_future(times.stamps, now))
    if ahead.size:
        row = int(ahead[0])
        raise CellRefusedError(row, f"{in_seconds(times.stamps[row])} lies in the future")
    return times


def in_seconds(stamp: np.datetime64) -> str:
    """A stamp for people, ``2024-01-31T09:30:00``."""
    return str(np.datetime_as_string(stamp, unit="s"))


def _is_future(stamps: Stamps, now: np.datetime64) -> npt.NDArray[np.bool_]:
    """Which stamps lie further ahead than any time zone explains."""
    return np.asarray(stamps > now + _AHEAD)


def _iso(cells: Column) -> Times | None:
    """ISO 8601 all through, with an offset in every cell or in none: the quick way, None for anything else."""
    for zone in (None, "UTC"):
        try:
            read = pc.cast(cells, pa.timestamp("ns", zone))
        except pa.ArrowInvalid:
            continue
        return Times(stamps=_from_counts(read.cast(pa.int64()), 1), local=zone is None)
    return None


def _digits(cells: Column, now: np.datetime64) -> Times | None:
    """Epochs and compact dates of digits alone, None for anything else."""
    try:
        return _from_integers(pc.cast(cells, pa.int64()), now)
    except (pa.ArrowInvalid, CellRefusedError):
        return None


def _from_counts(counts: Column, nanoseconds: int) -> Stamps:
    """Counts since 1970 as stamps. Raises CellRefusedError for one that nanoseconds cannot hold."""
    limit = np.iinfo(np.int64).max // nanoseconds
    values = values_of(filled(counts, 0))
    beyond = np.flatnonzero((values > limit) | (values < -limit))
    if beyond.size:
        raise CellRefusedError(int(beyond[0]), "is not between the years 1678 and 2261")
    stamps = (values * nanoseconds).view("datetime64[ns]")
    return _with_blanks(stamps, counts) if counts.null_count else stamps


def _with_blanks(stamps: Stamps, cells: Column) -> Stamps:
    return np.where(values_of(cells.is_null()), np.datetime64("NaT", "ns"), stamps)


def _from_integers(cells: Column, now: np.datetime64) -> Times:
    present = ~values_of(cells.is_null()) if cells.null_count else np.ones(len(cells), dtype=bool)
    counts = values_of(filled(cells.cast(pa.int64(), safe=False), 0))
    for read, local in ((calendar_of, True), (epochs_of, False)):
        stamps = read(counts) if not cells.null_count else _spread(read(counts[present]), present)
        wrong = np.flatnonzero(present & (np.isnat(stamps) | _is_future(stamps, now)))
        if not wrong.size:
            return Times(stamps=stamps, local=local)
    row = int(wrong[0])
    raise CellRefusedError(
        row, f"{counts[row]} is no past time as an epoch in s, ms, us or ns, nor as YYYYMMDD"
    )


def _spread(stamps: Stamps, present: npt.NDArray[np.bool_]) -> Stamps:
    """Stamps of the rows that are present among NaT for the others."""
    whole = np.full(present.shape, np.datetime64("NaT", "ns"))
    whole[present] = stamps
    return whole


def _from_floats(cells: Column, now: np.datetime64) -> Times:
    values = values_of(filled(cells.cast(pa.float64()), np.nan))
    blank = np.isnan(values)
    large = np.flatnonzero(~blank & (np.abs(values) >= 2.0**53))
    if large.size:
        raise CellRefusedError(
            int(large[0]), "is a float so large that it may have lost the seconds of its time"
        )
    whole, rest = np.divmod(np.where(blank, 0.0, values), 1.0)
    counts = whole.astype(np.int64)
    found = _from_integers(pa.chunked_array([pa.array(counts, mask=blank)]), now)
    return Times(
        stamps=found.stamps + np.rint(rest * unit_of(counts)).astype("timedelta64[ns]"), local=found.local
    )


def _from_text(cells: Column, now: np.datetime64) -> Times:
    texts = pc.utf8_trim_whitespace(cells)
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    present = values_of(texts.is_valid())
    sound: dict[str, Times] = {}
    nearest, nearest_name = np.flatnonzero(present), ""
    for name, stamps, local in readings(texts):
        wrong = np.flatnonzero(present & (np.isnat(stamps) | _is_future(stamps, now)))
        if not wrong.size:
            sound[name] = Times(stamps=stamps, local=local)
        elif wrong.size < nearest.size or not nearest_name:
            nearest, nearest_name = wrong, name
    if sound:
        return _only_one(sound, texts)
    if not present.any():
        return Times(stamps=np.full(present.shape, np.datetime64("NaT", "ns")), local=True)
    row = int(nearest[0])
    others = f"no past time written {nearest_name} like the others" if nearest.size < present.sum() else ""
    raise CellRefusedError(row, f"{quoted(texts[row].as_py())} {'is ' + others if others else _NO_TIME}")


def _only_one(sound: dict[str, Times], texts: Column) -> Times:
    """The reading on which all agree. Raises CellRefusedError where two differ."""
    if EPOCH in sound and COMPACT in sound:  # hours of 2024, or milliseconds of 1976
        del sound[EPOCH]
    (first, times), *others = sound.items()
    for name, other in others:
        differing = np.flatnonzero((times.stamps != other.stamps) & ~np.isnat(times.stamps))
        if differing.size:
            row = int(differing[0])
            raise CellRefusedError(
                row,
                f"{quoted(texts[row].as_py())} reads as {first} and as {name}, and no row decides: "
                "write the dates as 2024-01-31",
            )
    return times
