"""Compares forecasts with realised prices and with each other: errors, and how far numerics moved a forecast."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autotuner.measurement.outcome import Accuracy, Failed

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Quantile levels of a forecast, lowest first."""
WINDOWS = 16

_MEDIAN = LEVELS.index(0.5)
_LOW, _HIGH = LEVELS.index(0.1), LEVELS.index(0.9)
_VOLATILITY_STEPS = 20
_NEGLIGIBLE = 1e-4
"""Share of price below which a spread is no spread: a flat series has none; float32 resolves about 1e-7."""
_RESAMPLES = 2000
_DRIFT_CONFIDENCE = 0.95
_FEWEST_STEPS = 3
"""Realised prices of a window below which its volatility tells nothing."""
_FEWEST_WINDOWS = 4
"""Windows a calm or volatile half needs to be judged on its own."""


def rolling_origins(
    points: int,
    *,
    last_fifth_start: int,
    context: int,
    prediction: int,
    windows: int = WINDOWS,
    close: Floats | None = None,
) -> Indices:
    """Indices of the first target of each window, rising and distinct, evenly spread; at most ``windows``.

    The targets ``[origin, origin + prediction)`` lie in ``[last_fifth_start, points)``, the context
    ``[origin - context, origin)`` may begin before it. With prices ``close`` ``(points,)`` and two windows or
    more, the calmest and the most volatile stretch have a window each: standard deviation of log returns over
    the last 20 steps up to the end of the targets, or over the targets if they are longer. Raises
    ``ValueError`` when not one window fits.
    """
    first, last = max(last_fifth_start, context), points - prediction
    if windows < 1 or last < first:
        raise ValueError(
            f"accuracy: no window of {context} context and {prediction} target steps fits {points} points "
            f"whose last fifth begins at {last_fifth_start}: give a longer history or ask for less"
        )
    even = np.unique(np.linspace(first, last, windows).round().astype(np.int64))
    if close is None or even.size < 2:
        return even
    if close.shape != (points,):
        raise ValueError(f"accuracy: prices must be ({points},), not {close.shape}")
    volatility = _volatility(close, first, last, prediction)
    return _with_extremes(even, first + int(np.argmin(volatility)), first + int(np.argmax(volatility)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecasts:
    """Forecast quantiles ``(seed, window, level, step)`` at ``LEVELS``, price units; kept as float32.

    Raises ``ValueError`` for another shape or a value that is not finite.
    """

    quantiles: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        quantiles = np.array(self.quantiles, dtype=np.float32)
        if quantiles.ndim != 4 or quantiles.shape[2] != len(LEVELS) or not quantiles.size:
            wanted = f"(seed, window, {len(LEVELS)} levels, step)"
            raise ValueError(f"accuracy: forecasts must be {wanted}, not {quantiles.shape}")
        bad = quantiles.size - int(np.count_nonzero(np.isfinite(quantiles)))
        if bad:
            raise ValueError(f"accuracy: {bad} of {quantiles.size} forecast quantiles are not finite")
        quantiles.setflags(write=False)
        object.__setattr__(self, "quantiles", quantiles)


def compare(
    candidate: Forecasts,
    reference: Forecasts,
    targets: Floats,
    rng: np.random.Generator,
    exact: Forecasts | None = None,
) -> Accuracy:
    """Errors of both forecasts against ``targets`` ``(window, step)`` and how far apart the forecasts are.

    Errors are of the median, averaged over seeds, windows and steps. ``drift`` is the 95th percentile of
    |mae - mae_reference| / mae_reference over windows drawn with replacement, the same for both, and never
    below the value of the windows as they are: of the calm half of the windows, of the volatile half and of
    all, the largest. ``quantile_shift`` is the largest |q - q_ref| over the reference's 10-90 % spread of the
    same seed, window and step. A spread, and an error of the reference, count as at least 0.01 % of price.
    Equal forecasts give exactly 0 for both.

    ``exact`` are float64 forecasts on the same noise, of the first seeds at least. ``drift_exact`` and
    ``quantile_shift_exact`` are the same two figures against them; what the candidate is further from them
    than the reference counts in ``drift`` and ``quantile_shift`` where it is larger.

    Raises ``ValueError`` when the shapes differ or a target is not finite.
    """
    ours, theirs = (f.quantiles.astype(np.float64) for f in (candidate, reference))
    _check_shapes(ours, theirs, targets)
    drawn = [group[_drawn(group.size, rng)] for group in _groups(targets)]
    errors, errors_reference = (_errors(q, targets) for q in (ours, theirs))
    per_seed = errors.mean(axis=(1, 2))
    drift, shift = _apart(ours, theirs, targets, drawn)
    drift_exact = shift_exact = None
    if exact is not None:
        truth = exact.quantiles.astype(np.float64)
        seeds = truth.shape[0]
        _check_shapes(ours[:seeds], truth, targets)
        drift_exact, shift_exact = _apart(ours[:seeds], truth, targets, drawn)
        own_drift, own_shift = _apart(theirs[:seeds], truth, targets, drawn)
        drift, shift = max(drift, drift_exact - own_drift), max(shift, shift_exact - own_shift)
    return Accuracy(
        mae=float(errors.mean()),
        mae_reference=float(errors_reference.mean()),
        sigma_mae=float(np.std(per_seed, ddof=1)) if per_seed.size > 1 else 0.0,
        drift=drift,
        quantile_shift=shift,
        windows=targets.shape[0],
        seeds=per_seed.size,
        drift_exact=drift_exact,
        quantile_shift_exact=shift_exact,
    )


def _volatility(close: Floats, first: int, last: int, prediction: int) -> Floats:
    # One value per origin from first to last; a series may be shorter than the usual stretch.
    steps = min(max(prediction, _VOLATILITY_STEPS), first + prediction - 1)
    if steps < 2:
        return np.zeros(last - first + 1)
    stretches = np.lib.stride_tricks.sliding_window_view(_returns(close), steps)
    # Return j leads to price j + 1, so the last return of origin o is o + prediction - 2.
    begin = first + prediction - 1 - steps
    return np.asarray(stretches[begin : begin + last - first + 1].std(axis=1), dtype=np.float64)


def _returns(close: Floats) -> Floats:
    # (time - 1,); of prices that reach zero, which have no logarithm, moves as shares of the typical price.
    if np.all(close > 0):
        return np.asarray(np.diff(np.log(close)))
    return np.asarray(np.diff(close) / max(float(np.abs(close).mean()), np.finfo(np.float64).tiny))


def _with_extremes(even: Indices, calmest: int, wildest: int) -> Indices:
    chosen, free = even.copy(), np.ones(even.size, dtype=bool)
    for extreme in (calmest, wildest):
        distance = np.where(free | (chosen == extreme), np.abs(chosen - extreme), np.iinfo(np.int64).max)
        nearest = int(np.argmin(distance))
        chosen[nearest], free[nearest] = extreme, False
    return np.sort(chosen)


def _check_shapes(ours: Floats, theirs: Floats, targets: Floats) -> None:
    if ours.shape != theirs.shape or targets.shape != (ours.shape[1], ours.shape[3]):
        raise ValueError(
            f"accuracy: forecasts {ours.shape}, reference {theirs.shape}, targets {targets.shape} do not fit"
        )
    if not np.all(np.isfinite(targets)):
        raise ValueError("accuracy: a realised price among the targets is not finite")


def _groups(targets: Floats) -> list[Indices]:
    # Windows (window,) as indices: all of them, the calm half and the volatile half.
    everything = np.arange(targets.shape[0])
    if targets.shape[1] < _FEWEST_STEPS or targets.shape[0] < 2 * _FEWEST_WINDOWS:
        return [everything]
    levels = np.maximum(np.abs(targets[:, :-1]), _NEGLIGIBLE * np.abs(targets).mean() or 1.0)
    volatility = (np.abs(np.diff(targets, axis=1)) / levels).mean(axis=1)
    order, half = np.argsort(volatility, kind="stable"), targets.shape[0] // 2
    return [everything, order[:half], order[half:]]


def _drawn(size: int, rng: np.random.Generator) -> Indices:
    # Positions (1 + resample, size): the windows as they are first, then each resample.
    return np.vstack([np.arange(size), rng.integers(size, size=(_RESAMPLES, size))])


def _errors(quantiles: Floats, targets: Floats) -> Floats:
    return np.abs(quantiles[:, :, _MEDIAN] - targets)


def _apart(ours: Floats, theirs: Floats, targets: Floats, drawn: Sequence[Indices]) -> tuple[float, float]:
    # Drift and quantile shift of the first from the second, the worst of all groups of windows.
    errors, errors_theirs = (_errors(q, targets).mean(axis=(0, 2)) for q in (ours, theirs))
    least = _NEGLIGIBLE * np.abs(targets).mean(axis=1)
    drift = max(_drift(errors[rows], errors_theirs[rows], least[rows]) for rows in drawn)
    narrowest = np.maximum(_NEGLIGIBLE * np.abs(theirs[:, :, _MEDIAN]), np.finfo(np.float64).tiny)
    spread = np.maximum(theirs[:, :, _HIGH] - theirs[:, :, _LOW], narrowest)[:, :, np.newaxis]
    return drift, float((np.abs(ours - theirs) / spread).max())


def _drift(errors: Floats, errors_reference: Floats, least: Floats) -> float:
    # Each (1 + resample, window); the first row is the windows as they are.
    moved = np.abs((errors - errors_reference).mean(axis=1))
    floor = np.maximum(least.mean(axis=1), np.finfo(np.float64).tiny)
    relative = moved / np.maximum(errors_reference.mean(axis=1), floor)
    return float(max(relative[0], np.quantile(relative[1:], _DRIFT_CONFIDENCE)))


@dataclass(frozen=True, kw_only=True, eq=False)
class ShapeForecasts:
    """Forecasts of one request shape and the realised prices (window, step)."""

    forecasts: Forecasts
    targets: npt.NDArray[np.float64]


def read_forecasts(shapes: Sequence[Mapping[str, Any]]) -> tuple[ShapeForecasts, ...] | Failed:
    """Read a child's ``forecasts`` answer; a forecast that is not finite is a failure of the trial."""
    try:
        return tuple(
            ShapeForecasts(
                forecasts=Forecasts(quantiles=np.array(shape["quantiles"], dtype=np.float32)),
                targets=np.array(shape["targets"], dtype=np.float64),
            )
            for shape in shapes
        )
    except ValueError as error:
        return Failed(kind="drift_exceeded", detail=str(error))


def merge_accuracy(
    candidate: Sequence[ShapeForecasts],
    reference: Sequence[ShapeForecasts],
    exact: Sequence[ShapeForecasts],
    *,
    weights: Sequence[float],
    rng: np.random.Generator,
) -> Accuracy:
    """Accuracy over all shapes: errors are weighted means, drift and quantile shift those of the worst shape.

    ``exact`` is empty where nothing was computed in float64.
    """
    truths = [each.forecasts for each in exact] if exact else [None] * len(reference)
    parts = [
        dataclasses.asdict(compare(ours.forecasts, theirs.forecasts, ours.targets, rng, truth))
        for ours, theirs, truth in zip(candidate, reference, truths, strict=True)
    ]
    means = ("mae", "mae_reference", "sigma_mae")
    worst = ("drift", "quantile_shift", "drift_exact", "quantile_shift_exact")
    return Accuracy(
        windows=sum(part["windows"] for part in parts),
        seeds=min(part["seeds"] for part in parts),
        **{name: float(np.average([part[name] for part in parts], weights=weights)) for name in means},
        **{name: max(part[name] for part in parts) for name in worst if exact or not name.endswith("_exact")},
    )
