"""Who goes from the search into the duel, and what is known of them there."""

from __future__ import annotations

from autotuner.measurement.trial import Measured
from autotuner.promotion.pick import STAGE1_SHARE
from autotuner.promotion.records import DuelArm
from autotuner.search.objective import Profile, drift_factor
from autotuner.search.study import StudyResult
from toto_core.settings import RuntimeSettings

FINALISTS = 3
PROCESS_START_SECONDS = 6.0
"""Until a child process has imported torch and warmed up, beside its own start; measured here, 4 to 8."""


def finalists(study: StudyResult, reference: RuntimeSettings, *, seconds: float) -> list[RuntimeSettings]:
    """The best settings within their limits, as many as the duel's first stage has time to start; best first."""
    feasible = [entry.settings for entry in study.ranked if entry.judged.feasible]
    challengers = [settings for settings in feasible if settings != reference][:FINALISTS]
    spent = 0.0
    for count, settings in enumerate(challengers):
        measured = study.outcomes[settings]
        start_ms = measured.start_ms if isinstance(measured, Measured) else 0.0
        spent += PROCESS_START_SECONDS + start_ms / 1000.0
        if count and spent > STAGE1_SHARE * seconds:
            return challengers[:count]
    return challengers


def why_unfit(champion: RuntimeSettings, study: StudyResult) -> str | None:
    """The limits that the search saw the champion break, None when it keeps them or was not measured.

    Who breaks a limit on today's prices cannot stay because nothing is proven faster.
    """
    broken = [
        "; ".join(entry.judged.reasons)
        for entry in study.ranked
        if entry.settings == champion and isinstance(entry.outcome, Measured) and not entry.judged.feasible
    ]
    return broken[0] if broken else None


def duel_arm(settings: RuntimeSettings, study: StudyResult, profile: Profile) -> DuelArm:
    """Settings with the start and the drift that the search measured."""
    measured = study.outcomes.get(settings)
    if not isinstance(measured, Measured):
        return DuelArm(settings=settings)
    factor = drift_factor(measured.accuracy.drift, profile)
    return DuelArm(settings=settings, cold_start_ms=measured.start_ms, drift_factor=factor)
