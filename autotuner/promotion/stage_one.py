"""Decides from the scores of stage 1 which challengers to launch again and which one goes on to stage 2."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from autotuner.measurement.statistics import student_quantile
from autotuner.promotion.duel_plan import DuelArm
from toto_core.settings import RuntimeSettings

Scores = Mapping[RuntimeSettings, Sequence[float]]
"""Log scores of each launch so far, of whoever took part in all of them the same number."""

STAGE1_SHARE = 1 / 2
"""Of the duel's time: to pick the best of several close ones takes as many launches as to tell how much it gains."""
STAGE1_EQUAL = 0.015
"""Log scores that are certainly closer than this are equal, and the simpler configuration goes on.

Half of what the duel itself calls the same, so that what luck decides here is the same there.
"""
_BEHIND, _EQUAL = 0.99, 0.95
"""One-sided confidence at which a challenger is left out of further launches, and taken for an equal."""
_FEWEST = 3
"""Launches before anything is certain."""


def still_possible(challengers: Sequence[DuelArm], scores: Scores) -> list[DuelArm]:
    """Those that further launches may yet show to be the best, or its equal."""
    return [arm for arm in challengers if _bound(arm, challengers, scores, -_BEHIND) <= STAGE1_EQUAL]


def decided(challengers: Sequence[DuelArm], scores: Scores) -> bool:
    """Whether all that are left are certainly equal: further launches would change nothing."""
    return all(_bound(arm, challengers, scores, _EQUAL) <= STAGE1_EQUAL for arm in challengers)


def simplest_of_equals(challengers: Sequence[DuelArm], scores: Scores) -> DuelArm:
    """The simplest of those that are certainly equal to the best; the first challenger before any launch."""
    best = _best(challengers, scores)
    equals = [
        arm for arm in challengers if arm is best or _bound(arm, challengers, scores, _EQUAL) <= STAGE1_EQUAL
    ]
    return min(equals, key=lambda arm: arm.settings.complexity)


def _best(challengers: Sequence[DuelArm], scores: Scores) -> DuelArm:
    if not all(scores[arm.settings] for arm in challengers):
        return challengers[0]
    return min(challengers, key=lambda arm: statistics.fmean(scores[arm.settings]))


def _bound(arm: DuelArm, challengers: Sequence[DuelArm], scores: Scores, confidence: float) -> float:
    """The one-sided bound (the lower one for a negative ``confidence``) of how far ``arm`` is behind the best."""
    best = _best(challengers, scores)
    if arm is best:
        return 0.0
    apart = [ours - theirs for ours, theirs in zip(scores[arm.settings], scores[best.settings], strict=True)]
    launches = len(apart)
    if launches < _FEWEST:
        return math.copysign(math.inf, confidence)
    wide = student_quantile(abs(confidence), launches - 1) * statistics.stdev(apart) / math.sqrt(launches)
    return statistics.fmean(apart) + math.copysign(wide, confidence)
