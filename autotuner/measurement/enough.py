"""When a trial has been timed enough: planned looks at the paired ratio, never a peek in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from autotuner.measurement.looks import spending_confidences
from autotuner.measurement.stats import EffectiveCost, paired_ratio
from autotuner.measurement.turns import ArmBlocks

_LOOKS = 3
"""Times a trial is looked at, evenly spread, the last one being its end."""
_PLATEAU = 0.95
"""An interval that is still this share of the last look's tells that more blocks tell no more."""


@dataclass(kw_only=True)
class Enough:
    """Asked after every round whether a trial of ``blocks`` rounds may end; arm 1 is the reference.

    It may at a third and at two thirds of the way: when the interval of the ratio is narrower than ``width``
    of its estimate, when it has stopped to narrow, or when it lies below ``beat``, at a confidence that keeps
    all looks together at 95 %. Whether the interval says faster or slower plays no part in the first two.
    """

    blocks: int
    width: float
    cost: EffectiveCost
    rng: np.random.Generator
    beat: float | None = None
    _widths: list[float] = field(default_factory=list)

    def __call__(self, rounds: int, blocks: Sequence[ArmBlocks]) -> bool:
        """Whether ``rounds`` rounds are enough."""
        looks = (self.blocks // _LOOKS, 2 * self.blocks // _LOOKS)
        if rounds not in looks:
            return False
        ratio = paired_ratio(blocks[1], blocks[0], cost=self.cost, rng=self.rng)
        self._widths.append((ratio.high - ratio.low) / ratio.estimate)
        if self._widths[-1] < self.width or self._on_a_plateau():
            return True
        if self.beat is None:
            return False
        sure = spending_confidences(_LOOKS)[looks.index(rounds)]
        bounded = paired_ratio(blocks[1], blocks[0], cost=self.cost, rng=self.rng, confidence=sure)
        return bounded.high < self.beat

    def _on_a_plateau(self) -> bool:
        return len(self._widths) > 1 and self._widths[-1] > _PLATEAU * self._widths[-2]
