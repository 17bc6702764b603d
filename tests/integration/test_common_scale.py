"""A forecast of a series times a power of ten is the forecast times it, and what is no forecast is not given."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from autotuner.measurement.outcome import Measured
from autotuner.search.profiles import Limits, profile
from autotuner.search.scoring import judge
from autotuner.workload import Workload
from tests.support.golden import golden_case
from tests.support.process_runners import EAGER, process_runner
from toto_core.common_scale import LEAST
from toto_core.exact import ExactPipeline
from toto_core.pipeline import NoForecastError, TotoPipeline
from toto_core.series import find_series
from toto_core.settings import RuntimeSettings

SYMBOLS = ("AAPL", "AMD", "BTCUSD", "ETHUSD", "GOOGL")


@pytest.fixture(scope="module")
def mini() -> TotoPipeline:
    return TotoPipeline.from_pretrained("toto-mini")


def assert_scaled(pipeline: TotoPipeline, symbol: str, exponents: range, horizon: int = 8) -> None:
    context = find_series(symbol, None).close[-512:]
    plain = pipeline.predict(context, horizon, 64, seed=3)
    for exponent in exponents:
        scaled = pipeline.predict(context * 10.0**exponent, horizon, 64, seed=3)
        for ours, expected in ((scaled.mean, plain.mean), (scaled.quantile(0.5), plain.quantile(0.5))):
            error = (
                np.abs(ours.numpy() / 10.0**exponent - expected.numpy()).max()
                / np.abs(expected.numpy()).max()
            )
            assert error < 1e-4


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_a_power_of_ten_times_the_prices_is_the_forecast_times_it(mini: TotoPipeline, symbol: str) -> None:
    assert_scaled(mini, symbol, range(-8, 9))
    assert_scaled(mini, symbol, range(-8, 9, 4), horizon=40)


@pytest.mark.slow
@pytest.mark.exhaustive  # the power of ten is applied outside of what is compiled
@pytest.mark.compiling
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_so_it_is_compiled() -> None:
    settings = RuntimeSettings(compile_mode="default", num_threads=1)
    compiled = TotoPipeline.from_pretrained("toto-mini", settings=settings)
    for symbol in SYMBOLS:
        assert_scaled(compiled, symbol, range(-8, 9, 2))
    assert compiled.compile_report.graphs == 1


def test_a_price_of_a_hundred_thousandth_gets_a_forecast_near_it(mini: TotoPipeline) -> None:
    moves = np.random.default_rng(1).normal(0.0, 0.03, size=512)
    context = 1.2e-5 * np.exp(moves.cumsum())
    forecast = mini.predict(context, 8, 256)
    assert np.abs(forecast.quantile(0.5).numpy() / context[-1] - 1.0).max() < 0.1
    assert mini.last_run_metadata["scale_factor"] >= 1e6


def test_where_the_floor_does_not_act_the_numbers_are_the_references(mini: TotoPipeline) -> None:
    context = find_series("BTCUSD", None).close[-512:]
    ours = mini.predict(context, 8, 64)
    assert mini.last_run_metadata["scale_factor"] == 1.0
    reference = TotoPipeline.from_pretrained("toto-mini")
    reference.common_scale = False
    np.testing.assert_array_equal(reference.predict(context, 8, 64).mean.numpy(), ours.mean.numpy())
    nearly = context / 100.0  # spread times level just below what is left alone
    assert np.std(nearly) * np.mean(nearly) < LEAST
    mean = mini.predict(nearly, 8, None).mean.numpy()
    np.testing.assert_allclose(mean, reference.predict(nearly, 8, None).mean.numpy(), rtol=1e-5)


def test_series_of_one_call_are_scaled_each_by_itself(mini: TotoPipeline) -> None:
    names = {"AMD": 1e-6, "BTCUSD": 1.0, "GOOGL": 1e-3}
    contexts = {name: find_series(name, None).close[-256:] * factor for name, factor in names.items()}
    together = TotoPipeline.from_pretrained("toto-mini", settings=RuntimeSettings(series_per_batch=3))
    for name, forecast in together.predict_many(contexts, 8, 64).items():
        alone = mini.predict(contexts[name], 8, 64)
        np.testing.assert_allclose(forecast.mean.numpy(), alone.mean.numpy(), rtol=1e-5)


def test_a_series_that_never_moves_stays_where_it_is(mini: TotoPipeline) -> None:
    for price in (1e-6, 1.0, 250.0):
        forecast = mini.predict(np.full(128, price), 8, 64)
        assert np.abs(forecast.quantile(0.5).numpy() / price - 1.0).max() < 0.01


def test_float64_is_scaled_as_float32_is() -> None:
    exact, mini = ExactPipeline.load("toto-mini"), TotoPipeline.from_pretrained("toto-mini")
    context = find_series("AMD", None).close[-256:] * 1e-6
    expected = exact.predict(context, 8, None).mean.numpy()
    np.testing.assert_allclose(mini.predict(context, 8, None).mean.numpy(), expected, rtol=1e-4)


def test_samples_that_are_not_finite_are_counted_and_too_many_are_no_forecast() -> None:
    case = golden_case("univariate")
    pipeline = case.pipeline()
    pipeline.predict(case.series, 8, 64)
    assert pipeline.last_run_metadata["samples_replaced"] == 0
    broken = copy.deepcopy(case.model)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    with pytest.raises(NoForecastError, match="512 of 512 prices came out as NaN or infinite"):
        dataclasses.replace(case, model=broken).pipeline().predict(case.series, 8, 64)


@pytest.mark.parametrize("settings", [EAGER.replace(precision="bf16")])
def test_a_trial_on_such_prices_is_judged_as_one_on_the_others(
    tmp_path: Path, settings: RuntimeSettings
) -> None:
    found = []
    for factor in (1.0, 1e-6):
        runner = process_runner(tmp_path / str(factor), workload=Workload(), blocks=2, factor=factor)
        try:
            found.append(runner.measure(settings, seconds=120.0))
        finally:
            runner.close()
    plain, small = found
    assert isinstance(plain, Measured)
    assert isinstance(small, Measured)
    # bf16 rounds what differs in the last bit of float32 one way or the other: of one size, not equal
    assert small.accuracy.drift == pytest.approx(plain.accuracy.drift, rel=0.5)
    assert small.accuracy.quantile_shift == pytest.approx(plain.accuracy.quantile_shift, rel=0.5)
    verdicts = [judge(outcome, Workload(), profile("production"), Limits()).reasons for outcome in found]
    assert verdicts == [(), ()]
    assert small.accuracy.mae == pytest.approx(plain.accuracy.mae * 1e-6, rel=0.01)
