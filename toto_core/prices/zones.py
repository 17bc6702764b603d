"""Brings local times to UTC, across the nights in which clocks change."""

from __future__ import annotations

from typing import Any

import numpy as np

from toto_core.prices.formats import Stamps
from toto_core.prices.options import CellRefusedError
from toto_core.prices.stamps import in_seconds


def in_utc(local: Stamps, timezone: str) -> Stamps:
    """Stamps in UTC of local times in an IANA zone, `(row,)`; NaT stays.

    An hour that comes twice is told apart by the order of the rows. Raises CellRefusedError for a time that the
    clocks skipped, and for one of two where the rows do not show which.
    """
    import pandas as pd  # takes long to import, and only local times need it

    index: Any = pd.DatetimeIndex(local)
    summer: Stamps
    winter: Stamps
    summer, winter = (
        index.tz_localize(timezone, ambiguous=np.full(local.size, is_summer), nonexistent="NaT")
        .tz_convert(None)
        .to_numpy()
        .astype("datetime64[ns]")
        for is_summer in (True, False)
    )
    skipped = np.flatnonzero(np.isnat(summer) & ~np.isnat(local))
    if skipped.size:
        row = int(skipped[0])
        raise CellRefusedError(
            row, f"{in_seconds(local[row])} does not exist in {timezone}: the clocks skipped it"
        )
    twice = np.flatnonzero((summer != winter) & ~np.isnat(local))
    if not twice.size:
        return summer
    return _told_apart(local, summer, winter, twice, timezone)


def _told_apart(local: Stamps, summer: Stamps, winter: Stamps, twice: Any, timezone: str) -> Stamps:
    """Of each night's times that come twice, those before the clock goes back are summer time."""
    stamps = summer.copy()
    nights = np.split(twice, np.flatnonzero(np.diff(local[twice]) > np.timedelta64(12, "h")) + 1)
    for night in nights:
        newest_first = local[-1] < local[0]
        rows = night[::-1] if newest_first else night
        back = np.flatnonzero(np.diff(local[rows]) < np.timedelta64(0, "ns"))
        if len(back) != 1:
            raise CellRefusedError(
                int(rows[0]),
                f"{in_seconds(local[rows[0]])} comes twice that night in {timezone}, and the rows do not show which",
            )
        late = rows[back[0] + 1 :]
        stamps[late] = winter[late]
    return stamps
