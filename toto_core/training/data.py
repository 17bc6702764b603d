"""Training windows: the first 60 % of each sample series, mirrored and rescaled, beside synthetic walks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Prices = NDArray[np.float64]

TRAIN_END, VALIDATION_END = 0.6, 0.8
"""Shares of a series: trained on the first, stopped on the second part, scored once on the rest."""


def training_batch(
    series: Mapping[str, Prices], rng: np.random.Generator, *, size: int, length: int, real_share: float
) -> NDArray[np.float32]:
    """A batch of price windows, float32 (size, length): real ones first, then synthetic walks.

    Every window is brought to a random price level, because a forecast must not depend on the currency.
    """
    real = round(size * real_share)
    windows = [_real_window(series, rng, length) for _ in range(real)]
    windows += [synthetic_walk(rng, length) for _ in range(size - real)]
    batch = np.stack(windows)
    level = np.exp(rng.normal(np.log(100.0), 1.5, size=(size, 1)))
    return (batch * level).astype(np.float32)


def synthetic_walk(rng: np.random.Generator, length: int) -> Prices:
    """A geometric walk of level 1: Student-t returns, persistent volatility, sometimes a drift or jumps.

    A walk without drift teaches what a market mostly is: the median of the future is the last price.
    """
    daily = np.exp(rng.normal(np.log(0.012), 0.8))
    persistence = rng.uniform(0.9, 0.995)
    shocks = rng.normal(0.0, rng.uniform(0.0, 0.25), size=length)
    log_volatility = np.zeros(length)
    for step in range(1, length):
        log_volatility[step] = persistence * log_volatility[step - 1] + shocks[step]
    df = rng.uniform(2.5, 12.0)
    returns = daily * np.exp(log_volatility) * rng.standard_t(df, size=length) / np.sqrt(df / (df - 2.0))
    returns += rng.normal(0.0, daily * 0.03)
    jumps = rng.random(length) < rng.choice((0.0, 0.004))
    returns += jumps * rng.normal(0.0, 8.0 * daily, size=length)
    return _from_returns(np.clip(returns, -0.5, 0.5))


def _real_window(series: Mapping[str, Prices], rng: np.random.Generator, length: int) -> Prices:
    prices = series[str(rng.choice(sorted(series)))]
    end = int(len(prices) * TRAIN_END)
    start = int(rng.integers(0, end - length))
    returns = np.diff(np.log(prices[start : start + length]), prepend=np.log(prices[start]))
    sign = rng.choice((-1.0, 1.0))  # mirrored in the logarithm, so that no trend of the past is learned
    if rng.random() < 0.5:
        returns = returns[::-1]
    return _from_returns(sign * returns)


def _from_returns(returns: Prices) -> Prices:
    walk = np.cumsum(returns)
    prices: Prices = np.exp(walk - walk.mean())
    return prices
