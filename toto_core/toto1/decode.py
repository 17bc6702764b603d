"""Inference: prefill once per series, then step patch by patch for all samples of a series together."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from toto_core.toto1.cache import Prefix, Suffix
from toto_core.toto1.layers import Rotation, rotation, space_layer, step_layer, time_layer
from toto_core.toto1.model import TotoModel, group_mask
from toto_core.toto1.sampling import Mixture, mixture
from toto_core.toto1.scaling import Stats, patches, scale_context, scale_step


class Context(NamedTuple):
    """What prefill reads.

    ``series`` float32 and ``valid`` bool are (batch, variate, time), left-padded to whole patches;
    ``groups`` int (batch, variate, patch), or None when all variates are one group; ``pad_patches`` int64
    (batch,), how many leading patches a bucket added, which nothing may attend, or None when there are none.
    """

    series: Tensor
    valid: Tensor
    groups: Tensor | None
    pad_patches: Tensor | None

    def each(self, change: Callable[[Tensor], Tensor]) -> Context:
        """A context with every tensor changed alike; what is None stays None."""
        groups, pad = (None if part is None else change(part) for part in (self.groups, self.pad_patches))
        return Context(change(self.series), change(self.valid), groups, pad)


class Prediction(NamedTuple):
    """Next patch: ``mixture`` (batch, variate[, sample], row, component); ``loc``, ``scale`` lack its last two."""

    mixture: Mixture
    loc: Tensor
    scale: Tensor


class Carry(NamedTuple):
    """What later steps need of the context, shared by all samples of a series.

    ``next_position`` float32 (batch, 1); ``groups`` bool mask (batch, 1, 1, variate, variate) or None;
    ``visible`` bool (batch, 1, 1, 1, patch) over the prefix or None; ``stats`` (batch, variate).
    """

    prefix: Prefix
    stats: Stats
    next_position: Tensor
    groups: Tensor | None
    visible: Tensor | None


@dataclass(frozen=True, kw_only=True)
class LayerOps:
    """The three repeated layer functions, which ``compiling`` may replace."""

    space: Callable[..., Tensor] = space_layer
    time: Callable[..., tuple[Tensor, Tensor, Tensor]] = time_layer
    step: Callable[..., Tensor] = step_layer


_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Precisions whose weights are stored narrower; those of ``fp32`` and ``tf32`` are the same."""


