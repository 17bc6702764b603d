"""An interval as a line of characters, on a scale that several of them share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autotuner.measurement.outcome import Interval


@dataclass(frozen=True, kw_only=True)
class BarScale:
    """From ``low`` to ``high`` in ``width`` characters; ``mark`` is a value to compare with, such as 1.0.

    What lies outside ends at the edge. Ratios are drawn by their logarithm, so that twice as fast and half as fast
    lie equally far from 1. Raises ``ValueError``.
    """

    low: float
    high: float
    mark: float
    width: int = 24
    logarithmic: bool = False
    ascii_only: bool = False

    def __post_init__(self) -> None:
        if not (self.low < self.high and self.width >= 5) or (self.logarithmic and self.low <= 0):
            raise ValueError(f"bars: no scale from {self.low} to {self.high} in {self.width} characters")

    def bar(self, interval: Interval) -> str:
        """The interval's ends, its estimate and the mark where it does not cover them; ``width`` characters."""
        left, middle, right, line, estimate, mark = "[-]-o|" if self.ascii_only else "├─┤─●┊"
        drawn = [" "] * self.width
        drawn[self._place(self.mark)] = mark
        low, high = self._place(interval.low), self._place(interval.high)
        drawn[low : high + 1] = line * (high - low + 1)
        drawn[low], drawn[high] = (left, right) if low < high else (middle, middle)
        drawn[self._place(interval.estimate)] = estimate
        return "".join(drawn)

    def _place(self, value: float) -> int:
        shown: Callable[[float], float] = math.log if self.logarithmic else float
        value = min(max(value, self.low), self.high)
        share = (shown(value) - shown(self.low)) / (shown(self.high) - shown(self.low))
        return round(share * (self.width - 1))


def ratio_scale(ratios: Sequence[Interval], *, width: int, ascii_only: bool) -> BarScale:
    """A scale that holds all of ``ratios`` and 1, none of it wider than from a tenth to a hundred."""
    low = max(0.1, min(0.9, *(ratio.low for ratio in ratios), 0.9))
    high = min(100.0, max(1.2, *(ratio.high for ratio in ratios), 1.2))
    return BarScale(low=low, high=high, mark=1.0, width=width, logarithmic=True, ascii_only=ascii_only)
