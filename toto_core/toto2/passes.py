"""What the passes of a forecast are given and give: contexts, plans, caches, blocks of quantiles.

Rows of a request are its variates, then its known inputs; a series is one row of one request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from toto_core.toto2.scaling import Running


class Known(NamedTuple):
    """Inputs known beyond the context: values float32 and ``observed`` bool, (batch, known, time).

    Time is that of the context and of the patches of all passes.
    """

    values: Tensor
    observed: Tensor


class Context(NamedTuple):
    """What the first pass reads.

    ``series`` float32 (batch, variate, time), whole patches; ``observed`` bool of the same shape, None where
    everything is; ``groups`` int64 (batch, row), None where all rows are one group; ``known`` inputs, or None;
    ``pad_patches`` int64 (batch,), how many leading patches a bucket added, None where none did.
    """

    series: Tensor
    observed: Tensor | None
    groups: Tensor | None
    known: Known | None
    pad_patches: Tensor | None

    def each(self, change: Callable[[Tensor], Tensor]) -> Context:
        """A context with every tensor changed alike; what is None stays None."""

        def maybe(part: Tensor | None) -> Tensor | None:
            return None if part is None else change(part)

        known = None if self.known is None else Known(change(self.known.values), change(self.known.observed))
        observed, groups, pads = map(maybe, (self.observed, self.groups, self.pad_patches))
        return Context(change(self.series), observed, groups, known, pads)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a forecast is made: ``block`` patches in a pass, room in the caches for ``later`` passes after the first.

    ``masked`` hides patches nothing of which was observed, which a context without any does not need.
    ``min_observed`` is that of ``scaling``, ``cap`` that of ``scaling.bounds``; 0 for neither.
    """

    block: int
    later: int
    masked: bool
    min_observed: int = 0
    cap: float = 0.0

    @property
    def room(self) -> int:
        """Places that later passes need in a cache beside the context's."""
        return self.later * self.block + self.block - 1


class Carry(NamedTuple):
    """What later passes need of the first, none of which they change but the caches, in place.

    ``keys`` and ``values`` hold a tensor for each layer over time, (series, head, place, head_dim); ``visible`` bool
    (series, place), ``same_group`` bool (batch, token, row, row), ``limits`` two of (batch, variate): each None
    where it hides or bounds nothing.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    visible: Tensor | None
    same_group: Tensor | None
    limits: tuple[Tensor, Tensor] | None


class KnownTokens(NamedTuple):
    """Tokens of known inputs to come, (batch, known, patch, width): as the past sees them, and as the future does.

    The latter have a block more, which stands for nothing, so that every pass has as many.
    """

    past: Tensor
    future: Tensor

    def around(self, patch: int, block: int) -> KnownTokens:
        """What the pass needs whose first patch to come is ``patch``."""
        past, future = self.past[:, :, patch - block : patch], self.future[:, :, patch : patch + block - 1]
        return KnownTokens(past, future)


class FirstBlock(NamedTuple):
    """Quantiles of the first block, (level, batch, variate, time), and what later passes need, if any follow."""

    quantiles: Tensor
    running: Running | None
    carry: Carry | None
    known: KnownTokens | None


class Fed(NamedTuple):
    """What a later pass is fed: the medians of the block before, (batch, variate, time), the statistics up to them,
    and the tokens of known inputs around them, if there are any.
    """

    medians: Tensor
    running: Running
    known: KnownTokens | None


class NextBlock(NamedTuple):
    """Quantiles of a later block, and the statistics that the one after it begins with."""

    quantiles: Tensor
    running: Running


class Place(NamedTuple):
    """Where a pass stands: ``start``, patches cached, and ``end``, patches known when it is done.

    0-d int64 for later passes, so that one graph serves them all. ``pad_patches`` is that of ``Context``.
    """

    start: Tensor | int
    end: Tensor | int
    pad_patches: Tensor | None
