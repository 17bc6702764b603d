"""What a run found, decided and would promote; and promoting it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autotuner.figures import Figures
from autotuner.promotion.decision import Decision
from autotuner.search.search import SearchResult
from autotuner.store import Promotion, Store, Subject
from autotuner.tuning.measuring import MeasuringPlan
from toto_core.settings import RuntimeSettings


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was measured, what was decided, and the figures of what the symbol runs."""

    study: SearchResult
    decision: Decision
    figures: Figures

    @property
    def unfit(self) -> tuple[str, ...]:
        """The limits that the configuration decided for breaks."""
        of_it = (entry for entry in self.study.ranked if entry.settings == self.decision.settings)
        return next((entry.judged.reasons for entry in of_it if not entry.judged.feasible), ())


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a run came to: its document, and what it promotes, None where the champion stays.

    ``unfit`` are the limits that even the configuration decided for breaks, as far as the search measured it.
    """

    document: dict[str, Any]
    subject: Subject
    plan: MeasuringPlan
    settings: RuntimeSettings
    promotion: Promotion | None
    unfit: tuple[str, ...] = ()


def promote(store: Store, tuned: Tuned, promotion: Promotion) -> None:
    """Append a promotion of what was tuned to the ledger, and give production what was compiled for it."""
    store.promote(promotion)
    handed = tuned.plan.hand_over(promotion.settings)
    if handed is not None:
        store.remember_artifacts(tuned.subject, promotion.settings, *handed)
