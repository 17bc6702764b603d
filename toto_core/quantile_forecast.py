"""``QuantileForecast``: quantiles of prices at fixed levels, from a model that draws no samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROUNDING = 1e-6
"""A level this close to a trained one is that one: 0.3 in float32 is not 0.3 in float64."""


@dataclass(frozen=True, kw_only=True)
class QuantileForecast:
    """A forecast of one or more series, in the units of the series, on the CPU.

    ``quantiles`` is (level, batch, variate, time), rising along its first dimension; ``levels`` are theirs.
    """

    quantiles: Tensor
    levels: tuple[float, ...]
    samples: None = None
    """There are none: every number is a quantile."""

    @property
    def median(self) -> Tensor:
        """The median, (batch, variate, time)."""
        return self.quantile(0.5)

    @property
    def mean(self) -> Tensor:
        """The median, (batch, variate, time): the quantiles tell no mean, and GluonTS says the same in its place."""
        return self.median

    def quantile(self, q: float | Tensor) -> Tensor:
        """Quantile ``q``, (batch, variate, time), with a leading dimension for several ``q``.

        Between the trained levels it is interpolated linearly. Raises ``ValueError`` outside of them, of which the
        model says nothing.
        """
        asked = torch.as_tensor(q, dtype=torch.float64)
        trained = torch.tensor(self.levels, dtype=torch.float64)
        if bool(((asked < trained[0] - _ROUNDING) | (asked > trained[-1] + _ROUNDING) | asked.isnan()).any()):
            raise ValueError(
                f"quantile {q} is outside of what the model is trained for, {self.levels[0]} to {self.levels[-1]}"
            )
        above = torch.searchsorted(trained, asked - _ROUNDING).clamp(1, len(self.levels) - 1)
        share = ((asked - trained[above - 1]) / (trained[above] - trained[above - 1])).clamp(0.0, 1.0)
        share = torch.where((share - share.round()).abs() < 10.0 * _ROUNDING, share.round(), share)
        share = share.reshape(*share.shape, 1, 1, 1).to(self.quantiles.dtype)
        return torch.lerp(self.quantiles[above - 1], self.quantiles[above], share)

    def __len__(self) -> int:
        return self.quantiles.shape[1]
