"""Counts what came of a fault that is made again and again, and makes its row."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tests.faults.campaign.table import Row


@dataclass(kw_only=True)
class Tally:
    """A fault, how often it was made, and how often what must hold held."""

    fault: str
    times: int = 0
    held: int = 0
    broken: list[str] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def add(self, *broken: str, about: str = "") -> None:
        """Count one; ``broken`` are the reasons for which it did not hold, ``about`` says which one it was."""
        reasons = [reason for reason in broken if reason]
        self.times += 1
        self.held += not reasons
        if reasons:
            self.broken.append(f"{about}: {reasons[0]}" if about else reasons[0])

    def row(self, measured: str = "") -> Row:
        """What is known by now."""
        kinds = list(dict.fromkeys(self.broken))
        said = "; ".join(" ".join(each.split())[:300] for each in kinds[:2])
        return Row(
            fault=self.fault,
            times=self.times,
            held=self.held,
            broken=said.replace("|", "/"),
            measured=measured,
            seconds=time.monotonic() - self.begun,
        )
