"""Patching and the causal patch scaler: every patch is scaled by the statistics of all data up to its end.

The statistics are those of the reference implementation (Welford's algorithm with Bessel's correction over
the time steps that are not padding, a floor of 0.1 on variance and scale), computed patch by patch with Chan,
Golub and LeVeque's (1979) parallel update, so that a decode step continues where the context stopped.
Everything is float64: in float32 a constant series near 109,000 already misses parity.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MINIMUM_SCALE = 0.1
"""Added to the variance and the floor of the scale, as in the reference's CausalPatchStdMeanScaler."""


class Stats(NamedTuple):
    """Running statistics of a series, all float64 and of one shape (batch, variate[, more]).

    ``observed`` counts the time steps that are not padding; ``m2`` is the sum of squared deviations.
    """

    observed: Tensor
    mean: Tensor
    m2: Tensor
    lowest_scale: Tensor
    highest_scale: Tensor


class Scaled(NamedTuple):
    """Scaled patches (batch, variate, patch, step); ``loc`` and ``scale`` are (batch, variate, patch)."""

    values: Tensor
    loc: Tensor
    scale: Tensor


def patches(series: Tensor, patch_size: int) -> Tensor:
    """Cut (batch, variate, time) into (batch, variate, patch, step); time must be whole patches."""
    return torch.unflatten(series, -1, (-1, patch_size))


def scale_context(
    series: Tensor, valid: Tensor, *, stabilize_with_global: bool, exponent: float
) -> tuple[Scaled, Stats]:
    """Scale a whole context and return the statistics at its end.

    ``series`` float32 (batch, variate, patch, step), ``valid`` bool of the same shape, False for padding.
    When ``stabilize_with_global``, a causal scale is clamped to 10^±exponent times the whole context's scale.
    """
    data = series.double()
    weight = valid.double()
    count = weight.sum(-1)
    mean = (data * weight).sum(-1) / count.clamp_min(1.0)
    m2 = ((data - mean.unsqueeze(-1)).square() * weight).sum(-1)
    total = count.cumsum(-1)
    running = (count * mean).cumsum(-1) / total.clamp_min(1.0)
    previous = torch.nn.functional.pad(running[..., :-1], (1, 0))
    m2_total = (m2 + count * (mean - previous) * (mean - running)).cumsum(-1)
    observed, m2_whole = total[..., -1], m2_total[..., -1]
    if stabilize_with_global:
        whole = (m2_whole / observed.clamp_min(1.0) + MINIMUM_SCALE).sqrt()
        lowest, highest = (whole * 10.0**-exponent).clamp_min(MINIMUM_SCALE), whole * 10.0**exponent
    else:
        lowest, highest = torch.zeros_like(m2_whole), torch.full_like(m2_whole, float("inf"))
    stats = Stats(observed, running[..., -1], m2_whole, lowest, highest)
    scale = _scale(total, m2_total, lowest.unsqueeze(-1), highest.unsqueeze(-1))
    return _apply(series, running, scale), stats


def scale_step(values: Tensor, stats: Stats) -> tuple[Scaled, Stats]:
    """Scale one more patch, (batch, variate, sample, step), without padding.

    ``stats`` are (batch, variate, sample). The bounds on the scale stay those of the context.
    """
    data = values.double()
    count = float(values.shape[-1])
    mean = data.mean(-1)
    m2 = (data - mean.unsqueeze(-1)).square().sum(-1)
    total = stats.observed + count
    delta = mean - stats.mean
    running = stats.mean + delta * (count / total)
    m2_total = stats.m2 + m2 + count * delta * (mean - running)
    scale = _scale(total, m2_total, stats.lowest_scale, stats.highest_scale)
    new = Stats(total, running, m2_total, stats.lowest_scale, stats.highest_scale)
    return _apply(values, running, scale), new


def _scale(count: Tensor, m2: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    variance = m2 / (count - 1.0).clamp_min(1.0)
    return torch.minimum(torch.maximum((variance + MINIMUM_SCALE).sqrt(), lowest), highest)


def _apply(values: Tensor, loc: Tensor, scale: Tensor) -> Scaled:
    loc, scale = loc.to(values.dtype), scale.to(values.dtype)
    return Scaled((values - loc.unsqueeze(-1)) / scale.unsqueeze(-1), loc, scale)
