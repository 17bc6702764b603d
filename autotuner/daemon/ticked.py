"""What a tick did, in one line."""

from __future__ import annotations

from dataclasses import dataclass

from autotuner.daemon.intake import Intake
from autotuner.daemon.places import in_place
from autotuner.daemon.plan import Skipped


@dataclass(frozen=True, kw_only=True)
class Ticked:
    """What a tick did."""

    intake: Intake
    rechecked: tuple[str, ...] = ()
    rolled_back: tuple[str, ...] = ()
    tuned: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    held: str | None = None

    def __str__(self) -> str:
        lists = {
            "rechecked": self.rechecked,
            "rolled back": self.rolled_back,
            "failed": self.failed,
            "unreadable": self.unreadable,
            "waiting": [in_place(each.symbol, each.place) for each in self.skipped],
        }
        parts = [f"tuned {', '.join(self.tuned) or 'nothing'}"]
        parts += [f"{what} {', '.join(symbols)}" for what, symbols in lists.items() if symbols]
        parts += [f"held: {self.held}"] if self.held else []
        parts.append(f"{self.intake.telemetry} windows and {self.intake.quarantines} quarantines taken in")
        parts += [f"{self.intake.refused} notes refused"] if self.intake.refused else []
        return "; ".join(parts)
