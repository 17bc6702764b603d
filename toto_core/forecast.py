"""``Forecast``: sample paths of prices, or one deterministic path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Entry(Tensor):
    """One entry of a forecast: a tensor (sample, time), or (sample, variate, time), whose ``numpy()`` is the same.

    ``samples`` is what earlier code reads.
    """

    @property
    def samples(self) -> npt.NDArray[np.float32]:
        """The same numbers as an array (1, variate, time, sample)."""
        paths = self.as_subclass(Tensor)
        if paths.ndim == 2:
            paths = paths.unsqueeze(1)
        array: npt.NDArray[np.float32] = paths.permute(1, 2, 0).unsqueeze(0).numpy()
        return array


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A forecast of one or more series, in the units of the series, on the CPU.

    ``mean`` is (batch, variate, time); ``samples`` (batch, variate, time, sample), or None for the
    deterministic mean path. It is also a list: ``forecast[i]`` is series ``i`` as (sample, time), or
    (sample, variate, time) for several variates; a mean path counts as one sample. With ``by_variate``, of a
    context (variate, time), every variate is an entry (sample, time) of its own.
    """

    mean: Tensor
    samples: Tensor | None = None
    by_variate: bool = False

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
        return self._entries().shape[0]

    def __iter__(self) -> Iterator[Entry]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...

    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        series = self._entries()[index].permute(2, 0, 1)
        return (series.squeeze(1) if series.shape[1] == 1 else series).as_subclass(Entry)

    def _entries(self) -> Tensor:
        """Paths (entry, variate, time, sample)."""
        paths = self.mean.unsqueeze(-1) if self.samples is None else self.samples
        return paths.flatten(0, 1).unsqueeze(1) if self.by_variate else paths

    def _sampled(self) -> Tensor:
        if self.samples is None:
            raise ValueError("a deterministic mean path has no samples: ask predict for num_samples")
        return self.samples
