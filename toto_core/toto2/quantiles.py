"""From the head's output to prices: quantiles in units of the series, capped where asked, in order."""

from __future__ import annotations

import torch
from torch import Tensor

from toto_core.toto2.model_config import LEVELS
from toto_core.toto2.scaling import Scale

MEDIAN = LEVELS.index(0.5)


def prices(raw: Tensor, newest: Scale, limits: tuple[Tensor, Tensor] | None) -> Tensor:
    """Quantiles (level, batch, variate, time) from (batch, variate, patch, level, step).

    ``newest`` is the scale of the newest known patch, (batch, variate). ``limits`` (batch, variate) bound every
    quantile, as the reference's cap does.
    """
    loc, scale = (each[..., None, None, None] for each in newest)
    real = _finite(raw.sinh() * scale + loc)
    if limits is not None:
        low, high = (each[..., None, None, None] for each in limits)
        real = torch.minimum(torch.maximum(real, low), high)
    ordered = real.sort(dim=-2).values
    return ordered.permute(3, 0, 1, 2, 4).flatten(-2)


def _finite(values: Tensor) -> Tensor:
    """Infinite values as the largest, or smallest, finite one of the same level and patch, as in the reference."""
    infinite = torch.full_like(values, torch.inf)
    finite = values.isfinite()
    highest = torch.where(finite, values, -infinite).amax(-1, keepdim=True)
    lowest = torch.where(finite, values, infinite).amin(-1, keepdim=True)
    values = torch.where(values == torch.inf, highest, values)
    return torch.where(values == -torch.inf, lowest, values)


def median_of(quantiles: Tensor) -> Tensor:
    """The medians (batch, variate, time) that a later pass is fed, contiguous as a caller's would be."""
    return quantiles[MEDIAN].contiguous()
