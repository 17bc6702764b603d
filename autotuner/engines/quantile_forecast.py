"""``QuantileForecast``: prices at some quantile levels, with what lies between interpolated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class QuantileForecast:
    """A forecast of one or more series in the units of the series, on the CPU.

    ``quantiles`` is (level, batch, variate, time) at ``levels``, which rise. Raises ``ValueError`` for others.
    """

    quantiles: Tensor
    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.quantiles.ndim != 4 or self.quantiles.shape[0] != len(self.levels) or not self.levels:
            raise ValueError(
                f"forecast: quantiles must be ({len(self.levels)}, batch, variate, time), "
                f"not {tuple(self.quantiles.shape)}"
            )
        if any(low >= high for low, high in zip(self.levels, self.levels[1:], strict=False)):
            raise ValueError(f"forecast: levels must rise, not {self.levels}")

    @property
    def median(self) -> Tensor:
        """The middle of the forecast, (batch, variate, time)."""
        return self.quantile(0.5)

    def quantile(self, q: float | Tensor) -> Tensor:
        """Quantile ``q``, (batch, variate, time), with a leading dimension for several ``q``.

        Between two levels it is interpolated linearly. Raises ``ValueError`` beyond the lowest and the highest.
        """
        if isinstance(q, Tensor) and q.ndim:
            return torch.stack([self.quantile(float(each)) for each in q])
        wanted = float(q)
        if not self.levels[0] - 1e-9 <= wanted <= self.levels[-1] + 1e-9:
            raise ValueError(
                f"forecast: this model gives quantiles from {self.levels[0]} to {self.levels[-1]}, not {wanted}"
            )
        above = next(place for place, level in enumerate(self.levels) if level >= wanted - 1e-9)
        high = self.quantiles[above]
        if abs(self.levels[above] - wanted) <= 1e-9 or above == 0:
            return high
        low_level, high_level = self.levels[above - 1 : above + 1]
        share = (wanted - low_level) / (high_level - low_level)
        return self.quantiles[above - 1].lerp(high, share)
