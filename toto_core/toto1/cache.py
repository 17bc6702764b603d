"""Static key/value caches: one prefix per series, shared by its samples, and one suffix per sample."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Prefix(NamedTuple):
    """Keys and values of the context by time-wise layer, each (batch, variate, head, patch, head_dim)."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


class Suffix(NamedTuple):
    """Keys and values of the generated patches, preallocated, one tensor per time-wise layer.

    Each is (batch, variate, head, sample, slot, head_dim); slot ``i`` holds the i-th generated patch.
    ``slot``, 0-d int64, is the one that the next patch goes to.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    slot: Tensor

    def at(self, slot: int) -> Suffix:
        """The same caches, with the next patch going to ``slot``."""
        return self._replace(slot=torch.full_like(self.slot, slot))


def empty_suffix(prefix: Prefix, *, samples: int, slots: int) -> Suffix:
    """A zeroed suffix for ``samples`` samples and ``slots`` generated patches, shaped after ``prefix``."""

    def empty(like: Tensor) -> Tensor:
        batch, variates, heads, _, head_dim = like.shape
        return like.new_zeros((batch, variates, heads, samples, slots, head_dim))

    start = torch.zeros((), dtype=torch.int64, device=prefix.keys[0].device)
    return Suffix(tuple(map(empty, prefix.keys)), tuple(map(empty, prefix.values)), start)


def store(cache: Tensor, new: Tensor, slot: Tensor) -> None:
    """Write ``new``, (batch, variate, head, sample, head_dim), into ``cache`` at the 0-d int64 ``slot``, in place."""
    cache.index_copy_(4, slot.reshape(1), new.unsqueeze(4))


def slots_in_use(cache: Tensor, slot: Tensor) -> Tensor:
    """Bool (slot,): which slots of ``cache`` hold a patch once ``slot`` is written."""
    return torch.arange(cache.shape[4], device=cache.device) <= slot
