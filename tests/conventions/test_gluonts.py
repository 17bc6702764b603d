"""The GluonTS predictor, judged by GluonTS's own evaluation on the embedded prices (``make conventions``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gluonts")

import pandas as pd
from gluonts.dataset.common import ListDataset
from gluonts.dataset.split import split
from gluonts.ev.metrics import MAE, MeanWeightedSumQuantileLoss
from gluonts.evaluation import make_evaluation_predictions
from gluonts.model.evaluation import evaluate_model
from gluonts.model.predictor import Predictor
from gluonts.model.seasonal_naive import SeasonalNaivePredictor

from autotuner import load_pipeline
from autotuner.adapters.gluonts import AutotunedPredictor
from tests.support.snapshots import BF16, entry, published
from toto_core.series import find_series

STEPS = 8
START = pd.Period("2024-01-01", freq="D")


def item(symbol: str, *, length: int | None = None) -> dict[str, Any]:
    close = find_series(symbol, None).close
    return {"start": START, "target": close[:length], "item_id": symbol}


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "autotune.db")


@pytest.fixture
def predictor(store: str) -> AutotunedPredictor:
    made: AutotunedPredictor = AutotunedPredictor(prediction_length=STEPS, db=store)
    return made


def test_evaluation_predictions_begin_where_the_input_ends_and_carry_their_item(
    predictor: AutotunedPredictor,
) -> None:
    dataset = ListDataset([item("AMD"), item("BTCUSD", length=300)], freq="D")
    forecasts, series = (
        list(part) for part in make_evaluation_predictions(dataset, predictor, num_samples=32)
    )

    assert [forecast.item_id for forecast in forecasts] == ["AMD", "BTCUSD"]
    for forecast, truth in zip(forecasts, series, strict=True):
        assert forecast.samples.shape == (32, STEPS)
        assert forecast.start_date == truth.index[-STEPS]
        assert forecast.mean == pytest.approx(truth.to_numpy()[-STEPS:, 0], rel=0.5)


def test_a_forecast_is_that_of_load_pipeline(predictor: AutotunedPredictor, store: str) -> None:
    (forecast,) = predictor.predict([item("AMD")], num_samples=16)
    pipeline = load_pipeline("AMD", db=store, telemetry=False)
    samples = pipeline.predict(find_series("AMD", None).close[-512:], STEPS, 16, seed=0).samples

    assert samples is not None
    np.testing.assert_array_equal(forecast.samples, samples[0, 0].T.numpy())


def test_gluonts_own_metrics_are_those_of_a_sound_forecast(predictor: AutotunedPredictor) -> None:
    dataset = ListDataset([item(symbol) for symbol in ("AAPL", "AMD", "GOOGL")], freq="D")
    _, template = split(dataset, offset=-10 * STEPS)
    windows = template.generate_instances(STEPS, windows=10)
    metrics = [MAE(), MeanWeightedSumQuantileLoss(quantile_levels=[0.1, 0.5, 0.9])]

    ours = evaluate_model(predictor, test_data=windows, metrics=metrics)
    naive = evaluate_model(
        SeasonalNaivePredictor(prediction_length=STEPS, season_length=1), test_data=windows, metrics=metrics
    )

    assert float(ours["MAE[0.5]"].iloc[0]) < 1.15 * float(naive["MAE[0.5]"].iloc[0])
    loss = "mean_weighted_sum_quantile_loss"
    assert float(ours[loss].iloc[0]) < float(naive[loss].iloc[0])


def test_an_item_is_forecast_by_the_settings_of_its_symbol(store: str) -> None:
    published(store, entry("AMD", settings=BF16))
    predictor = AutotunedPredictor(prediction_length=4, db=store, context_length=64)
    amd, other, unnamed = (
        forecast.samples
        for forecast in predictor.predict(
            [{**item("AMD"), "item_id": name} for name in ("AMD", "NOBODY", None)], num_samples=8
        )
    )
    bf16 = load_pipeline("AMD", settings=BF16, db=store, telemetry=False)
    expected = bf16.predict(find_series("AMD", None).close[-64:], 4, 8, seed=0).samples

    assert expected is not None
    np.testing.assert_array_equal(amd, expected[0, 0].T.numpy())
    assert not np.array_equal(amd, other)
    np.testing.assert_array_equal(other, unnamed)


def test_a_lead_time_leaves_the_first_steps_out(store: str) -> None:
    whole, late = (
        next(predictor.predict([item("AMD")], num_samples=8))
        for predictor in (
            AutotunedPredictor(prediction_length=6, db=store),
            AutotunedPredictor(prediction_length=4, lead_time=2, db=store),
        )
    )

    assert late.start_date == whole.start_date + 2
    np.testing.assert_array_equal(late.samples, whole.samples[:, 2:])


def test_several_variates_missing_values_and_short_histories_are_forecast(
    predictor: AutotunedPredictor,
) -> None:
    close = find_series("AMD", None).close
    both = np.stack([close[-200:], find_series("AAPL", None).close[-200:]])
    gap = close[-200:].copy()
    gap[50:60] = np.nan
    pair, holes, short = predictor.predict(
        [{"start": START, "target": target} for target in (both, gap, close[:5])], num_samples=8
    )

    assert pair.samples.shape == (8, STEPS, 2)
    assert pair.mean[:, 1] == pytest.approx(both[1, -1], rel=0.2)
    assert holes.mean == pytest.approx(gap[-1], rel=0.2)
    assert short.mean == pytest.approx(close[4], rel=0.5)
    assert short.start_date == START + 5


def test_a_predictor_is_written_and_read_as_gluonts_does(
    predictor: AutotunedPredictor, tmp_path: Path
) -> None:
    folder = tmp_path / "written"
    folder.mkdir()
    predictor.serialize(folder)
    read = Predictor.deserialize(folder)

    assert read == predictor
    mine, theirs = (next(each.predict([item("AMD")], num_samples=4)) for each in (predictor, read))
    np.testing.assert_array_equal(mine.samples, theirs.samples)
