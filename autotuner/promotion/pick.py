"""Which of several challengers goes into the duel proper: pure decisions over the scores of stage 1."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from autotuner.measurement.stats import student_quantile
from autotuner.promotion.records import DuelArm
from toto_core.settings import RuntimeSettings

Scores = Mapping[RuntimeSettings, Sequence[float]]
"""Log scores of each launch so far, of whoever took part in all of them the same number."""

STAGE1_SHARE = 1 / 2
"""Of the duel's time: which of several close settings is best takes as many launches as how much better it is."""
STAGE1_EQUAL = 0.01
"""Mean log scores closer than this are equal, and the simpler settings go on.

Well below what the duel itself calls the same: where luck decides whether two settings are equal, they then are.
"""
_STAGE1_SURE = 0.99
"""Confidence at which a challenger is left out of further launches of stage 1."""
_STAGE1_FEWEST = 3
"""Launches before any is left out."""


def still_possible(challengers: Sequence[DuelArm], scores: Scores) -> list[DuelArm]:
    """Those that further launches may yet show equal to the best so far; all before there are enough launches."""
    best = min((scores[arm.settings] for arm in challengers), key=statistics.fmean)
    launches = len(best)
    if launches < _STAGE1_FEWEST:
        return list(challengers)
    sure = student_quantile(_STAGE1_SURE, launches - 1) / math.sqrt(launches)

    def behind(arm: DuelArm) -> float:
        apart = [ours - theirs for ours, theirs in zip(scores[arm.settings], best, strict=True)]
        return statistics.fmean(apart) - sure * statistics.stdev(apart)

    return [arm for arm in challengers if behind(arm) <= STAGE1_EQUAL]


def simplest_of_equals(challengers: Sequence[DuelArm], scores: Scores) -> DuelArm:
    """Of those whose mean log score is closest to the best, the simplest; the first one before any launch."""
    timed = {
        arm.settings: statistics.fmean(scores[arm.settings]) for arm in challengers if scores[arm.settings]
    }
    if not timed:
        return challengers[0]
    limit = min(timed.values()) + STAGE1_EQUAL
    equals = [arm for arm in challengers if timed.get(arm.settings, math.inf) <= limit]
    return min(equals, key=lambda arm: arm.settings.complexity)
