"""Counts what came of a fault that is made again and again, and makes its row."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tests.faults.campaign.table import Row

_KIND, _LONGEST, _MOST_KINDS = 30, 260, 3  # so many letters tell one kind of reason from another


@dataclass(kw_only=True)
class Tally:
    """A fault, how often it was made, and how often what must hold held."""

    fault: str
    times: int = 0
    held: int = 0
    broken: dict[str, list[str]] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def add(self, *broken: str, about: str = "") -> None:
        """Count one; ``broken`` are the reasons for which it did not hold, ``about`` says which one it was."""
        reasons = [reason for reason in broken if reason]
        self.times += 1
        self.held += not reasons
        if reasons:
            told = f"{about}: {reasons[0]}" if about else reasons[0]
            self.broken.setdefault(reasons[0][:_KIND], []).append(" ".join(told.split())[:_LONGEST])

    def row(self, measured: str = "") -> Row:
        """What is known by now."""
        kinds = sorted(self.broken.values(), key=len, reverse=True)
        said = "; ".join(f"{len(kind)} times such as {kind[0]}" for kind in kinds[:_MOST_KINDS])
        return Row(
            fault=self.fault,
            times=self.times,
            held=self.held,
            broken=said.replace("|", "/"),
            measured=measured,
            seconds=time.monotonic() - self.begun,
        )
