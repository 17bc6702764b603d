"""Inference: one pass over the context and the first block of a forecast, then one pass for each later block.

The model predicts the next patch at every patch. A patch that is still to come is an empty token, all of whose steps
count as unobserved; all patches of a block are predicted at once, from the newest known patch and the empty tokens
after it. A later block is fed the medians of the one before, whose keys and values stay in the cache. The last empty
token of a pass tells nothing that is asked for, so there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from toto_core.toto2.layers import (
    Cache,
    Layer,
    ResidualMlp,
    Rotation,
    later_time_layer,
    normalized,
    rotation,
    time_layer,
    variate_layer,
)
from toto_core.toto2.masks import causal, later_groups, later_mask, same_group
from toto_core.toto2.model_config import LEVELS, Toto2Config
from toto_core.toto2.passes import Carry, Context, Fed, FirstBlock, Known, KnownTokens, NextBlock, Place, Plan
from toto_core.toto2.quantiles import prices
from toto_core.toto2.scaling import Scale, begin, bounds, proceed


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
            nothing = torch.cat((torch.zeros(size), torch.ones(size))).to(self.embed.up.weight.dtype)
            self.register_buffer("blank", self.embed(nothing), persistent=False)
        self.last_time = max((i for i, axis in enumerate(config.layer_axes) if axis == "time"), default=-1)
        self.ops = LayerOps()

    @property
    def time_layers(self) -> int:
        """How many layers attend over time."""
        return self.config.layer_axes.count("time")

    def first(self, context: Context, plan: Plan) -> FirstBlock:
        """Read the whole context and forecast the first block."""
        values = self._patches(context.series)
        observed = None if context.observed is None else self._patches(context.observed)
        scale, running = begin(values, observed, plan.min_observed)
        tokens = self._with_blanks(self._tokens(values, observed, scale), plan)
        batch, _, count, _ = tokens.shape
        patches = values.shape[2]
        known = None
        if context.known is not None:
            known, theirs = self._known_tokens(context.known, plan, patches)
            tokens = torch.cat((tokens, theirs), dim=1)
        rows = tokens.shape[1]
        seen = self._seen(context, plan, patches)
        rotary = self._rotation(count, Place(0, patches + plan.block, context.pad_patches), rows)
        groups = same_group(context.groups, seen, rows, count)
        x, cached = self._first_layers(
            tokens.flatten(0, 1), rotary, causal(seen, count), groups, (rows, plan.block)
        )
        limits = None
        if plan.cap > 0.0:
            limits = bounds(context.series, context.observed, scale.newest().scale, plan.cap)
        quantiles = self._quantiles(torch.unflatten(x, 0, (batch, rows)), scale.newest(), limits)
        if plan.later == 0:
            return FirstBlock(quantiles, None, None, None)
        keys, kept = (
            tuple(pad(each[:, :, :patches], (0, 0, 0, plan.room)) for each in part) for part in cached
        )
        visible = None if seen is None else pad(seen.flatten(0, 1), (0, plan.room), value=True)
        later = later_groups(context, seen, rows, 2 * plan.block - 1)
        return FirstBlock(quantiles, running, Carry(keys, kept, visible, later, limits), known)

    def following(self, fed: Fed, carry: Carry, place: Place, plan: Plan) -> NextBlock:
        """Feed back the block before and forecast the next one; the caches of ``carry`` are written."""
        values = self._patches(fed.medians)
        scale, running = proceed(values, None, fed.running, plan.min_observed)
        tokens = self._with_blanks(self._tokens(values, None, scale), plan)
        batch = tokens.shape[0]
        if fed.known is not None:
            tokens = torch.cat((tokens, torch.cat((fed.known.past, fed.known.future), dim=2)), dim=1)
        rows, count = tokens.shape[1], tokens.shape[2]
        places = place.start + torch.arange(count, device=tokens.device)
        rotary = self._rotation(count, place, rows)
        mask = later_mask(carry, places)
        x, time_index = tokens.flatten(0, 1), 0
        for index, (layer, axis) in enumerate(zip(self.layers, self.config.layer_axes, strict=True)):
            if axis == "variate":
                x = self.ops.variate(layer, x, rows, _newest(carry.same_group, x.shape[1]))
                continue
            assert mask is not None
            cache = Cache(carry.keys[time_index], carry.values[time_index], places, mask)
            x = self.ops.later(layer, x, rotary, cache, plan.block if index == self.last_time else count)
            time_index += 1
        x = torch.unflatten(x[:, -plan.block :], 0, (batch, rows))
        return NextBlock(self._quantiles(x, scale.newest(), carry.limits), running)

    def _first_layers(
        self,
        x: Tensor,
        rotary: Rotation,
        mask: Tensor | None,
        groups: Tensor | None,
        sizes: tuple[int, int],
    ) -> tuple[Tensor, tuple[list[Tensor], list[Tensor]]]:
        """The stream of the last tokens after all layers, and the keys and values of each layer over time.

        ``sizes`` are the rows of a request, and how many tokens are wanted.
        """
        rows, last = sizes
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for index, (layer, axis) in enumerate(zip(self.layers, self.config.layer_axes, strict=True)):
            if axis == "variate":
                x = self.ops.variate(layer, x, rows, _newest(groups, x.shape[1]))
                continue
            x, key, value = self.ops.time(
                layer, x, rotary, mask, last if index == self.last_time else x.shape[1]
            )
            keys.append(key)
            values.append(value)
        return x[:, -last:], (keys, values)

    def _patches(self, series: Tensor) -> Tensor:
        return torch.unflatten(series, -1, (-1, self.config.patch_size))

    def _with_blanks(self, tokens: Tensor, plan: Plan) -> Tensor:
        """Tokens (batch, variate, patch, width) with the empty ones after them."""
        return torch.cat((tokens, self.blank.expand(*tokens.shape[:2], plan.block - 1, -1)), dim=2)

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

    def _rotation(self, count: int, place: Place, rows: int) -> Rotation:
        """Tables for the ``count`` tokens of a pass."""
        position = torch.arange(count, device=self.blank.device) + place.start
        center = self._center(place, rows) if self.config.use_xpos else None
        return rotation(position.float(), center, self.config.qk_dim // 4)

    def _center(self, place: Place, rows: int) -> Tensor:
        """Where xPos has the factor 1: half of the patches that a pass without a bucket's would have."""
        end = torch.as_tensor(place.end, device=self.blank.device)
        if place.pad_patches is None:
            return torch.div(end, 2, rounding_mode="floor").float().reshape(1, 1)
        middle = torch.div(end - place.pad_patches, 2, rounding_mode="floor") + place.pad_patches
        return middle.repeat_interleave(rows).float().unsqueeze(-1)

    def _quantiles(self, x: Tensor, newest: Scale, limits: tuple[Tensor, Tensor] | None) -> Tensor:
        """Quantiles (level, batch, variate, time) from the stream (batch, row, patch, width)."""
        variates = newest.loc.shape[1]
        raw = self.head(normalized(x[:, :variates], self.final_eps))
        return prices(torch.unflatten(raw, -1, (len(LEVELS), -1)), newest, limits)


def _newest(groups: Tensor | None, tokens: int) -> Tensor | None:
    """The part of a mask (batch, token, row, row) that is for the newest tokens."""
    return None if groups is None else groups[:, -tokens:]
