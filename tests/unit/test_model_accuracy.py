from __future__ import annotations

import numpy as np
import pytest

from autotuner.measurement.accuracy import LEVELS, Forecasts, ShapeForecasts
from autotuner.measurement.model_accuracy import Losses, beside, best_first, losses
from autotuner.measurement.outcome import Interval

RNG = np.random.default_rng(7)
NORMAL = np.array([-1.2816, -0.6745, 0.0, 0.6745, 1.2816])


def shape(targets: np.ndarray, centre: np.ndarray, spread: float) -> ShapeForecasts:
    """One seed; quantiles of a normal forecast around ``centre`` (window, step)."""
    quantiles = centre[np.newaxis, :, np.newaxis] + spread * NORMAL[np.newaxis, np.newaxis, :, np.newaxis]
    return ShapeForecasts(forecasts=Forecasts(quantiles=quantiles.astype(np.float32)), targets=targets)


def test_losses_are_the_formulas() -> None:
    targets = np.array([[101.0, 99.0]])
    found = losses([shape(targets, np.full((1, 2), 100.0), 1.0)], (1.0,))
    quantiles = 100.0 + NORMAL
    pinball = [
        max(level * (y - q), (level - 1) * (y - q))
        for y in targets[0]
        for level, q in zip(LEVELS, quantiles, strict=True)
    ]
    assert found.mae == pytest.approx(1.0)
    assert found.wql == pytest.approx(2 * np.mean(pinball) / 100.0, rel=1e-5)
    assert found.windows == 1


def test_a_mean_of_shapes_is_weighted() -> None:
    near, far = (shape(np.full((9, 2), 100.0 + wrong), np.full((9, 2), 100.0), 1.0) for wrong in (1.0, 4.0))
    assert losses([near, far], (0.75, 0.25)).mae == pytest.approx(0.75 + 1.0)


def series_of(windows: int, rng: np.random.Generator, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Targets and a walk's errors with calm and wild stretches, as prices have."""
    wild = np.exp(0.5 * np.repeat(rng.normal(size=windows // 3 + 1), 3)[:windows])
    return 100.0 + wild[:, None] * rng.standard_t(4, size=(windows, 4)) * scale, wild


@pytest.mark.parametrize("windows", [12, 37])
def test_two_models_that_are_equally_good_are_hardly_ever_told_apart(windows: int) -> None:
    claims = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        targets, _ = series_of(windows, rng)
        models = [
            losses([shape(targets, 100.0 + rng.normal(scale=0.5, size=targets.shape), 1.0)], (1.0,))
            for _ in range(2)
        ]
        claims += beside(models[0], models[1], rng).verdict != "equal"
    assert claims <= 300 * 0.05 + 2 * np.sqrt(300 * 0.05 * 0.95)


def test_a_model_that_is_clearly_better_is_found() -> None:
    found = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        targets, _ = series_of(37, rng)
        good = losses([shape(targets, 100.0 + 0.3 * (targets - 100.0), 1.0)], (1.0,))
        plain = losses([shape(targets, np.full(targets.shape, 100.0), 1.0)], (1.0,))
        result = beside(good, plain, rng)
        assert beside(plain, good, rng).verdict != "better"
        found += result.verdict == "better"
    assert found == 50


def test_the_same_forecasts_are_equal_to_the_last_bit() -> None:
    targets, _ = series_of(20, RNG)
    one = losses([shape(targets, np.full(targets.shape, 100.0), 1.0)], (1.0,))
    result = beside(one, one, RNG)
    assert result.mae == result.wql == Interval(estimate=1.0, low=1.0, high=1.0)
    assert result.verdict == "equal"


def test_few_windows_prove_nothing() -> None:
    targets, _ = series_of(7, RNG)
    good = losses([shape(targets, targets, 0.1)], (1.0,))
    plain = losses([shape(targets, np.full(targets.shape, 100.0), 1.0)], (1.0,))
    assert beside(good, plain, RNG).verdict == "equal"


def test_more_comparisons_need_more_proof() -> None:
    targets, _ = series_of(37, RNG)
    good = losses([shape(targets, 100.0 + 0.3 * (targets - 100.0), 1.0)], (1.0,))
    plain = losses([shape(targets, np.full(targets.shape, 100.0), 1.0)], (1.0,))
    one, ten = (beside(good, plain, np.random.default_rng(1), comparisons=number).wql for number in (1, 10))
    assert ten.low < one.low
    assert one.high < ten.high


def test_the_least_quantile_loss_stands_first() -> None:
    def of(loss: float) -> Losses:
        return Losses(absolute=(np.ones(9),), quantile=(np.full(9, loss),), weights=(1.0,), level=1.0)

    assert best_first([of(3.0), of(1.0), of(2.0)]) == [1, 2, 0]


def test_losses_of_other_windows_are_refused() -> None:
    def of(windows: int) -> Losses:
        return Losses(absolute=(np.ones(windows),), quantile=(np.ones(windows),), weights=(1.0,), level=1.0)

    with pytest.raises(ValueError, match="other windows"):
        beside(of(9), of(10), RNG)
