"""What a child says of its forecasts, read and compared with the reference's over all request shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autotuner.measurement.accuracy import Forecasts, compare
from autotuner.measurement.trial import Accuracy, Failed


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
    """Accuracy over all shapes: errors are weighted means, drift and quantile shift those of the worst shape."""
    parts = [
        compare(ours.forecasts, theirs.forecasts, ours.targets, rng, truth.forecasts)
        for ours, theirs, truth in zip(candidate, reference, exact, strict=True)
    ]
    return Accuracy(
        mae=_mean([p.mae for p in parts], weights),
        mae_reference=_mean([p.mae_reference for p in parts], weights),
        sigma_mae=_mean([p.sigma_mae for p in parts], weights),
        drift=max(p.drift for p in parts),
        quantile_shift=max(p.quantile_shift for p in parts),
        windows=sum(p.windows for p in parts),
        seeds=min(p.seeds for p in parts),
        drift_exact=max(p.drift_exact or 0.0 for p in parts),
        quantile_shift_exact=max(p.quantile_shift_exact or 0.0 for p in parts),
    )


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return float(np.average(values, weights=weights))
