"""A listener that keeps what it hears."""

from __future__ import annotations

from autotuner.measurement.trial import Outcome
from autotuner.search.space import SearchSpace
from autotuner.search.study import TrialEvent
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings


class Silent:
    """Prints nothing; ``outcomes`` are those of the trials it heard of."""

    def __init__(self) -> None:
        self.outcomes: dict[RuntimeSettings, Outcome] = {}
        self.lines: list[str] = []

    def begin(self, symbol: str, workload: Workload, space: SearchSpace, known: int, seconds: float) -> None:
        """The search begins."""
        self.lines.append(f"{symbol} {workload.summary} {space.describe()} {known} {seconds}")

    def say(self, line: str) -> None:
        """A line of progress."""
        self.lines.append(line)

    def trial(self, event: TrialEvent) -> None:
        """An outcome."""
        self.outcomes[event.settings] = event.outcome
