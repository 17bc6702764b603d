"""Brings small prices to a scale at which the reference's floor moves no forecast, and the forecasts back.

The reference adds 0.1 to the variance by which it scales a series (``toto1.scaling``). Beside a price of 100,000
that is nothing; a price of 0.00001 vanishes in it, and its forecast is a thousand times the price. A power of ten
changes no digit of a price, so a series that the floor would move is forecast times one, and the forecast divided
by it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAST = 1e6
"""Spread times level that a series has, or is brought to.

The floor changes the scale by the share 0.05 / spread**2 (first order of sqrt(spread**2 + 0.1)), and with it a
forecast, in shares of the price, by about 0.05 / (spread * level): less than 1e-7 here.
"""
LEAST_SPREAD = 1e-4
"""Of the level: a series that never moves is scaled by its level, or its noise would be the floor's."""


def powers_of_ten(series: Tensor, valid: Tensor) -> Tensor | None:
    """What each series is to be multiplied by, (batch, variate), at least 1; None for 1 throughout.

    ``series`` is (batch, variate, time), ``valid`` True for its real values.
    """
    data = series.double()
    if bool(valid.all()):
        variance, mean = torch.var_mean(data, -1, correction=0)
    else:
        weight = valid.double()
        count = weight.sum(-1).clamp_min(1.0)
        mean = (data * weight).sum(-1) / count
        variance = ((data - mean.unsqueeze(-1)).square() * weight).sum(-1) / count
    pairs = zip(variance.flatten().tolist(), mean.flatten().tolist(), strict=True)
    powers = [
        _power(spread_squared, level) for spread_squared, level in pairs
    ]  # quicker than on tensors so small
    if max(powers) == 1.0:
        return None
    return torch.tensor(powers, dtype=series.dtype).reshape(mean.shape)


def _power(variance: float, mean: float) -> float:
    level_squared = variance + mean * mean
    product = math.sqrt(max(variance, level_squared * LEAST_SPREAD**2) * level_squared)
    if product >= LEAST or product == 0.0:
        return 1.0
    return 10.0 ** math.ceil(math.log10(LEAST / product) / 2)
