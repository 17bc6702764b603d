"""The Toto model with the official parameter names, and its pass over a whole context, for training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from toto_core.toto1.layers import Layer, rotation, space_layer, time_layer
from toto_core.toto1.model_config import ModelConfig
from toto_core.toto1.sampling import Mixture, mixture
from toto_core.toto1.scaling import patches, scale_context


class Output(NamedTuple):
    """Predicted distribution of the next patch at every patch.

    ``mixture`` tensors are (batch, variate, time, component), in scaled units; ``loc`` and ``scale`` are
    (batch, variate, patch): a forecast is ``loc + scale * value``.
    """

    mixture: Mixture
    loc: Tensor
    scale: Tensor


class PatchEmbedding(nn.Module):
    """A patch of scaled values to a token."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(patch_size, width)

    def forward(self, values: Tensor) -> Tensor:
        """(batch, variate, patch, step) to (batch, variate, patch, width)."""
        tokens: Tensor = self.projection(values)
        return tokens


class Heads(nn.Module):
    """The four linear heads of the Student-t mixture."""

    def __init__(self, width: int, components: int) -> None:
        super().__init__()
        self.df = nn.Linear(width, components)
        self.loc_proj = nn.Linear(width, components)
        self.scale_proj = nn.Linear(width, components)
        self.mixture_weights = nn.Linear(width, components)

    def parameters_in_order(self) -> tuple[Tensor, Tensor]:
        """One weight (4 * component, width) and bias, in the order ``sampling.mixture`` reads."""
        heads = (self.df, self.loc_proj, self.scale_proj, self.mixture_weights)
        return torch.cat([head.weight for head in heads]), torch.cat([head.bias for head in heads])


class Transformer(nn.Module):
    """The stack of layers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Layer(config.embed_dim, config.num_heads, config.mlp_hidden_dim, config.dropout)
            for _ in range(config.num_layers)
        )


class TotoModel(nn.Module):
    """A Toto model; ``state_dict`` has the official names without their ``model.`` prefix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbedding(config.patch_size, config.embed_dim)
        self.transformer = Transformer(config)
        self.unembed = nn.Linear(config.embed_dim, config.embed_dim * config.patch_size)
        self.output_distribution = Heads(config.embed_dim, config.k_components)

    def forward(self, series: Tensor, valid: Tensor, groups: Tensor) -> Output:
        """Predict the next patch after every patch of the context.

        ``series`` float32 (batch, variate, time), left-padded to whole patches; ``valid`` bool of the same
        shape, False for padding; ``groups`` int (batch, variate, patch): variates attend their own group.
        """
        config = self.config
        scaled, _ = scale_context(
            patches(series, config.patch_size),
            patches(valid, config.patch_size),
            stabilize_with_global=config.stabilize_with_global,
            exponent=config.scale_factor_exponent,
        )
        x = self.patch_embed(scaled.values)
        position = torch.arange(x.shape[2], device=x.device, dtype=torch.float32)[None]
        rotary = rotation(position, position[:, -1:], config.head_dim)
        same_group = group_mask(groups)
        layers = cast("Iterable[Layer]", self.transformer.layers)
        for layer, axis in zip(layers, config.layer_axes, strict=True):
            if axis == "time":
                x, _, _ = time_layer(layer, x, rotary, None, last_only=False)
            else:
                x = space_layer(layer, x, same_group)
        steps = torch.unflatten(self.unembed(x), -1, (config.patch_size, config.embed_dim)).flatten(2, 3)
        weight, bias = self.output_distribution.parameters_in_order()
        return Output(mixture(nn.functional.linear(steps, weight, bias)), scaled.loc, scaled.scale)


def group_mask(groups: Tensor) -> Tensor:
    """True where two variates share a group: (batch, variate, patch) to bool (batch, patch, 1, variate, variate)."""
    by_patch = groups.transpose(1, 2).unsqueeze(2)
    return by_patch.unsqueeze(-1) == by_patch.unsqueeze(-2)
