"""What bf16 and fp32 cost toto-mini in accuracy, for each of the five symbols, as a trial measures it."""

from __future__ import annotations

import numpy as np
import torch

from autotuner.measurement.accuracy import (
    LEVELS,
    WINDOWS,
    Forecasts,
    ShapeForecasts,
    merge_accuracy,
    rolling_origins,
)
from autotuner.measurement.starter import SEEDS
from toto_core.exact import ExactPipeline
from toto_core.pipeline import TotoPipeline
from toto_core.series import PriceSeries, find_series
from toto_core.settings import RuntimeSettings

SYMBOLS = ("AMD", "AAPL", "GOOGL", "BTCUSD", "ETHUSD")
CONTEXT, SAMPLES = 512, 256


def main() -> None:
    """Print MAE, drift (upper 95 % bound) and quantile shift per symbol and horizon; last of fp32 from float64."""
    exact = ExactPipeline.load("toto-mini")
    reference, candidate = (
        TotoPipeline.from_pretrained("toto-mini", settings=RuntimeSettings(precision=precision))
        for precision in ("fp32", "bf16")
    )
    print(f"toto-mini, bf16 beside fp32, context {CONTEXT}, {SAMPLES} samples, {len(SEEDS)} seeds")
    print(
        "| symbol | horizon | MAE fp32 | MAE bf16 | drift at most | quantile shift | fp32's shift from fp64 |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for symbol in SYMBOLS:
        series = find_series(symbol, None)
        for horizon in (8, 64):
            pipelines = (reference, candidate, exact)
            theirs, ours, truth = (_forecasts(pipeline, series, horizon) for pipeline in pipelines)
            rng = np.random.default_rng(0)
            found = merge_accuracy((ours,), (theirs,), (truth,), weights=(1.0,), rng=rng)
            own = merge_accuracy((theirs,), (theirs,), (truth,), weights=(1.0,), rng=rng)
            print(
                f"| {symbol} | {horizon} | {found.mae_reference:.4g} | {found.mae:.4g} | "
                f"{found.drift:.3%} | {found.quantile_shift:.2%} | {own.quantile_shift_exact or 0.0:.1e} |",
                flush=True,
            )


def _forecasts(pipeline: TotoPipeline, series: PriceSeries, horizon: int) -> ShapeForecasts:
    origins = rolling_origins(
        len(series.close),
        last_fifth_start=series.last_fifth_start(),
        context=CONTEXT,
        prediction=horizon,
        windows=WINDOWS,
        close=series.close,
    )
    quantiles = []
    for seed in SEEDS:
        forecasts = [
            pipeline.predict(series.close[o - CONTEXT : o], horizon, SAMPLES, seed=seed) for o in origins
        ]
        quantiles.append([f.quantile(torch.tensor(LEVELS))[:, 0, 0].tolist() for f in forecasts])
    return ShapeForecasts(
        forecasts=Forecasts(quantiles=np.array(quantiles, dtype=np.float32)),
        targets=np.stack([series.close[o : o + horizon] for o in origins]),
    )


if __name__ == "__main__":
    main()
