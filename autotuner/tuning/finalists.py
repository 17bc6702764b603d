"""Finalists: what goes from the search into the duel, and that duel."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable

import numpy as np

from autotuner.device_lock import Say
from autotuner.measurement.outcome import Measured
from autotuner.measurement.runner import Runner
from autotuner.promotion.duel import run_duel
from autotuner.promotion.duel_plan import DuelArm, DuelLook, DuelPlan, DuelResult
from autotuner.promotion.stage_one import STAGE1_SHARE
from autotuner.search.profiles import Profile
from autotuner.search.scoring import Ranked, drift_factor
from autotuner.search.search import SearchResult
from autotuner.tuning.measuring import effective_cost
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings

FINALISTS = 5
"""Most challengers of a duel's first stage, which soon leaves out who is certainly behind."""
LAUNCHES = 2
"""Launches of everybody that the first stage must have time for: one tells little more than the trials did."""
PROCESS_START_SECONDS = 6.0
"""Until a child process has imported torch and warmed up, beside its own start; measured here, 4 to 8."""


def finalists(study: SearchResult, reference: RuntimeSettings, *, seconds: float) -> list[RuntimeSettings]:
    """What keeps its limits and, for all its trial says, may be the best, best first.

    As many as the duel's first stage has time to start. A trial is one launch, so its ranking alone is luck
    between configurations whose intervals meet.
    """
    feasible = [entry for entry in study.ranked if entry.judged.feasible and entry.settings != reference]
    certain = min((_score(entry, worst=True) for entry in feasible), default=0.0)
    still_open = [entry for entry in feasible[1:] if _score(entry, worst=False) <= certain]
    possible = (*feasible[:1], *still_open)[:FINALISTS]
    spent = list(itertools.accumulate(map(_launch_seconds, possible)))
    affordable = max(1, bisect.bisect_right(spent, STAGE1_SHARE * seconds))
    return [entry.settings for entry in possible[:affordable]]


def _launch_seconds(entry: Ranked) -> float:
    start_ms = entry.outcome.start_ms if isinstance(entry.outcome, Measured) else 0.0
    return LAUNCHES * (PROCESS_START_SECONDS + start_ms / 1000.0)


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
    for entry in study.ranked:
        if entry.settings == champion and isinstance(entry.outcome, Measured) and not entry.judged.feasible:
            return "; ".join(entry.judged.reasons)
    return None


def duel_of_finalists(
    runner: Runner,
    study: SearchResult,
    *,
    champion: RuntimeSettings | None,
    reference: RuntimeSettings,
    workload: Workload,
    profile: Profile,
    seconds: float,
    seed: int,
    clock: Callable[[], float],
    say: Say,
    looked: Callable[[DuelLook], None] = lambda _: None,
) -> DuelResult | None:
    """The duel (``promotion.duel.run_duel``) of what the search left open; None when there is nothing to fight."""
    challengers = finalists(study, reference, seconds=seconds)
    if not challengers:
        return None
    say(f"duel: {', '.join(settings.label for settings in challengers)}")
    return run_duel(
        runner,
        challengers=[_arm(settings, study, profile) for settings in challengers],
        champion=_arm(champion, study, profile) if champion else None,
        reference=_arm(reference, study, profile),
        cost=effective_cost(workload, profile),
        seconds=seconds,
        plan=DuelPlan(),
        rng=np.random.default_rng(seed),
        clock=clock,
        on_progress=say,
        on_look=looked,
    )


def _arm(settings: RuntimeSettings, study: SearchResult, profile: Profile) -> DuelArm:
    """A configuration with the start and the drift that the search measured."""
    measured = study.outcomes.get(settings)
    if not isinstance(measured, Measured):
        return DuelArm(settings=settings)
    factor = drift_factor(measured.accuracy.drift, profile)
    return DuelArm(settings=settings, start_ms=measured.start_ms, drift_factor=factor)
