"""Inference: one pass over the context and the first block of a forecast, then one pass for each later block.

The model predicts the next patch at every patch. A patch that is still to come is an empty token, all of whose steps
count as unobserved; all patches of a block are predicted at once, from the newest known patch and the empty tokens
after it. A later block is fed the medians of the one before, whose keys and values stay in the cache. The last empty
token of a pass tells nothing that is asked for, so there is none.

Rows of a request are its variates, then its known inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from toto_core.toto2.layers import (
    Layer,
    ResidualMlp,
    Rotation,
    later_time_layer,
    normalized,
    rotation,
    time_layer,
    variate_layer,
)
from toto_core.toto2.model_config import LEVELS, Toto2Config
from toto_core.toto2.quantiles import MEDIAN, prices
from toto_core.toto2.scaling import Running, Scale, Stats, begin, bounds, proceed


class Known(NamedTuple):
    """Inputs known beyond the context: values float32 and ``observed`` bool, (batch, known, time).

    Time is that of the context and of all patches to come.
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
    """How a forecast of ``patches`` patches is made: ``block`` of them in a pass.

    ``masked`` hides patches nothing of which was observed, which a context without any does not need.
    ``min_observed`` is that of ``scaling``, ``cap`` that of ``scaling.bounds``; 0 for neither.
    """

    patches: int
    block: int
    masked: bool
    min_observed: int = 0
    cap: float = 0.0

    @property
    def later(self) -> int:
        """Passes after the first."""
        return -(-self.patches // self.block) - 1

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


class NextBlock(NamedTuple):
    """Quantiles of a later block, and the statistics that the one after it begins with."""

    quantiles: Tensor
    running: Running


class Place(NamedTuple):
    """Where a later pass stands: ``start``, patches cached, and ``end``, patches known when it is done, 0-d int64.

    ``pad_patches`` is that of ``Context``.
    """

    start: Tensor
    end: Tensor
    pad_patches: Tensor | None


@dataclass(frozen=True, kw_only=True)
class LayerOps:
    """The three repeated layer functions, which ``compiling`` may replace."""

    variate: Callable[..., Tensor] = variate_layer
    time: Callable[..., tuple[Tensor, Tensor, Tensor]] = time_layer
    later: Callable[..., Tensor] = later_time_layer


_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Precisions whose weights are stored narrower; those of ``fp32`` and ``tf32`` are the same."""


class Decoder(nn.Module):
    """A model prepared for inference in one precision, from the weights that ``folding`` makes.

    The layers' products run in that precision. The products before and after them stay float32: rounding the newest
    price to bf16 would move a forecast by more than a tick.
    """

    blank: Tensor
    final_eps: Tensor

    def __init__(self, config: Toto2Config, weights: dict[str, Tensor], *, precision: str = "fp32") -> None:
        super().__init__()
        self.config = config
        width, size = config.d_model, config.patch_size
        with torch.device("meta"):  # the weights are assigned below; initialising them would only cost time
            self.embed = ResidualMlp(2 * size, 4 * width, width)
            self.layers = nn.ModuleList(Layer(config, axis) for axis in config.layer_axes)
            self.head = ResidualMlp(width, 4 * width, size * len(LEVELS))
            self.register_buffer("final_eps", torch.empty(()))
        self.load_state_dict(weights, assign=True)
        for module in self.layers.modules():
            if isinstance(module, nn.Linear) and precision in _HALF:
                module.to(_HALF[precision])
        with torch.no_grad():
            nothing = torch.cat((torch.zeros(size), torch.ones(size)))
            self.register_buffer("blank", self.embed(nothing), persistent=False)
        self.last_time = max((i for i, axis in enumerate(config.layer_axes) if axis == "time"), default=-1)
        self.ops = LayerOps()

    @property
    def time_layers(self) -> int:
        """How many layers attend over time."""
        return self.config.layer_axes.count("time")

    def first(self, context: Context, plan: Plan) -> FirstBlock:
        """Read the whole context and forecast the first block."""
        values, observed = self._patches(context.series), self._patches(context.observed)
        scale, running = begin(values, observed, plan.min_observed)
        tokens = self._tokens(values, observed, scale)
        batch, _, patches, width = tokens.shape
        tokens = torch.cat((tokens, self.blank.expand(*tokens.shape[:2], plan.block - 1, width)), dim=2)
        known = None
        if context.known is not None:
            known, theirs = self._known_tokens(context.known, plan, patches)
            tokens = torch.cat((tokens, theirs), dim=1)
        rows = tokens.shape[1]
        seen = self._seen(context, plan, patches)
        same_group = _same_group(context.groups, seen, rows, tokens.shape[2])
        rotary = self._rotation(patches + plan.block - 1, None, patches + plan.block, context.pad_patches, rows)
        x, keys, values_kept = self._first_layers(
            tokens.flatten(0, 1), rotary, _causal(seen, tokens.shape[2]), same_group, rows=rows, last=plan.block
        )
        newest = Scale(scale.loc[..., -1], scale.scale[..., -1])
        limits = None
        if plan.cap > 0.0:
            limits = bounds(context.series, context.observed, newest.scale, plan.cap)
        quantiles = self._quantiles(x.unflatten(0, (batch, rows)), newest, limits)
        if plan.later == 0:
            return FirstBlock(quantiles, None, None, None)
        room = plan.room
        carry = Carry(
            tuple(pad(key[:, :, :patches], (0, 0, 0, room)) for key in keys),
            tuple(pad(value[:, :, :patches], (0, 0, 0, room)) for value in values_kept),
            None if seen is None else pad(seen.flatten(0, 1), (0, room), value=True),
            _later_groups(context, seen, rows, 2 * plan.block - 1),
            limits,
        )
        return FirstBlock(quantiles, running, carry, known)

    def following(
        self, medians: Tensor, running: Running, carry: Carry, place: Place, known: KnownTokens | None, plan: Plan
    ) -> NextBlock:
        """Feed back the medians of the block before, (batch, variate, time), and forecast the next one.

        ``known`` are the tokens of known inputs in the block before (``past``) and, but for the last patch, in
        this one (``future``). The caches of ``carry`` are written.
        """
        values = self._patches(medians)
        scale, running = proceed(values, None, running, plan.min_observed)
        tokens = self._tokens(values, None, scale)
        batch, _, block, width = tokens.shape
        tokens = torch.cat((tokens, self.blank.expand(*tokens.shape[:2], block - 1, width)), dim=2)
        if known is not None:
            tokens = torch.cat((tokens, torch.cat((known.past, known.future), dim=2)), dim=1)
        rows, count = tokens.shape[1], tokens.shape[2]
        places = place.start + torch.arange(count, device=tokens.device)
        rotary = self._rotation(count, place.start, place.end, place.pad_patches, rows)
        mask = _later_mask(carry, places) if self.time_layers else None
        x, time_index = tokens.flatten(0, 1), 0
        for index, (layer, axis) in enumerate(zip(self.layers, self.config.layer_axes, strict=True)):
            if axis == "variate":
                mine = carry.same_group
                x = self.ops.variate(layer, x, rows, None if mine is None else mine[:, -x.shape[1] :])
                continue
            cache = (carry.keys[time_index], carry.values[time_index])
            last = block if index == self.last_time else count
            x = self.ops.later(layer, x, rotary, cache, places, mask, last)
            time_index += 1
        newest = Scale(scale.loc[..., -1], scale.scale[..., -1])
        return NextBlock(self._quantiles(x[:, -block:].unflatten(0, (batch, rows)), newest, carry.limits), running)

    def _first_layers(
        self,
        x: Tensor,
        rotary: Rotation,
        mask: Tensor | None,
        same_group: Tensor | None,
        *,
        rows: int,
        last: int,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The stream of the ``last`` tokens after all layers, and the keys and values of each layer over time."""
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for index, (layer, axis) in enumerate(zip(self.layers, self.config.layer_axes, strict=True)):
            if axis == "variate":
                mine = None if same_group is None else same_group[:, -x.shape[1] :]
                x = self.ops.variate(layer, x, rows, mine)
                continue
            kept = last if index == self.last_time else x.shape[1]
            x, key, value = self.ops.time(layer, x, rotary, mask, kept)
            keys.append(key)
            values.append(value)
        return x[:, -last:], keys, values

    def _patches(self, series: Tensor | None) -> Tensor | None:
        return None if series is None else series.unflatten(-1, (-1, self.config.patch_size))

    def _tokens(self, values: Tensor, observed: Tensor | None, scale: Scale) -> Tensor:
        """Tokens (batch, row, patch, width) of patches (batch, row, patch, step)."""
        scaled = scale.apply(values)
        if observed is None:
            return self.embed.of_first(scaled)
        scaled = torch.where(observed, scaled, torch.zeros_like(scaled))
        tokens: Tensor = self.embed(torch.cat((scaled, (~observed).to(scaled.dtype)), dim=-1))
        return tokens

    def _known_tokens(self, known: Known, plan: Plan, patches: int) -> tuple[KnownTokens, Tensor]:
        """Tokens of known inputs: those to come, and those of the first pass."""
        values, observed = self._patches(known.values), self._patches(known.observed)
        scale, _ = begin(values, observed, plan.min_observed)
        tokens = self._tokens(values, observed, scale)
        first = tokens[:, :, : patches + plan.block - 1]
        # what is past counts as observed throughout, with 0 where it was not
        scaled = torch.where(observed, scale.apply(values), torch.zeros_like(values))[:, :, patches:]
        past, future = self.embed.of_first(scaled), tokens[:, :, patches:]
        return KnownTokens(past, pad(future, (0, 0, 0, plan.block))), first

    def _seen(self, context: Context, plan: Plan, patches: int) -> Tensor | None:
        """Bool (batch, row, patch): which patches of the context hold an observation; None where all do."""
        if not plan.masked:
            return None
        if context.observed is None:
            seen = torch.ones_like(context.series[..., :: self.config.patch_size], dtype=torch.bool)
        else:
            seen = self._patches(context.observed).any(-1)
        if context.known is None:
            return seen
        return torch.cat((seen, self._patches(context.known.observed)[:, :, :patches].any(-1)), dim=1)

    def _rotation(
        self, count: int, start: Tensor | None, end: Tensor | int, pads: Tensor | None, rows: int
    ) -> Rotation:
        """Tables for ``count`` tokens from ``start`` on of a pass that reaches up to ``end`` patches."""
        position = torch.arange(count, device=self.blank.device)
        if start is not None:
            position = position + start
        center = self._center(end, pads, rows) if self.config.use_xpos else None
        return rotation(position.float(), center, self.config.qk_dim // 4)

    def _center(self, end: Tensor | int, pads: Tensor | None, rows: int) -> Tensor:
        """Where xPos has the factor 1: half of the patches that a pass without a bucket's would have."""
        ends = torch.as_tensor(end, device=self.blank.device)
        if pads is None:
            return torch.div(ends, 2, rounding_mode="floor").float().reshape(1, 1)
        middle = torch.div(ends - pads, 2, rounding_mode="floor") + pads
        return middle.repeat_interleave(rows).float().unsqueeze(-1)

    def _quantiles(self, x: Tensor, newest: Scale, limits: tuple[Tensor, Tensor] | None) -> Tensor:
        """Quantiles (level, batch, variate, time) from the stream (batch, row, patch, width)."""
        variates = newest.loc.shape[1]
        raw = self.head(normalized(x[:, :variates], self.final_eps))
        return prices(raw.unflatten(-1, (len(LEVELS), -1)), newest, limits)


def median_of(quantiles: Tensor) -> Tensor:
    """The medians (batch, variate, time) that a later pass is fed, contiguous as a caller's would be."""
    return quantiles[MEDIAN].contiguous()


def _causal(seen: Tensor | None, tokens: int) -> Tensor | None:
    """Bool (series, 1, token, token): what each token attends; None for plain causal attention.

    A patch that nothing may attend attends itself, or it would turn into NaN; nothing ever reads it.
    """
    if seen is None:
        return None
    series = pad(seen.flatten(0, 1), (0, tokens - seen.shape[-1]), value=True)
    square = torch.ones((tokens, tokens), dtype=torch.bool, device=seen.device)
    own = torch.eye(tokens, dtype=torch.bool, device=seen.device)
    return ((square.tril() & series[:, None, :]) | own)[:, None]


def _same_group(groups: Tensor | None, seen: Tensor | None, rows: int, tokens: int) -> Tensor | None:
    """Bool (batch, token, row, row) of the first pass; None where every row attends every other."""
    if rows == 1 or (groups is None and seen is None):
        return None
    if seen is None:
        assert groups is not None
        return (groups[:, None, :, None] == groups[:, None, None, :]).expand(-1, tokens, -1, -1)
    ids = torch.zeros_like(seen[..., 0], dtype=torch.int64) if groups is None else groups
    by_token = pad(seen, (0, tokens - seen.shape[-1]), value=True).transpose(1, 2)
    same = ids[:, None, :, None] == ids[:, None, None, :]
    # of rows that miss a patch nothing is read at it
    return same & (by_token.unsqueeze(-1) == by_token.unsqueeze(-2))


def _later_groups(context: Context, seen: Tensor | None, rows: int, tokens: int) -> Tensor | None:
    """Bool (batch, token, row, row) of later passes; None where every row attends every other.

    The reference tells the rows of a later pass's tokens by what the context's *first* patches hold: rows without
    an observation there attend each other, whatever their groups.
    """
    if rows == 1 or (context.groups is None and seen is None):
        return None
    if seen is None:
        return _same_group(context.groups, None, rows, tokens)
    patches = seen.shape[-1]
    ids = torch.zeros_like(seen[..., 0], dtype=torch.int64) if context.groups is None else context.groups
    index = torch.arange(tokens, device=seen.device).expand(seen.shape[0], -1)
    if context.pad_patches is not None:
        index = index + context.pad_patches.unsqueeze(-1)
    there = seen.gather(-1, index.clamp_max(patches - 1).unsqueeze(1).expand(-1, rows, -1))
    there = (there | (index >= patches).unsqueeze(1)).transpose(1, 2)
    same = (ids[:, None, :, None] == ids[:, None, None, :]) & there.unsqueeze(-1) & there.unsqueeze(-2)
    return same | (~there.unsqueeze(-1) & ~there.unsqueeze(-2))


def _later_mask(carry: Carry, places: Tensor) -> Tensor:
    """Bool (series or 1, 1, token, place): the cache up to a token's own place, but for what is hidden."""
    every = torch.arange(carry.keys[0].shape[2], device=places.device)
    mask = (every <= places.unsqueeze(-1))[None, None]
    return mask if carry.visible is None else mask & carry.visible[:, None, None]
