"""The confidence level of each planned look at growing data, so that all looks together keep one promise."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_NORMAL = NormalDist()
_SUREST = 1 - 1e-9
"""A very early look spends less than a float can tell from nothing; no interval is surer than this."""
_GRID = 401
"""Points between two boundaries: gives the published ones to four digits."""


@functools.cache
def spending_confidences(
    looks: int = 3, alpha: float = 0.05, fractions: tuple[float, ...] | None = None
) -> tuple[float, ...]:
    """Confidence level of a two-sided interval at each look, so that all looks together err <= ``alpha``.

    ``fractions`` is the share of the data each look sees, rising to 1; evenly spaced when None. Each side
    spends 2 - 2 Phi(z(alpha / 4) / sqrt(fraction)), almost nothing early, like O'Brien and Fleming (Lan and
    DeMets 1983, Biometrika 70); boundaries follow by recursive integration over Brownian motion (Armitage,
    McPherson and Rowe 1969). Raises ``ValueError`` for no look, an ``alpha`` outside (0, 1) or fractions that
    do not rise to 1.
    """
    if looks < 1 or not 0 < alpha < 1:
        raise ValueError(f"looks: needs at least one look and 0 < alpha < 1, not {looks} and {alpha}")
    shares = fractions or tuple((look + 1) / looks for look in range(looks))
    rising = all(early < late for early, late in zip((0.0, *shares), shares, strict=False))
    if len(shares) != looks or not rising or shares[-1] != 1:
        raise ValueError(f"looks: {looks} fractions must rise from above 0 to 1, not {shares}")
    z = _NORMAL.inv_cdf(1 - alpha / 4)
    spent = [4 * _NORMAL.cdf(-z / math.sqrt(share)) for share in shares]
    boundaries = _boundaries(
        shares, [late - early for early, late in zip([0.0, *spent], spent, strict=False)]
    )
    levels = (2 * _NORMAL.cdf(b / math.sqrt(s)) - 1 for b, s in zip(boundaries, shares, strict=True))
    return tuple(min(level, _SUREST) for level in levels)


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
    low, high = 0.0, 40.0
    cdf = np.vectorize(_NORMAL.cdf)
    for _ in range(50):
        middle = (low + high) / 2
        crossed = float(mass @ (cdf((at - middle) / step) + cdf((-at - middle) / step)))
        low, high = (middle, high) if crossed > increment else (low, middle)
    return high
