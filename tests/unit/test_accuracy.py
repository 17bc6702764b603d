from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.measurement.accuracy import LEVELS, WINDOWS, Forecasts, compare, rolling_origins
from autotuner.measurement.outcome import Accuracy
from toto_core.series import find_series

Floats = npt.NDArray[np.float64]

SYMBOLS = ("AAPL", "AMD", "BTCUSD", "ETHUSD", "GOOGL")
CONTEXT, PREDICTION, SEEDS = 512, 8, 2
DRIFT_BUDGET, SHIFT_LIMIT = 0.01, 0.05


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@dataclass(frozen=True, kw_only=True)
class RandomWalk:
    """Quantiles of resampled past returns around the last price, (seed, window, level, step)."""

    quantiles: Floats
    targets: Floats

    @classmethod
    def of(cls, symbol: str) -> RandomWalk:
        series = find_series(symbol, None)
        origins = rolling_origins(
            len(series),
            last_fifth_start=series.last_fifth_start(),
            context=CONTEXT,
            prediction=PREDICTION,
            close=series.close,
        )
        quantiles = np.empty((SEEDS, origins.size, len(LEVELS), PREDICTION))
        for seed in range(SEEDS):
            for window, origin in enumerate(origins):
                past = series.close[origin - CONTEXT : origin]
                drawn = rng(seed).choice(np.diff(np.log(past)), size=(256, PREDICTION))
                paths = past[-1] * np.exp(np.cumsum(drawn, axis=1))
                quantiles[seed, window] = np.quantile(paths, LEVELS, axis=0)
        targets = np.stack([series.close[origin : origin + PREDICTION] for origin in origins])
        return cls(quantiles=quantiles, targets=targets)

    def against(self, quantiles: Floats) -> Accuracy:
        return compare(forecasts(quantiles), forecasts(self.quantiles), self.targets, rng())


def forecasts(quantiles: Floats) -> Forecasts:
    return Forecasts(quantiles=quantiles.astype(np.float32))


@pytest.fixture(scope="module", params=SYMBOLS)
def walk(request: pytest.FixtureRequest) -> RandomWalk:
    return RandomWalk.of(request.param)


@pytest.mark.parametrize("share_of_price", [0.01, -0.01])
def test_a_forecast_wrong_by_one_percent_of_price_is_refused(walk: RandomWalk, share_of_price: float) -> None:
    accuracy = walk.against(walk.quantiles * (1 + share_of_price))

    assert accuracy.drift > DRIFT_BUDGET
    assert accuracy.quantile_shift > SHIFT_LIMIT


def test_a_forecast_wrong_by_one_percent_in_either_direction_is_refused(walk: RandomWalk) -> None:
    signs = np.where(np.arange(walk.quantiles.shape[1]) % 2, 1.0, -1.0)
    accuracy = walk.against(walk.quantiles * (1 + 0.01 * signs[:, np.newaxis, np.newaxis]))

    assert accuracy.quantile_shift > SHIFT_LIMIT


def test_a_forecast_wrong_by_one_percent_in_its_last_step_alone_is_refused(walk: RandomWalk) -> None:
    wrong = walk.quantiles.copy()
    wrong[..., -1] *= 1.01

    assert walk.against(wrong).quantile_shift > SHIFT_LIMIT


def test_rounding_noise_passes_every_limit(walk: RandomWalk) -> None:
    noisy = walk.quantiles * (1 + 1e-6 * rng(1).standard_normal(walk.quantiles.shape))
    accuracy = walk.against(noisy)

    assert 0 < accuracy.drift < 0.1 * DRIFT_BUDGET
    assert 0 < accuracy.quantile_shift < 0.1 * SHIFT_LIMIT


def test_equal_forecasts_have_neither_drift_nor_shift(walk: RandomWalk) -> None:
    accuracy = walk.against(walk.quantiles)

    assert (accuracy.drift, accuracy.quantile_shift) == (0.0, 0.0)
    assert accuracy.mae == accuracy.mae_reference > 0
    assert (accuracy.windows, accuracy.seeds) == (WINDOWS, SEEDS)
    assert accuracy.sigma_mae > 0


def test_mae_is_of_the_median_over_seeds_windows_and_steps() -> None:
    quantiles = np.zeros((2, 1, len(LEVELS), 2))
    quantiles[0, 0, 2], quantiles[1, 0, 2] = (11.0, 8.0), (10.0, 10.0)

    accuracy = compare(forecasts(quantiles), forecasts(quantiles), np.array([[10.0, 10.0]]), rng())

    assert accuracy.mae == pytest.approx(0.75)
    assert accuracy.sigma_mae == pytest.approx(np.std([1.5, 0.0], ddof=1))


def test_a_single_seed_has_no_spread_of_mae() -> None:
    quantiles = np.full((1, 1, len(LEVELS), 1), 9.0)

    accuracy = compare(forecasts(quantiles), forecasts(quantiles), np.array([[10.0]]), rng())

    assert (accuracy.sigma_mae, accuracy.seeds) == (0.0, 1)


