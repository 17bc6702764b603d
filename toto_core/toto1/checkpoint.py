"""Toto checkpoints in the official layout, safetensors only: tensors in and out."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from toto_core.model_folder import CONFIG_FILE, WEIGHTS_FILE, CheckpointError
from toto_core.toto1.model import TotoModel
from toto_core.toto1.model_config import ModelConfig, read_config

_PREFIXES = ("_orig_mod.", "module.", "_orig_mod.", "model.")
"""What a model compiled or trained on several devices was saved with, and what the official one has."""
_FUSED_SWIGLU = {"mlp.0.w12.": "mlp.0.", "mlp.0.w3.": "mlp.2."}


def load(folder: Path) -> TotoModel:
    """Load the model in ``folder`` in float32, in evaluation mode. Raises ``CheckpointError``."""
    config = read_config(folder)
    weights = _read_weights(folder / WEIGHTS_FILE)
    with torch.device("meta"):  # the weights are assigned below; initialising them would only cost time
        model = TotoModel(config)
    try:
        model.load_state_dict(from_official(weights, config), assign=True)
    except (RuntimeError, IndexError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE}: does not fit {CONFIG_FILE}, take both from one model: {reason}"
        ) from None
    return model.eval().requires_grad_(False)


def save(model: TotoModel, folder: Path) -> None:
    """Write ``model`` in the official layout into ``folder``, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(model.config.to_official(), indent=1) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    save_file(to_official(model.state_dict(), model.config), folder / WEIGHTS_FILE)


def from_official(weights: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Translate official names and layouts into ``TotoModel``'s: see ``layers`` for its head layout."""
    order = _head_order(config)
    translated = {}
    for official, tensor in weights.items():
        name = official
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        for fused, plain in _FUSED_SWIGLU.items():
            name = name.replace(fused, plain)
        if "rotary_emb" in name:
            continue  # constants that older checkpoints carry
        translated[name] = tensor[order] if ".wQKV." in name else tensor
    return translated


def to_official(weights: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """The inverse of ``from_official``, with contiguous tensors."""
    back = torch.argsort(_head_order(config))
    return {
        f"model.{name}": (tensor[back] if ".wQKV." in name else tensor).contiguous()
        for name, tensor in weights.items()
    }


def _head_order(config: ModelConfig) -> Tensor:
    """Official row of each wQKV row: theirs run (qkv, head_dim, head), ours (qkv, head, even then odd dimensions)."""
    rows = torch.arange(3 * config.embed_dim).reshape(3, config.head_dim, config.num_heads).transpose(1, 2)
    halves = torch.cat((torch.arange(0, config.head_dim, 2), torch.arange(1, config.head_dim, 2)))
    query, key, value = rows
    return torch.stack((query[:, halves], key[:, halves], value)).flatten()


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: is not a readable safetensors file ({reason}); fetch or convert it again"
        ) from None
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"{path}: {name} is {tensor.dtype}, not floating point; fetch it again")
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: {name} holds NaN or infinite weights; fetch or train it again")
    # copied, because load_file maps the file: a file overwritten in place would kill every process that uses it
    return {name: tensor.to(torch.float32, copy=True) for name, tensor in weights.items()}
