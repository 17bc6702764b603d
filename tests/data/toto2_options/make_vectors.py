"""Writes the vectors in this folder with the public package of Toto 2.0; see README.md. Not a test."""

# mypy: ignore-errors

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from toto2 import Toto2Model, Toto2ModelConfig

PATCH = 8
SHAPE = {
    "patch_size": PATCH,
    "d_model": 16,
    "num_heads": 2,
    "num_layers": 4,
    "layer_group_size": 2,
    "num_variate_layers_per_group": 1,
    "variate_layer_first": False,
    "d_ff": 24,
    "qk_dim": 8,
    "residual_attn_ratio": 6.8,
}
EVERY_SWITCH = {
    "num_groups": 1,
    "v_dim": 12,
    "attn_bias": True,
    "mlp_bias": True,
    "norm_include_weight": True,
    "per_dim_scale": True,
    "use_xpos": True,
    "residual_mult": 0.5,
}
CASES = {
    "known_inputs": ({}, {}),
    "short_start": ({"variate_layer_first": True}, {"scaler_fallback_min_obs": 21}),
    "capped": ({"qk_norm": False}, {"quantile_real_cap_k": 0.2}),
    "every_switch": (EVERY_SWITCH, {"scaler_fallback_min_obs": 8, "quantile_real_cap_k": 1e4}),
}
REQUESTS = ((5, 0), (29, 0), (29, 8), (40, 16))


def model_of(switches: dict, seed: int) -> Toto2Model:
    """A random model whose biases and norms are not trivial."""
    torch.manual_seed(seed)
    model = Toto2Model(Toto2ModelConfig(**{**SHAPE, **switches})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "per_dim" in name:
                parameter.normal_(0.0, 0.3)
            elif "norm" in name:
                parameter.normal_(1.0, 0.3)
            else:
                parameter.normal_()
    return model


def inputs_of(name: str, steps: int, horizon: int) -> dict:
    """Two requests of three variates in two groups, with gaps and a late start."""
    generator = torch.Generator().manual_seed(7)
    target = 100.0 + torch.randn((2, 3, steps), generator=generator).cumsum(-1)
    mask = torch.rand((2, 3, steps), generator=generator) < 0.95
    mask[0, 0, : 2 * PATCH + 3] = False
    mask[1, 2, 3 * PATCH : 4 * PATCH] = False
    inputs = {
        "target": torch.where(mask, target, torch.zeros(())),
        "target_mask": mask,
        "series_ids": torch.tensor([[0, 0, 1], [0, 1, 1]]),
    }
    if name in {"known_inputs", "every_switch"}:
        known = torch.randn((2, 2, steps + horizon), generator=generator).cumsum(-1)
        real = torch.rand(known.shape, generator=generator) < 0.9
        real[0, 1, : PATCH + 2] = False
        inputs |= {
            "known_dynamic": torch.where(real, known, torch.zeros(())),
            "known_dynamic_mask": real,
            "known_dynamic_series_ids": torch.tensor([[0, 1], [0, 0]]),
        }
    return inputs


def write(folder: Path) -> None:
    """All cases into ``folder``."""
    for seed, (name, (switches, options)) in enumerate(CASES.items()):
        model = model_of(switches, seed)
        vectors: dict = {}
        for horizon, block in REQUESTS:
            inputs = inputs_of(name, 6 * PATCH, horizon)
            given = {key: value.clone() for key, value in inputs.items()}
            quantiles = model.forecast(given, horizon, decode_block_size=block, **options)
            vectors |= {f"{key}.h{horizon}": value.contiguous() for key, value in inputs.items()}
            vectors[f"quantiles.h{horizon}.b{block}"] = quantiles.contiguous()
        about = {"config": dataclasses.asdict(model.config), "options": options, "cases": REQUESTS}
        (folder / f"{name}.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        weights = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(weights, folder / f"{name}.weights.safetensors")
        save_file(vectors, folder / f"{name}.vectors.safetensors")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
