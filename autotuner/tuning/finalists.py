"""Who goes from the search into the duel, and what is known of them there."""

from __future__ import annotations

import math

from autotuner.measurement.outcome import Measured
from autotuner.promotion.duel_plan import DuelArm
from autotuner.promotion.stage_one import STAGE1_SHARE
from autotuner.search.profiles import Profile
from autotuner.search.scoring import Ranked, drift_factor
from autotuner.search.search import SearchResult
from toto_core.settings import RuntimeSettings

FINALISTS = 5
"""Most challengers of a duel's first stage, which soon leaves out who is certainly behind."""
LAUNCHES = 2
"""Launches of everybody that the first stage must have time for: one tells little more than the trials did."""
PROCESS_START_SECONDS = 6.0
"""Until a child process has imported torch and warmed up, beside its own start; measured here, 4 to 8."""


def finalists(study: SearchResult, reference: RuntimeSettings, *, seconds: float) -> list[RuntimeSettings]:
    """Settings within their limits whose trials leave open that they are the best, best first.

    As many as the duel's first stage has time to start. A trial is one launch, so its ranking alone is luck
    between settings whose intervals meet.
    """
    feasible = [entry for entry in study.ranked if entry.judged.feasible and entry.settings != reference]
    certain = min((_score(entry, worst=True) for entry in feasible), default=0.0)
    still_open = [entry for entry in feasible[1:] if _score(entry, worst=False) <= certain]
    challengers = [entry.settings for entry in (*feasible[:1], *still_open)][:FINALISTS]
    spent = 0.0
    for count, settings in enumerate(challengers):
        measured = study.outcomes[settings]
        start_ms = measured.start_ms if isinstance(measured, Measured) else 0.0
        spent += LAUNCHES * (PROCESS_START_SECONDS + start_ms / 1000.0)
        if count and spent > STAGE1_SHARE * seconds:
            return challengers[:count]
    return challengers


def _score(entry: Ranked, *, worst: bool) -> float:
    """The score at the worse or the better end of the trial's interval."""
    if not isinstance(entry.outcome, Measured) or entry.judged.score is None:
        return math.inf
    ratio = entry.outcome.ratio
    return entry.judged.score * ratio.estimate / (ratio.low if worst else ratio.high)


def why_unfit(champion: RuntimeSettings, study: SearchResult) -> str | None:
    """The limits that the search saw the champion break, None when it keeps them or was not measured.

    Who breaks a limit on today's prices cannot stay because nothing is proven faster.
    """
    broken = [
        "; ".join(entry.judged.reasons)
        for entry in study.ranked
        if entry.settings == champion and isinstance(entry.outcome, Measured) and not entry.judged.feasible
    ]
    return broken[0] if broken else None


def duel_arm(settings: RuntimeSettings, study: SearchResult, profile: Profile) -> DuelArm:
    """Settings with the start and the drift that the search measured."""
    measured = study.outcomes.get(settings)
    if not isinstance(measured, Measured):
        return DuelArm(settings=settings)
    factor = drift_factor(measured.accuracy.drift, profile)
    return DuelArm(settings=settings, start_ms=measured.start_ms, drift_factor=factor)
