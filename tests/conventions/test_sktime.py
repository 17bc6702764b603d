"""The sktime forecaster, judged by sktime's own estimator checks (``make conventions``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sktime")

import pandas as pd
from sktime.forecasting.base import ForecastingHorizon
from sktime.utils.estimator_checks import check_estimator

from autotuner import load_pipeline
from autotuner.adapters.sktime import AutotunedForecaster
from toto_core.series import find_series

pytestmark = pytest.mark.filterwarnings("ignore:.*remember_data:FutureWarning")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    location = str(tmp_path / "autotune.db")
    monkeypatch.setenv("AUTOTUNE_DB", location)
    return location


def prices(symbol: str = "AMD", index: Any = None, length: int = 200) -> pd.Series:
    close = find_series(symbol, None).close[-length:]
    return pd.Series(close, index=pd.RangeIndex(length) if index is None else index, name=symbol)


@pytest.mark.filterwarnings("ignore")  # what sktime's checks and their parts warn of is theirs
def test_sktimes_own_checks_pass() -> None:
    results = check_estimator(AutotunedForecaster, verbose=0)
    assert len(results) > 500
    assert {name: result for name, result in results.items() if result != "PASSED"} == {}


def test_a_forecast_is_the_median_of_load_pipelines(store: str) -> None:
    y = prices()
    forecast = AutotunedForecaster(num_samples=16).fit(y).predict(fh=[1, 2, 3, 4])
    expected = load_pipeline("AMD", db=store, telemetry=False).predict(y.to_numpy(), 4, 16, seed=0)

    assert forecast.to_numpy() == pytest.approx(expected.quantile(0.5)[0, 0].numpy(), rel=1e-3)
    assert forecast.name == "AMD"


def test_horizons_with_gaps_are_parts_of_the_whole() -> None:
    forecaster = AutotunedForecaster(num_samples=16).fit(prices())
    whole = forecaster.predict_quantiles(fh=np.arange(1, 10), alpha=[0.1, 0.9])
    parts = forecaster.predict_quantiles(fh=[2, 5, 9], alpha=[0.1, 0.9])

    pd.testing.assert_frame_equal(parts, whole.loc[parts.index])
    assert parts.index.tolist() == [201, 204, 208]
    assert (parts[("AMD", 0.1)] < parts[("AMD", 0.9)]).all()


@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(200),
        pd.Index(np.arange(50, 250)),
        pd.date_range("2024-01-01", periods=200, freq="D"),
        pd.period_range("2010-01", periods=200, freq="M"),
    ],
)
def test_a_forecast_goes_on_in_the_index_of_its_series(index: pd.Index) -> None:
    y = prices(index=index)
    until, rest = y.iloc[:-3], y.index[-3:]
    forecaster = AutotunedForecaster(num_samples=8).fit(until)

    relative = forecaster.predict(fh=[1, 2, 3])
    absolute = forecaster.predict(fh=ForecastingHorizon(rest, is_relative=False))
    pd.testing.assert_series_equal(relative, absolute)
    assert list(relative.index) == list(rest)


def test_an_update_is_what_fitting_the_whole_gives_and_overwrites_what_came_before() -> None:
    y = prices()
    wrong = y.iloc[:180].copy()
    wrong.iloc[-5:] = 1.0
    updated = AutotunedForecaster(num_samples=8).fit(wrong, fh=[1, 2]).update(y.iloc[175:])
    fitted = AutotunedForecaster(num_samples=8).fit(y, fh=[1, 2])

    pd.testing.assert_series_equal(updated.predict(), fitted.predict())


def test_a_horizon_in_the_past_is_refused() -> None:
    forecaster = AutotunedForecaster(num_samples=8).fit(prices())
    with pytest.raises(NotImplementedError, match=r"after the cutoff|in-sample"):
        forecaster.predict(fh=[0, 1])
