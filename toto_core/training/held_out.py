"""Scores a model on the last fifth of the sample series, which neither training nor its stopping saw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from toto_core.pipeline import TotoPipeline
from toto_core.series import PriceSeries
from toto_core.training.scoring import Score, score

CONTEXT, SAMPLES, WINDOWS = 512, 256, 200
HORIZONS = (1, 8, 64)
DAYS_PER_WEEK, HOURS_PER_DAY = 5, 24
"""Seasons of daily stock prices, which skip weekends, and of hourly ones of markets that never close."""


def held_out_scores(
    pipeline: TotoPipeline, series: Iterable[PriceSeries], *, horizons: Sequence[int] = HORIZONS
) -> tuple[Score, ...]:
    """One score for every series and horizon: the median of samples beside last-value and seasonal-naive."""

    def median(contexts: NDArray[np.float32], horizon: int) -> NDArray[np.float64]:
        forecast = pipeline.predict(contexts[:, None], horizon, SAMPLES)  # the same noise for every window
        values: NDArray[np.float64] = forecast.median[:, 0].double().numpy()
        return values

    return tuple(
        score(
            one.symbol,
            one.close,
            median,
            start=one.last_fifth_start(),
            stop=len(one),
            horizon=horizon,
            context=CONTEXT,
            windows=WINDOWS,
            season=season_of(one),
        )
        for one in series
        for horizon in horizons
    )


def season_of(series: PriceSeries) -> int:
    """Steps in a season: a week of trading days, or a day of hours."""
    step = np.median(np.diff(series.timestamps).astype("timedelta64[s]").astype(np.int64))
    return DAYS_PER_WEEK if step >= 24 * 3600 else HOURS_PER_DAY


def average_ratio(scores: Iterable[Score], horizon: int) -> float:
    """Average over the symbols of model error over last-value error at ``horizon``."""
    return float(np.mean([one.ratio for one in scores if one.horizon == horizon]))
