"""Says when timing may stop: at planned checks of the interval, or after as long as starting took."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from autotuner.measurement.outcome import ArmBlocks
from autotuner.measurement.statistics import EffectiveCost, paired_ratio

Floats = npt.NDArray[np.float64]

_NORMAL = NormalDist()
_SUREST = 1 - 1e-9
"""A very early check spends less than a float can tell from nothing; no interval is surer than this."""
_GRID = 401
"""Points between two boundaries: gives the published ones to four digits."""


@functools.cache
def spending_confidences(
    checks: int = 3, alpha: float = 0.05, fractions: tuple[float, ...] | None = None
) -> tuple[float, ...]:
    """Confidence level of a two-sided interval at each check, so that all checks together err <= ``alpha``.

    ``fractions`` is the share of the data each check sees, rising to 1; evenly spaced when None. Each side
    spends 2 - 2 Phi(z(alpha / 4) / sqrt(fraction)), almost nothing early, like O'Brien and Fleming (Lan and
    DeMets 1983, Biometrika 70); boundaries follow by recursive integration over Brownian motion (Armitage,
    McPherson and Rowe 1969). Raises ``ValueError`` for no check, an ``alpha`` outside (0, 1) or fractions that
    do not rise to 1.
    """
    if checks < 1 or not 0 < alpha < 1:
        raise ValueError(f"checks: needs at least one check and 0 < alpha < 1, not {checks} and {alpha}")
    shares = fractions or tuple((check + 1) / checks for check in range(checks))
    if len(shares) != checks or np.any(np.diff([0.0, *shares]) <= 0) or shares[-1] != 1:
        raise ValueError(f"checks: {checks} fractions must rise from above 0 to 1, not {shares}")
    z = _NORMAL.inv_cdf(1 - alpha / 4)
    spent = [4 * _NORMAL.cdf(-z / math.sqrt(share)) for share in shares]
    boundaries = _boundaries(shares, np.diff([0.0, *spent]).tolist())
    return tuple(
        min(2 * _NORMAL.cdf(boundary / math.sqrt(share)) - 1, _SUREST)
        for boundary, share in zip(boundaries, shares, strict=True)
    )


def _boundaries(shares: Sequence[float], increments: Sequence[float]) -> list[float]:
    # Brownian motion that has not crossed yet, as point masses on a grid between the latest boundaries.
    boundaries: list[float] = []
    at, mass, before = np.zeros(1), np.ones(1), 0.0
    for share, increment in zip(shares, increments, strict=True):
        step = math.sqrt(share - before)
        boundary = _crossed_by(increment, at, mass, step)
        grid = np.linspace(-boundary, boundary, _GRID)
        density = np.exp(-(((grid[:, np.newaxis] - at) / step) ** 2) / 2) @ mass
        mass = density * (grid[1] - grid[0]) / (step * math.sqrt(2 * math.pi))
        mass[[0, -1]] /= 2
        at, before = grid, share
        boundaries.append(boundary)
    return boundaries


def _crossed_by(increment: float, at: Floats, mass: Floats, step: float) -> float:
    from scipy.optimize import brentq
    from scipy.special import ndtr

    def too_many(boundary: float) -> float:
        return float(mass @ (ndtr((at - boundary) / step) + ndtr((-at - boundary) / step))) - increment

    return float(brentq(too_many, 0.0, 40.0))


_CHECKS = 3
"""Times a trial is checked, evenly spread, the last one being its end."""
_PLATEAU = 0.95
"""An interval that is still this share of the last check's tells that more blocks tell no more."""
_MOST_TIMES = 8
"""A launch takes at most this many times the blocks asked for: raw blocks are stored."""


@dataclass(kw_only=True)
class StopAfterStartingTime:
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
class StopWhenPrecise:
    """Asked after every round whether a trial of ``blocks`` rounds may end; arm 1 is the reference.

    It may at a third and at two thirds of the way: when the interval of the ratio is narrower than ``width``
    of its estimate, when it has stopped to narrow, or when it lies below ``beat``, at a confidence that keeps
    all checks together at 95 %. Whether the interval says faster or slower plays no part in the first two.
    """

    blocks: int
    width: float
    cost: EffectiveCost
    rng: np.random.Generator
    beat: float | None = None
    _widths: list[float] = field(default_factory=list)

    def __call__(self, rounds: int, blocks: Sequence[ArmBlocks]) -> bool:
        """Whether ``rounds`` rounds are enough."""
        checks = (self.blocks // _CHECKS, 2 * self.blocks // _CHECKS)
        if rounds not in checks:
            return False
        ratio = paired_ratio(blocks[1], blocks[0], cost=self.cost, rng=self.rng)
        self._widths.append((ratio.high - ratio.low) / ratio.estimate)
        if self._widths[-1] < self.width or self._on_a_plateau():
            return True
        if self.beat is None:
            return False
        sure = spending_confidences(_CHECKS)[checks.index(rounds)]
        bounded = paired_ratio(blocks[1], blocks[0], cost=self.cost, rng=self.rng, confidence=sure)
        return bounded.high < self.beat

    def _on_a_plateau(self) -> bool:
        return len(self._widths) > 1 and self._widths[-1] > _PLATEAU * self._widths[-2]
