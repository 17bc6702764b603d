"""``Forecast``: sample paths of prices, or one deterministic path."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A forecast of one or more series, in the units of the series, on the CPU.

    ``mean`` is (batch, variate, time); ``samples`` (batch, variate, time, sample), or None for the
    deterministic mean path. ``forecast[i]`` is series ``i`` as (sample, time), or (sample, variate, time) for
    several variates; a mean path counts as one sample.
    """

    mean: Tensor
    samples: Tensor | None = None

    @property
    def median(self) -> Tensor:
        """Median of the samples, (batch, variate, time)."""
        return self.quantile(0.5)

    @property
    def std(self) -> Tensor:
        """Standard deviation of the samples, (batch, variate, time)."""
        return self._sampled().std(dim=-1)

    def quantile(self, q: float | Tensor) -> Tensor:
        """Quantile ``q`` of the samples, (batch, variate, time), with a leading dimension for several ``q``.

        Raises ``ValueError`` on a deterministic mean path, which has no samples.
        """
        samples = self._sampled()
        return torch.quantile(samples, torch.as_tensor(q, dtype=samples.dtype), dim=-1)

    def __len__(self) -> int:
        return self.mean.shape[0]

    def __getitem__(self, index: int) -> Tensor:
        paths = self.mean.unsqueeze(-1) if self.samples is None else self.samples
        series = paths[index].permute(2, 0, 1)
        return series.squeeze(1) if series.shape[1] == 1 else series

    def _sampled(self) -> Tensor:
        if self.samples is None:
            raise ValueError("a deterministic mean path has no samples: ask predict for num_samples")
        return self.samples
