"""Turns the cells of a price file into UTC stamps and prices, and says why a cell is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from toto_core.symbols import quoted

NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}

# pandas alone would also take "now", "today", "2020" and fractions it silently cuts.
_ISO_STAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?( ?(Z|[+-][0-9]{2}(:?[0-9]{2})?))?)?"
)
_EPOCH_STAMP = re.compile(r"[0-9]{10}|[0-9]{13}")
# float() alone would also take "1_000" and the digits of other scripts.
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)


def stamps_from_counts(
    counts: npt.NDArray[np.int64], nanoseconds_per_count: int
) -> npt.NDArray[np.datetime64]:
    """Return counts since 1970, `(time,)`, as datetime64[ns]; NaT where nanoseconds cannot hold them."""
    limit = np.iinfo(np.int64).max // nanoseconds_per_count
    fits = (counts >= -limit) & (counts <= limit)
    stamps = np.full(counts.shape, np.datetime64("NaT"), dtype="datetime64[ns]")
    stamps[fits] = (counts[fits] * nanoseconds_per_count).view("datetime64[ns]")
    return stamps


def parse_stamps(cells: Sequence[str]) -> npt.NDArray[np.datetime64]:
    """Return the cells as UTC datetime64[ns], `(time,)`; NaT where a cell is not a time.

    A cell is an ISO date or date and time (without an offset it is taken as UTC), or whole epoch
    seconds (10 digits) or milliseconds (13 digits).
    """
    import pandas as pd  # takes long to import, and only a file's text needs it

    iso = [cell if _ISO_STAMP.fullmatch(cell) else "" for cell in cells]
    parsed = pd.to_datetime(iso, format="ISO8601", utc=True, errors="coerce").tz_localize(None).to_numpy()
    unit, _ = np.datetime_data(parsed.dtype)
    stamps = stamps_from_counts(parsed.view(np.int64), NANOSECONDS[unit])
    epoch = [i for i, cell in enumerate(cells) if not iso[i] and _EPOCH_STAMP.fullmatch(cell)]
    if epoch:
        # Ten digits are seconds: padded to the milliseconds the others already are.
        milliseconds = np.array([int(cells[i].ljust(13, "0")) for i in epoch], dtype=np.int64)
        stamps[epoch] = stamps_from_counts(milliseconds, NANOSECONDS["ms"])
    return stamps


def parse_prices(cells: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the cells as float64, `(time,)`; NaN where a cell is not a plain decimal number."""
    return np.array(
        [float(cell) if _NUMBER.fullmatch(cell) else math.nan for cell in cells], dtype=np.float64
    )


def stamp_refusal(cell: str) -> str:
    """Return why a cell that gave NaT is refused, such as `'soon' is not an ISO date ...`."""
    if not cell:
        return "is blank"
    if _ISO_STAMP.fullmatch(cell) or _EPOCH_STAMP.fullmatch(cell):
        return f"{quoted(cell)} is not an existing time between the years 1678 and 2261"
    return (
        f"{quoted(cell)} is not an ISO date (2024-01-31, 2024-01-31T09:30:00Z) "
        "nor epoch seconds (10 digits) or milliseconds (13 digits)"
    )


def price_refusal(cell: str) -> str:
    """Return why a cell whose price is NaN, infinite, zero or negative is refused."""
    if not cell:
        return "is blank"
    if _INFINITE.fullmatch(cell):
        return f"{quoted(cell)} is not finite"
    if not _NUMBER.fullmatch(cell):
        return f"{quoted(cell)} is not a number"
    if math.isinf(float(cell)):
        return f"{quoted(cell)} is too large"
    return f"{quoted(cell)} is not above zero"
