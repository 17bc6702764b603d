"""A very small random model in the official layout: compiles in seconds and takes a fraction of a millisecond."""

from __future__ import annotations

from pathlib import Path

import torch

from toto_core.toto1 import checkpoint
from toto_core.toto1.model import TotoModel
from toto_core.toto1.model_config import ModelConfig

TINY = ModelConfig(
    patch_size=16,
    embed_dim=16,
    num_layers=1,
    num_heads=2,
    mlp_hidden_dim=32,
    spacewise_every_n_layers=-1,
    k_components=2,
)


def save_tiny_model(folder: Path) -> str:
    """Write the model into ``folder`` and return its name for ``--model``."""
    torch.manual_seed(0)
    checkpoint.save(TotoModel(TINY), folder)
    return str(folder)
