"""Which of several models forecasts a symbol's own prices better, and whether that is more than noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autotuner.measurement.accuracy import LEVELS, ShapeForecasts
from autotuner.measurement.outcome import Interval
from autotuner.measurement.statistics import student_quantile

Floats = npt.NDArray[np.float64]

FEWEST_WINDOWS = 8
"""Windows below which nothing is said of which model is better."""
MOST_WINDOWS = 64
_RESAMPLES = 2000
_MEDIAN = LEVELS.index(0.5)


@dataclass(frozen=True, kw_only=True, eq=False)
class Losses:
    """Losses of one model in price units, window by window (window,), one array for each request shape.

    ``absolute`` is the error of the median; ``quantile`` the weighted quantile loss (Koenker and Bassett 1978), twice
    the mean over ``LEVELS`` of (q - 1[y < f]) (y - f), before it is divided by the price level. Both are means over
    seeds and steps. ``weights`` are the shares of the shapes.
    """

    absolute: tuple[Floats, ...]
    quantile: tuple[Floats, ...]
    weights: tuple[float, ...]
    level: float

    @property
    def mae(self) -> float:
        """Mean absolute error of the median over all shapes, in price units."""
        return _weighted(self.absolute, self.weights)

    @property
    def wql(self) -> float:
        """Weighted quantile loss over all shapes, as a share of the price level."""
        return _weighted(self.quantile, self.weights) / self.level

    @property
    def windows(self) -> int:
        """The fewest windows of a shape."""
        return min(each.size for each in self.absolute)


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A model's losses over another's on the same windows, below 1 where it is better; intervals hold together."""

    mae: Interval
    wql: Interval

    @property
    def verdict(self) -> str:
        """*better* or *worse* where one of the losses is proven so and the other not proven the opposite; *equal*."""
        better = [each.high < 1.0 for each in (self.mae, self.wql)]
        worse = [each.low > 1.0 for each in (self.mae, self.wql)]
        if any(better) and not any(worse):
            return "better"
        return "worse" if any(worse) and not any(better) else "equal"


def losses(shapes: Sequence[ShapeForecasts], weights: Sequence[float]) -> Losses:
    """Losses of a model's forecasts, one entry a request shape."""
    levels = np.array(LEVELS)[:, np.newaxis]
    absolute, quantile = [], []
    for shape in shapes:
        forecast = shape.forecasts.quantiles.astype(np.float64)  # (seed, window, level, step)
        wrong = shape.targets[np.newaxis, :, np.newaxis] - forecast
        absolute.append(np.abs(wrong[:, :, _MEDIAN]).mean(axis=(0, 2)))
        quantile.append(2.0 * np.maximum(levels * wrong, (levels - 1.0) * wrong).mean(axis=(0, 2, 3)))
    level = float(np.mean([np.abs(shape.targets).mean() for shape in shapes]))
    return Losses(
        absolute=tuple(absolute),
        quantile=tuple(quantile),
        weights=tuple(weights),
        level=max(level, np.finfo(np.float64).tiny),
    )


def beside(ours: Losses, theirs: Losses, rng: np.random.Generator, *, comparisons: int = 1) -> Beside:
    """Both ratios with intervals that all hold together 95 % of the time when ``comparisons`` such are made.

    Who picks the best of several models first makes as many as there are pairs of them.

    Windows are resampled in pairs and in runs of neighbours, about the cube root of their number long, because calm
    and wild stretches last (circular block bootstrap, Politis and Romano 1992): the standard error of the log ratio
    of the means, times Student's t of the number of runs. Bonferroni over losses and comparisons. With fewer than
    ``FEWEST_WINDOWS`` windows nothing is proven. Raises ``ValueError`` for losses of other windows.
    """
    if [each.size for each in ours.absolute] != [each.size for each in theirs.absolute]:
        raise ValueError("models: their losses are of other windows")
    confidence = 1.0 - 0.05 / (2 * comparisons)
    pairs = ((ours.absolute, theirs.absolute), (ours.quantile, theirs.quantile))
    mae, wql = (_ratio(one, other, ours.weights, rng, confidence) for one, other in pairs)
    return Beside(mae=mae, wql=wql)


def best_first(found: Sequence[Losses]) -> list[int]:
    """Positions by weighted quantile loss, the least first."""
    return sorted(range(len(found)), key=lambda place: found[place].wql)


def _weighted(parts: Sequence[Floats], weights: Sequence[float]) -> float:
    return float(sum(weight * part.mean() for part, weight in zip(parts, weights, strict=True)))


def _ratio(
    ours: Sequence[Floats],
    theirs: Sequence[Floats],
    weights: Sequence[float],
    rng: np.random.Generator,
    confidence: float,
) -> Interval:
    windows = min(each.size for each in ours)
    tiny = np.finfo(np.float64).tiny
    estimate = math.log(max(_weighted(ours, weights), tiny) / max(_weighted(theirs, weights), tiny))
    if all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True)):
        return Interval(estimate=1.0, low=1.0, high=1.0)
    if windows < FEWEST_WINDOWS:
        return Interval(estimate=math.exp(estimate), low=0.0, high=math.inf)
    drawn = [_runs(each.size, rng) for each in ours]
    sums = [
        sum(w * part[rows].mean(axis=1) for part, w, rows in zip(side, weights, drawn, strict=True))
        for side in (ours, theirs)
    ]
    logs = np.log(np.maximum(sums[0], tiny) / np.maximum(sums[1], tiny))
    runs = windows // _run_length(windows)
    half = student_quantile((1 + confidence) / 2, max(2, runs - 1)) * float(np.std(logs, ddof=1))
    half *= math.sqrt(runs / max(1, runs - 1))
    return Interval(
        estimate=math.exp(estimate), low=math.exp(estimate - half), high=math.exp(estimate + half)
    )


def _run_length(windows: int) -> int:
    return max(1, round(math.cbrt(windows)))


def _runs(windows: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Positions (resample, window): runs of neighbours from anywhere, around the end to the beginning."""
    length = _run_length(windows)
    starts = rng.integers(windows, size=(_RESAMPLES, -(-windows // length)))
    rows = (starts[:, :, np.newaxis] + np.arange(length)) % windows
    return rows.reshape(_RESAMPLES, -1)[:, :windows]
