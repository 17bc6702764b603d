"""A Chronos-2 checkpoint of random weights, written by the public package in its own layout."""

from __future__ import annotations

from pathlib import Path

import torch

QUANTILES = [0.01, 0.05, *(round(0.1 * step, 1) for step in range(1, 10)), 0.95, 0.99]


def write_chronos2(folder: Path, *, width: int = 32, layers: int = 2, output_patches: int = 4) -> Path:
    """``output_patches`` of 16 steps each are what one call of the model can forecast."""
    from chronos import Chronos2Pipeline
    from chronos.chronos2.config import Chronos2CoreConfig
    from chronos.chronos2.model import Chronos2Model

    config = Chronos2CoreConfig(
        d_model=width, d_kv=width // 4, d_ff=2 * width, num_layers=layers, num_heads=4, reg_token_id=1
    )
    config.architectures = ["Chronos2Model"]
    config.chronos_config = {
        "context_length": 2048,
        "input_patch_size": 16,
        "input_patch_stride": 16,
        "output_patch_size": 16,
        "max_output_patches": output_patches,
        "quantiles": QUANTILES,
        "time_encoding_scale": 2048,
        "use_arcsinh": True,
        "use_reg_token": True,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Chronos2Pipeline(Chronos2Model(config)).save_pretrained(folder)
    return folder
