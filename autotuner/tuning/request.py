"""What one run is asked to do, and who hears how it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from autotuner.promotion.duel_plan import DuelLook
from autotuner.search.gain_model import LeftOpen
from autotuner.search.profiles import Limits, Profile
from autotuner.search.search import SearchPlan, TrialEvent
from autotuner.search.space import SearchSpace
from autotuner.workload import Workload
from toto_core.prices.options import THE_SAMPLES, PriceSource


class Listener(Protocol):
    """Hears how a run goes on; the command line draws it."""

    def begin(self, symbol: str, workload: Workload, space: SearchSpace, known: int, seconds: float) -> None:
        """The search of a symbol begins; ``known`` outcomes are taken up."""
        ...

    def say(self, line: str) -> None:
        """One line of what is being done now."""
        ...

    def trial(self, event: TrialEvent) -> None:
        """A trial has an outcome, and it is stored."""
        ...

    def still_open(self, left_open: LeftOpen) -> None:
        """What the search has not tried when it goes on after a trial."""
        ...

    def looked(self, look: DuelLook) -> None:
        """What the duel shows after another launch."""
        ...


@dataclass(frozen=True, kw_only=True)
class TuneRequest:
    """What one run is asked to do; ``seconds`` covers everything, the duel included; None leaves it to the run.

    ``because`` says why it is tuned again, and goes into the ledger with the kinds of the daemon's ``triggers``;
    above 0, what replaces a champion is first a ``canary`` in that share of the processes. ``threads`` is the
    most CPU threads of a process, None for all CPUs but one. ``reuse`` takes up what is known of the symbol,
    ``share`` what another symbol proved; the search ends early when the chance of something better falls below
    ``chance``.
    """

    symbol: str
    workload: Workload
    profile: Profile
    limits: Limits = Limits()
    prices: PriceSource = THE_SAMPLES
    device: str = "cpu"
    trials: int = 40
    seconds: float | None = None
    seed: int = 0
    threads: int | None = None
    because: str | None = None
    triggers: tuple[str, ...] = ()
    canary: float = 0.0
    resume: bool = True
    reuse: bool = True
    share: bool = True
    chance: float = SearchPlan.chance

    @property
    def takes_over(self) -> bool:
        """Whether a symbol without a champion may take over what another symbol proved."""
        return self.share and self.reuse and self.profile.searches
