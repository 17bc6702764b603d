"""Random Toto 2.0 models in the official layout: a very small one, and the shape of the released 4m."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from toto_core.toto2 import checkpoint
from toto_core.toto2.model_config import Toto2Config

TINY = Toto2Config(
    patch_size=8,
    d_model=16,
    num_heads=2,
    num_layers=2,
    layer_group_size=2,
    num_variate_layers_per_group=1,
    variate_layer_first=False,
    d_ff=24,
    qk_dim=8,
    v_dim=8,
    num_groups=2,
    residual_attn_ratio=6.8,
)
EVERYTHING = dataclasses.replace(
    TINY,
    num_layers=4,
    num_groups=1,
    v_dim=12,
    attn_bias=True,
    mlp_bias=True,
    norm_include_weight=True,
    qk_norm_include_weight=True,
    per_dim_scale=True,
    use_xpos=True,
)
FOUR_M = dataclasses.replace(
    TINY,
    patch_size=32,
    d_model=256,
    num_heads=4,
    num_layers=4,
    layer_group_size=4,
    d_ff=688,
    qk_dim=64,
    v_dim=64,
    num_groups=4,
)


def random_weights(config: Toto2Config, seed: int = 0) -> dict[str, Tensor]:
    """Weights as a new model's are drawn, and biases and norms that are not trivial."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for name, shape in checkpoint.expected_shapes(config).items():
        drawn = torch.randn(shape, generator=generator)
        if name.endswith("bias") or "per_dim" in name:
            drawn = 0.3 * drawn
        elif "norm" in name:
            drawn = 1.0 + 0.3 * drawn
        weights[name] = drawn
    for layer in range(config.num_layers):
        attention, feed_forward = config.residual_factors(layer)
        weights[f"transformer.layers.{layer}.attn_tau"] = torch.tensor(attention)
        weights[f"transformer.layers.{layer}.mlp_tau"] = torch.tensor(feed_forward)
    return weights


def save_toto2_model(folder: Path, config: Toto2Config = TINY, *, seed: int = 0, shards: int = 1) -> str:
    """Write a model into ``folder`` and return its name for ``--model``."""
    checkpoint.save(config, random_weights(config, seed), folder, shards=shards)
    return str(folder)