class Decoder(nn.Module):
    """A model prepared for inference in one precision.

    The unembedding and the distribution heads have nothing between them, so they are folded, in float64, into
    one weight per row of a patch, (patch_size, 4 * component, width), kept in float32: the heads are a
    numerically delicate part, and only the rows a horizon needs are ever multiplied. The patch projection
    stays float32 too, because rounding the newest price to bf16 moves a forecast by more than a tick.
    """

    fold_weight: Tensor
    fold_bias: Tensor

    def __init__(self, model: TotoModel, *, precision: str = "fp32") -> None:
        super().__init__()
        self.config = model.config
        self.patch_embed = model.patch_embed
        layers = model.transformer.layers
        self.layers = _in_half(layers, _HALF[precision]) if precision in _HALF else layers
        time_layers = [i for i, axis in enumerate(self.config.layer_axes) if axis == "time"]
        self.time_layers = len(time_layers)
        self.last_time = max(time_layers, default=-1)
        weight, bias = _fold_heads(model)
        self.register_buffer("fold_weight", weight, persistent=False)
        self.register_buffer("fold_bias", bias, persistent=False)
        self.ops = LayerOps()

    def prefill(self, context: Context, rows: int) -> tuple[Prediction, Carry]:
        """Read the whole context once and predict the first ``rows`` steps of the next patch."""
        size, pad = self.config.patch_size, context.pad_patches
        scaled, stats = scale_context(
            patches(context.series, size),
            patches(context.valid, size),
            stabilize_with_global=self.config.stabilize_with_global,
            exponent=self.config.scale_factor_exponent,
        )
        x = self.patch_embed(scaled.values)
        position = torch.arange(x.shape[2], device=x.device, dtype=torch.float32)[None]
        visible = None
        if pad is not None:
            position = position - pad[:, None]
            visible = _visible_patches(position >= 0)
        rotary = rotation(position, position[:, -1:], self.config.head_dim)
        groups = None if context.groups is None else group_mask(context.groups)
        x, prefix = self._prefill_layers(x, rotary, visible, groups)
        carry = Carry(
            prefix,
            stats,
            position[:, -1:] + 1.0,
            None if groups is None else groups[:, -1:],
            None if visible is None else visible[..., -1:, :],
        )
        prediction = Prediction(self._heads(x[:, :, -1], rows), scaled.loc[..., -1], scaled.scale[..., -1])
        return prediction, carry

    def step(self, values: Tensor, stats: Stats, carry: Carry, suffix: Suffix) -> tuple[Prediction, Stats]:
        """Feed back one patch per sample and predict the whole next one.

        ``values`` float32 (batch, variate, sample, patch_size); ``stats`` (batch, variate, sample).
        ``suffix`` is written in place.
        """
        scaled, stats = scale_step(values, stats)
        x = self.patch_embed(scaled.values)
        position = carry.next_position + suffix.slot
        rotary = rotation(position, position, self.config.head_dim)
        time_index = 0
        for layer, axis in zip(self.layers, self.config.layer_axes, strict=True):
            if axis == "space":
                x = self.ops.space(layer, x, carry.groups)
                continue
            prefix = (carry.prefix.keys[time_index], carry.prefix.values[time_index])
            own = (suffix.keys[time_index], suffix.values[time_index])
            x = self.ops.step(layer, x, rotary, prefix, own, slot=suffix.slot, visible=carry.visible)
            time_index += 1
        return Prediction(self._heads(x, self.config.patch_size), scaled.loc, scaled.scale), stats

    def _prefill_layers(
        self, x: Tensor, rotary: Rotation, visible: Tensor | None, groups: Tensor | None
    ) -> tuple[Tensor, Prefix]:
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for index, (layer, axis) in enumerate(zip(self.layers, self.config.layer_axes, strict=True)):
            if axis == "space":
                mask = groups if groups is None or x.shape[2] == groups.shape[1] else groups[:, -1:]
                x = self.ops.space(layer, x, mask)
                continue
            x, key, value = self.ops.time(layer, x, rotary, visible, last_only=index == self.last_time)
            keys.append(key)
            values.append(value)
        return x, Prefix(tuple(keys), tuple(values))

    def _heads(self, token: Tensor, rows: int) -> Mixture:
        """Mixtures (..., row, component) of the first ``rows`` steps from tokens (..., width)."""
        weight = self.fold_weight[:rows].flatten(0, 1)
        raw = nn.functional.linear(token, weight, self.fold_bias[:rows].flatten())
        return mixture(torch.unflatten(raw, -1, (rows, -1)))


def _visible_patches(real: Tensor) -> Tensor:
    """Causal mask (batch, 1, 1, patch, patch) over real patches (batch, patch); a padded patch sees itself.

    Without that a padded query would have nothing to attend and turn into NaN; nothing ever reads it.
    """
    length = real.shape[1]
    square = torch.ones((length, length), dtype=torch.bool, device=real.device)
    mask = (square.tril() & real[:, None, :]) | torch.eye(length, dtype=torch.bool, device=real.device)
    return mask[:, None, None]


def _fold_heads(model: TotoModel) -> tuple[Tensor, Tensor]:
    config = model.config
    head_weight, head_bias = (t.double() for t in model.output_distribution.parameters_in_order())
    unembed = torch.unflatten(model.unembed.weight.double(), 0, (config.patch_size, config.embed_dim))
    offset = torch.unflatten(model.unembed.bias.double(), 0, (config.patch_size, config.embed_dim))
    return (head_weight @ unembed).float(), (offset @ head_weight.T + head_bias).float()


def _in_half(layers: nn.ModuleList, dtype: torch.dtype) -> nn.ModuleList:
    """A copy whose matrix products run in ``dtype``; norms keep their float32 scale."""
    copied: nn.ModuleList = copy.deepcopy(layers)
    for module in copied.modules():
        if isinstance(module, nn.Linear):
            module.to(dtype)
    return copied
