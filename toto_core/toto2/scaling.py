"""The causal patch scaler of Toto 2.0: every patch is scaled by the statistics of all data up to its own end.

Mean and standard deviation (Bessel's correction, at least 1e-6) of the observed time steps, in float64, computed
patch by patch with Chan, Golub and LeVeque's (1979) parallel update, so that a later block continues where the
context stopped. With ``min_observed``, patches before so many observations take the statistics of just these,
the reference's backfill of short starts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

MINIMUM_SCALE = 1e-6
"""The floor of the scale, as in the reference's PatchedCausalStdScaler."""


class Stats(NamedTuple):
    """Statistics of a series so far, float64 (batch, row): observed steps, their mean and squared deviations."""

    observed: Tensor
    mean: Tensor
    m2: Tensor


class Running(NamedTuple):
    """``whole``: all that was observed; ``start``: the first ``min_observed`` of it, None without backfill."""

    whole: Stats
    start: Stats | None


class Scale(NamedTuple):
    """By what patches are scaled, float32 (batch, row, patch): (value - loc) / scale."""

    loc: Tensor
    scale: Tensor

    def newest(self) -> Scale:
        """That of the newest patch, (batch, row)."""
        return Scale(self.loc[..., -1], self.scale[..., -1])

    def apply(self, values: Tensor) -> Tensor:
        """Scaled and compressed values of (batch, row, patch, step)."""
        return ((values - self.loc.unsqueeze(-1)) / self.scale.unsqueeze(-1)).asinh()


def begin(values: Tensor, observed: Tensor | None, min_observed: int) -> tuple[Scale, Running]:
    """The scale of every patch of (batch, row, patch, step), and the statistics at their end.

    ``observed`` is bool of the same shape, None where everything is.
    """
    zeros = torch.zeros(values.shape[:2], dtype=torch.float64, device=values.device)
    nothing = Stats(zeros, zeros, zeros)
    return proceed(values, observed, Running(nothing, nothing if min_observed > 0 else None), min_observed)


def proceed(
    values: Tensor, observed: Tensor | None, before: Running, min_observed: int
) -> tuple[Scale, Running]:
    """``begin`` for patches that follow on those whose statistics are ``before``."""
    data = values.double()
    weight = None if observed is None else observed.double()
    whole = _cumulated(_by_patch(data, weight), _counted(data, weight), before.whole)
    loc, scale = whole.mean, _deviation(whole)
    after = Stats(*(each[..., -1] for each in whole))
    if before.start is None:
        return Scale(loc.float(), scale.float()), Running(after, None)
    start = _first_observed(data, weight, before, min_observed)
    below = whole.observed < min_observed
    loc = torch.where(below, start.mean.unsqueeze(-1), loc)
    scale = torch.where(below, _deviation(start).unsqueeze(-1), scale)
    return Scale(loc.float(), scale.float()), Running(after, start)


def _by_patch(data: Tensor, weight: Tensor | None) -> Stats:
    """Statistics of each patch alone, (batch, row, patch)."""
    if weight is None:
        mean = data.mean(-1)
        observed = torch.full_like(mean, float(data.shape[-1]))
        return Stats(observed, mean, (data - mean.unsqueeze(-1)).square().sum(-1))
    observed = weight.sum(-1)
    mean = (data * weight).sum(-1) / observed.clamp_min(1.0)
    return Stats(observed, mean, ((data - mean.unsqueeze(-1)).square() * weight).sum(-1))


def _counted(data: Tensor, weight: Tensor | None) -> Tensor:
    """Observed steps up to the end of each patch, (batch, row, patch)."""
    if weight is not None:
        return weight.sum(-1).cumsum(-1)
    patches, steps = data.shape[-2:]
    ends = torch.arange(steps, (patches + 1) * steps, steps, dtype=data.dtype, device=data.device)
    return ends.expand(data.shape[:-1])


def _cumulated(patches: Stats, counted: Tensor, before: Stats) -> Stats:
    """Statistics up to the end of each patch, (batch, row, patch)."""
    observed, mean, m2 = patches
    total = before.observed.unsqueeze(-1) + counted
    sums = (before.observed * before.mean).unsqueeze(-1) + (observed * mean).cumsum(-1)
    running = sums / total.clamp_min(1.0)
    previous = torch.cat((before.mean.unsqueeze(-1), running[..., :-1]), dim=-1)
    between = observed * (mean - previous) * (mean - running)
    return Stats(total, running, before.m2.unsqueeze(-1) + (m2 + between).cumsum(-1))


def _first_observed(data: Tensor, weight: Tensor | None, before: Running, min_observed: int) -> Stats:
    """Statistics of the first ``min_observed`` observations, of which ``before.start`` holds those seen."""
    assert before.start is not None
    flat = data.flatten(-2)
    seen = torch.ones_like(flat) if weight is None else weight.flatten(-2)
    steps = _counted(flat.unsqueeze(-1), None if weight is None else seen.unsqueeze(-1))
    chosen = (seen * (before.whole.observed.unsqueeze(-1) + steps <= min_observed)).unsqueeze(-2)
    values = flat.unsqueeze(-2)
    joined = _cumulated(_by_patch(values, chosen), _counted(values, chosen), before.start)
    return Stats(*(each[..., -1] for each in joined))


def _deviation(stats: Stats) -> Tensor:
    variance = stats.m2 / (stats.observed - 1.0).clamp_min(1.0)
    return variance.sqrt().clamp_min(MINIMUM_SCALE)


def bounds(values: Tensor, observed: Tensor | None, scale: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """The least and the greatest value that a quantile may take, (batch, row): ``cap`` scales beyond what was seen.

    ``values`` are (batch, row, time); ``scale`` (batch, row) is that of the newest patch.
    """
    infinite = torch.full_like(values, torch.inf)
    low = values if observed is None else torch.where(observed, values, infinite)
    high = values if observed is None else torch.where(observed, values, -infinite)
    lowest = torch.nan_to_num(low.amin(-1), posinf=0.0)
    highest = torch.nan_to_num(high.amax(-1), neginf=0.0)
    return lowest - cap * scale, highest + cap * scale
