"""How large a campaign is, and the tally that becomes a row: faults made, invariants held, the first that broke."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.faults.campaign.table import Row, Size

SCALE_VARIABLE = "CAMPAIGN_SCALE"
"""A share of every long size, to try one out: 0.05 makes 500 of 10,000 kills."""
_LONGEST_LINE = 300


def scaled(size: Size, *, short: float, long: float) -> float:
    """How many, or how many seconds, at this size; a long one times ``CAMPAIGN_SCALE``."""
    return short if size == "short" else long * float(os.environ.get(SCALE_VARIABLE, "1"))


def times(size: Size, *, short: int, long: int) -> int:
    """``scaled`` as a number of times, at least one."""
    return max(1, math.ceil(scaled(size, short=short, long=long)))


def quantile(values: list[float], share: float) -> float:
    """The ``share`` quantile; 0 of no values."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


@dataclass
class Tally:
    """Counts one kind of fault."""

    fault: str
    times: int = 0
    held: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    noted: Counter[str] = field(default_factory=Counter)
    begun: float = field(default_factory=time.monotonic)
    seconds: float | None = None

    def add(self, problems: list[str]) -> None:
        """One more fault, with what its invariants had to say: nothing when all held."""
        self.times += 1
        self.held += not problems
        told = {problem.partition(":")[0]: " ".join(problem.split()) for problem in problems}
        self.first = told | self.first
        self.broken.update(told.keys())

    def row(self, measured: str = "") -> Row:
        """What was counted; ``noted`` stands behind ``measured``."""
        told = "; ".join(
            f"{count} times such as {self.first[what]}"[:_LONGEST_LINE]
            for what, count in self.broken.most_common()
        )
        notes = [measured, *(f"{count} times {what}" for what, count in sorted(self.noted.items()))]
        return Row(
            fault=self.fault,
            times=self.times,
            held=self.held,
            broken=told,
            measured="; ".join(note for note in notes if note),
            seconds=time.monotonic() - self.begun if self.seconds is None else self.seconds,
        )
