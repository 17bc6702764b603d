"""Puts the rows of a series in time order, drops repeated stamps, and tells of gaps and jumps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

JUMP = 5
"""Prices change less from one row to the next unless a share was split or a decimal mark is wrong."""
_DAY_NS = 86_400_000_000_000
_GAP_FACTOR = 1.5
# A weekend with a holiday on either side, as in Thursday's close, then Tuesday's.
_LONGEST_MARKET_HOLIDAY_NS = 5 * _DAY_NS


class DifferingPricesError(ValueError):
    """Two rows have the time ``stamp`` and different prices."""

    def __init__(self, stamp: np.datetime64) -> None:
        super().__init__(str(stamp))
        self.stamp = stamp


def in_time_order(
    stamps: npt.NDArray[np.datetime64], prices: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.datetime64], npt.NDArray[np.float64], tuple[str, ...]]:
    """Stamps and prices, `(time,)`, oldest first and once each, and what was repaired.

    Raises DifferingPricesError where one stamp has several prices.
    """
    repairs: list[str] = []
    if np.any(stamps[1:] < stamps[:-1]):
        order = np.argsort(stamps, kind="stable")
        stamps, prices = stamps[order], prices[order]
        repairs.append("rows out of time order: sorted")
    again = stamps[1:] == stamps[:-1]
    differing = np.flatnonzero(again & (prices[1:] != prices[:-1]))
    if differing.size:
        raise DifferingPricesError(stamps[differing[0]])
    dropped = int(np.count_nonzero(again))
    if not dropped:
        return stamps, prices, tuple(repairs)
    repairs.append(f"{count(dropped, 'duplicated timestamp')}: the last kept")
    kept = np.append(~again, True)
    return stamps[kept], prices[kept], tuple(repairs)


def describe_jumps(
    timestamps: npt.NDArray[np.datetime64], prices: npt.NDArray[np.float64]
) -> tuple[str, ...]:
    """A sentence on prices of five times or a fifth of the one before, `(time,)`, or nothing for none."""
    before, after = prices[:-1], prices[1:]
    positive = (before > 0) & (after > 0)
    jumps = np.flatnonzero(positive & ((after >= JUMP * before) | (before >= JUMP * after)))
    if not jumps.size:
        return ()
    first = int(jumps[0])
    at = np.datetime_as_string(timestamps[first + 1], unit="s")
    return (
        f"{count(jumps.size, 'jump')} of {JUMP}x or more, the first from {before[first]:g} to {after[first]:g} at "
        f"{at}Z: a split, or a wrong decimal mark",
    )


def describe_gaps(timestamps: npt.NDArray[np.datetime64]) -> tuple[str, ...]:
    """Return a sentence on the gaps in strictly increasing stamps, `(time,)`, or nothing when there are none.

    A gap is a step longer than 1.5 times the median step, or, in a daily series that leaves out weekends,
    longer than five days.
    """
    # Unsigned, because a step may be longer than the 292 years a signed one holds.
    counts = timestamps.astype(np.int64).view(np.uint64)
    steps_ns = counts[1:] - counts[:-1]
    if not steps_ns.size:
        return ()
    limit_ns = _longest_ordinary_step_ns(steps_ns)
    gaps = np.flatnonzero(steps_ns > limit_ns)
    if not gaps.size:
        return ()
    longest = int(np.argmax(steps_ns))
    after = np.datetime_as_string(timestamps[longest], unit="s")
    return (
        f"{count(gaps.size, 'gap')} longer than {_span(limit_ns)} left as they are, "
        f"the longest {_span(float(steps_ns[longest]))} after {after}Z",
    )


def _longest_ordinary_step_ns(steps_ns: npt.NDArray[np.uint64]) -> float:
    median = float(np.median(steps_ns))
    limit = _GAP_FACTOR * median
    daily = 0.9 * _DAY_NS < median < 1.1 * _DAY_NS
    # A market that closes at weekends skips one step in five; one that never closes skips next to none.
    closes_at_weekends = np.mean(steps_ns > limit) > 0.1
    return _LONGEST_MARKET_HOLIDAY_NS if daily and closes_at_weekends else limit


def _span(nanoseconds: float) -> str:
    for unit, size in (("days", _DAY_NS), ("hours", _DAY_NS / 24), ("minutes", _DAY_NS / 1440)):
        if nanoseconds >= size:
            return f"{round(nanoseconds / size, 1):g} {unit}"
    return f"{nanoseconds / 1e9:g} seconds"


def count(number: int, noun: str) -> str:
    """``1 row``, ``2 rows``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