def test_quantile_shift_is_in_units_of_the_references_own_spread() -> None:
    reference = np.tile(np.array([90.0, 95.0, 100.0, 105.0, 110.0])[:, np.newaxis], (1, 2, 1, 3))
    reference = reference.reshape(1, 2, len(LEVELS), 3)
    candidate = reference.copy()
    candidate[0, 1, 3, 2] += 5.0

    accuracy = compare(forecasts(candidate), forecasts(reference), np.full((2, 3), 101.0), rng())

    assert accuracy.quantile_shift == pytest.approx(0.25)
    assert accuracy.drift == 0.0


def test_drift_is_never_below_the_change_of_mae_that_was_seen() -> None:
    reference = np.full((1, 4, len(LEVELS), 1), 100.0)
    targets = np.full((4, 1), 110.0)

    accuracy = compare(forecasts(reference - 1.0), forecasts(reference), targets, rng())

    assert accuracy.drift == pytest.approx(0.1)


def test_errors_that_cancel_over_windows_still_drift() -> None:
    reference = np.full((1, 16, len(LEVELS), 1), 100.0)
    candidate = reference.copy()
    candidate[:, ::2] += 1.0
    candidate[:, 1::2] -= 1.0

    accuracy = compare(forecasts(candidate), forecasts(reference), np.full((16, 1), 110.0), rng())

    assert accuracy.mae == accuracy.mae_reference
    assert accuracy.drift > DRIFT_BUDGET


def test_a_flat_series_forgives_rounding_and_nothing_more() -> None:
    reference = np.full((1, 3, len(LEVELS), 4), 109_000.0)
    targets = np.full((3, 4), 109_000.0)

    rounded, wrong = (
        compare(forecasts(reference * factor), forecasts(reference), targets, rng())
        for factor in (1 + 1e-7, 1.01)
    )

    assert max(rounded.drift, rounded.quantile_shift) < DRIFT_BUDGET
    assert min(wrong.drift, wrong.quantile_shift) > 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_forecast_that_is_not_finite_is_refused(bad: float) -> None:
    quantiles = np.ones((1, 2, len(LEVELS), 3))
    quantiles[0, 1, 2, 1] = bad

    with pytest.raises(ValueError, match="1 of 30 forecast quantiles are not finite"):
        forecasts(quantiles)


@pytest.mark.parametrize("shape", [(2, 5, 3), (1, 2, 4, 3), (0, 2, 5, 3)])
def test_forecasts_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="forecasts must be"):
        forecasts(np.ones(shape))


def test_forecasts_that_do_not_fit_each_other_or_the_targets_are_refused() -> None:
    one, two = forecasts(np.ones((1, 2, 5, 3))), forecasts(np.ones((1, 3, 5, 3)))

    with pytest.raises(ValueError, match="do not fit"):
        compare(one, two, np.ones((2, 3)), rng())
    with pytest.raises(ValueError, match="do not fit"):
        compare(one, one, np.ones((3, 3)), rng())
    with pytest.raises(ValueError, match="realised price"):
        compare(one, one, np.full((2, 3), np.nan), rng())


@given(
    points=st.integers(2, 400),
    context=st.integers(1, 300),
    prediction=st.integers(1, 60),
    windows=st.integers(1, 24),
    seed=st.none() | st.integers(0, 9),
)
def test_origins_are_distinct_and_keep_their_targets_in_the_last_fifth(
    points: int, context: int, prediction: int, windows: int, seed: int | None
) -> None:
    start = points * 4 // 5
    possible = points - prediction - max(start, context) + 1
    close = None if seed is None else np.exp(np.cumsum(rng(seed).normal(0, 0.01, points)))

    def origins() -> npt.NDArray[np.int64]:
        return rolling_origins(
            points,
            last_fifth_start=start,
            context=context,
            prediction=prediction,
            windows=windows,
            close=close,
        )

    if possible < 1:
        with pytest.raises(ValueError, match="no window of"):
            origins()
        return
    found = origins()

    assert found.size == min(windows, possible)
    assert np.all(np.diff(found) > 0)
    assert found[0] >= max(start, context)
    assert found[-1] + prediction <= points


def test_origins_are_spread_over_the_whole_last_fifth() -> None:
    origins = rolling_origins(1000, last_fifth_start=800, context=100, prediction=8, windows=16)

    assert (origins[0], origins[-1]) == (800, 992)
    assert set(np.diff(origins)) == {12, 13}


def test_the_calmest_and_the_wildest_stretch_have_a_window_each() -> None:
    noise = rng(3).normal(0, 0.01, 1000)
    noise[855:880] *= 0.01
    noise[931:956] *= 20
    close = 100 * np.exp(np.cumsum(noise))

    origins = rolling_origins(1000, last_fifth_start=800, context=100, prediction=20, windows=4, close=close)

    assert origins.size == 4
    assert sum(origin >= 852 and origin + 20 <= 883 for origin in origins) == 1
    assert sum(origin >= 928 and origin + 20 <= 959 for origin in origins) == 1


def test_a_series_that_never_moves_has_windows_all_the_same() -> None:
    origins = rolling_origins(
        1000, last_fifth_start=800, context=100, prediction=8, close=np.full(1000, 109_000.0)
    )

    assert origins.size == WINDOWS


def test_prices_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="prices must be"):
        rolling_origins(100, last_fifth_start=80, context=10, prediction=4, close=np.ones(99))
