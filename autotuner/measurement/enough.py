"""When something has been timed enough: at planned looks, or as long as starting took; never by its result."""

from __future__ import annotations

import time
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


_MOST_TIMES = 8
"""A launch takes at most this many times the blocks asked for: raw blocks are stored."""


@dataclass(kw_only=True)
class AsLongAsStarting:
    """Asked after every round of a launch: at least ``blocks`` rounds, and until timing took as long as starting.

    Launches vary in themselves and between each other, and starting one costs seconds where a round of short
    calls costs milliseconds. Two-stage sampling tells the best division, sqrt(start / round x variance of a
    round / variance of launches) rounds (Cochran 1977, 10.6); of toto-mini that was measured here as about
    150 rounds, as many as fit the time of starting, and 24 rounds left launches 4 % apart where 160 left 2 %
    (docs/decisions/0015-as-long-as-starting.md). ``began`` is when starting began (``time.monotonic``).
    """

    blocks: int
    began: float
    _ready: float = field(default_factory=time.monotonic)

    @property
    def most(self) -> int:
        """Rounds after which it ends in any case."""
        return _MOST_TIMES * self.blocks

    def __call__(self, rounds: int, _: Sequence[ArmBlocks]) -> bool:
        """Whether ``rounds`` rounds are enough."""
        return rounds >= self.blocks and time.monotonic() - self._ready >= self._ready - self.began


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
