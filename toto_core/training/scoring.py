"""Mean absolute error of a model beside last-value and seasonal-naive forecasts, on a share of a series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from toto_core.toto1.decode import Context, Decoder
from toto_core.toto1.sampling import draw_noise, sample
from toto_core.training.data import Prices

Median = Callable[[NDArray[np.float32], int], NDArray[np.float64]]
"""Contexts (window, time) and a horizon to median forecasts (window, horizon)."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Mean absolute errors over all steps 1 … horizon of all windows, in price units."""

    symbol: str
    horizon: int
    windows: int
    model: float
    last_value: float
    seasonal: float

    @property
    def ratio(self) -> float:
        """Model error over last-value error; 1 is as good as the last value."""
        return self.model / self.last_value


def score(
    symbol: str,
    prices: Prices,
    median: Median,
    *,
    start: int,
    stop: int,
    horizon: int,
    context: int,
    windows: int,
    season: int,
) -> Score:
    """Score on at most ``windows`` evenly spread origins whose targets lie in ``prices[start:stop]``.

    Contexts may reach back before ``start``. ``season`` is how many steps back the seasonal forecast looks.
    Raises ``ValueError`` when the share is shorter than the horizon.
    """
    first, last = max(start, context), stop - horizon
    if last < first:
        raise ValueError(f"{symbol}: no room for {horizon} steps after {context} before {stop}")
    origins = np.unique(np.linspace(first, last, windows).astype(int))
    contexts = np.stack([prices[o - context : o] for o in origins]).astype(np.float32)
    targets = np.stack([prices[o : o + horizon] for o in origins])
    seasonal_index = np.arange(horizon) % season - season
    return Score(
        symbol=symbol,
        horizon=horizon,
        windows=len(origins),
        model=_mae(median(contexts, horizon), targets),
        last_value=_mae(np.repeat(contexts[:, -1:], horizon, axis=1), targets),
        seasonal=_mae(contexts[:, seasonal_index], targets),
    )


def one_patch_median(decoder: Decoder, num_samples: int = 200) -> Median:
    """Median forecasts within one patch, straight from the prefill: what early stopping looks at."""

    def median(contexts: NDArray[np.float32], horizon: int) -> NDArray[np.float64]:
        series = torch.from_numpy(contexts).unsqueeze(1)
        context = Context(series, torch.ones_like(series, dtype=torch.bool), None, None)
        with torch.inference_mode():
            prediction, _ = decoder.prefill(context, horizon)
            noise = draw_noise(0, num_samples=num_samples, variates=1, steps=horizon)
            uniforms = (n.expand(len(contexts), 1, horizon, num_samples) for n in noise)
            scaled = sample(prediction.mixture, *uniforms).median(-1).values
            prices = prediction.loc.unsqueeze(-1) + prediction.scale.unsqueeze(-1) * scaled
        return prices[:, 0].double().numpy()

    return median


def _mae(forecast: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    return float(np.abs(forecast - target).mean())
