"""Toto 2.0 checkpoints in the official layout, safetensors only, one file or shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from toto_core.model_folder import (
    CONFIG_FILE,
    INDEX_FILE,
    WEIGHTS_FILE,
    CheckpointError,
    weight_files,
)
from toto_core.toto2.model_config import LEVELS, Toto2Config, read_config

_PREFIXES = ("_orig_mod.", "module.", "_orig_mod.", "model.")
"""What a model compiled, wrapped or trained on several devices was saved with."""
_FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


def load(folder: Path) -> tuple[Toto2Config, dict[str, Tensor]]:
    """The architecture and the float32 weights, by official names, of the model in ``folder``.

    Names and shapes are compared with the configuration before a tensor is read. Raises ``CheckpointError``.
    """
    config = read_config(folder)
    files = weight_files(folder)
    found = {file: _shapes(file) for file in files}
    _check(folder, found, expected_shapes(config))
    weights: dict[str, Tensor] = {}
    for file in files:
        weights |= _read(file)
    return config, weights


def save(config: Toto2Config, weights: Mapping[str, Tensor], folder: Path, *, shards: int = 1) -> None:
    """Write a model in the official layout into ``folder``, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config.to_official(), indent=1) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    if shards == 1:
        save_file(dict(weights), folder / WEIGHTS_FILE)
        return
    names = sorted(weights)
    places: dict[str, str] = {}
    for index in range(shards):
        file = f"model-{index + 1:05d}-of-{shards:05d}.safetensors"
        part = names[index::shards]
        save_file({name: weights[name] for name in part}, folder / file)
        places |= dict.fromkeys(part, file)
    total = sum(tensor.nbytes for tensor in weights.values())
    index_text = json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=1)
    (folder / INDEX_FILE).write_text(index_text, encoding="utf-8")


def expected_shapes(config: Toto2Config) -> dict[str, tuple[int, ...]]:
    """The official name and shape of every tensor of a model."""
    shapes: dict[str, tuple[int, ...]] = {}
    width, patch = config.d_model, config.patch_size
    shapes |= _residual_mlp("patch_proj", 2 * patch, 4 * width, width)
    shapes |= _residual_mlp("output_head.param_projection.proj", width, 4 * width, patch * len(LEVELS))
    if config.norm_include_weight:
        shapes["transformer.out_norm.weight"] = (width,)
    for index in range(config.num_layers):
        prefix = f"transformer.layers.{index}."
        shapes |= {prefix + name: shape for name, shape in _layer(config).items()}
    return shapes


def _layer(config: Toto2Config) -> dict[str, tuple[int, ...]]:
    width, heads, groups = config.d_model, config.num_heads, config.num_groups
    rows = config.qk_dim * (heads + groups) + config.v_dim * groups
    shapes: dict[str, tuple[int, ...]] = {"attn_tau": (), "mlp_tau": ()}
    shapes |= _linear("attn.in_proj", width, rows, bias=config.attn_bias)
    shapes |= _linear("attn.out_proj", config.v_dim * heads, width, bias=config.attn_bias)
    shapes |= _linear("ffn.fc1", width, 2 * config.d_ff, bias=config.mlp_bias)
    shapes |= _linear("ffn.fc2", config.d_ff, width, bias=config.mlp_bias)
    if config.norm_include_weight:
        shapes |= {"norm1.weight": (width,), "norm2.weight": (width,)}
    if config.qk_norm and config.qk_norm_include_weight:
        shapes |= {"attn.q_norm.weight": (config.qk_dim,), "attn.k_norm.weight": (config.qk_dim,)}
    if config.per_dim_scale:
        shapes["attn._pds.per_dim_scale"] = (config.qk_dim,)
    return shapes


def _residual_mlp(name: str, inputs: int, hidden: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {
        **_linear(f"{name}.linear1", inputs, hidden, bias=True),
        **_linear(f"{name}.linear2", hidden, outputs, bias=True),
        **_linear(f"{name}.skip_proj", inputs, outputs, bias=True),
    }


def _linear(name: str, inputs: int, outputs: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (outputs, inputs)}
    return shapes | {f"{name}.bias": (outputs,)} if bias else shapes


def _plain(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a file, from its header alone."""
    try:
        with safe_open(file, framework="pt") as tensors:
            parts = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - not a dict
            for name, part in parts.items():
                if part.get_dtype() not in _FLOATS:
                    raise CheckpointError(f"{file}: {name} is {part.get_dtype()}, not floating point")
            return {_plain(name): tuple(part.get_shape()) for name, part in parts.items()}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: {_unreadable(error)}") from None


def _check(
    folder: Path, found: Mapping[Path, Mapping[str, tuple[int, ...]]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    seen: dict[str, tuple[int, ...]] = {}
    for file, shapes in found.items():
        twice = sorted(seen.keys() & shapes.keys())
        if twice:
            raise CheckpointError(f"{file}: {twice[0]} lies in another file too; fetch the shards again")
        seen |= shapes
    reason = _difference(seen, expected)
    if reason:
        name = next(iter(found)) if len(found) == 1 else folder / INDEX_FILE
        raise CheckpointError(f"{name}: does not fit {CONFIG_FILE}, take both from one model: {reason}")


def _difference(seen: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> str:
    missing, strange = expected.keys() - seen.keys(), seen.keys() - expected.keys()
    if missing:
        return f"{_first(missing)} missing"
    if strange:
        return f"{_first(strange)} not known"
    for name, shape in expected.items():
        if seen[name] != shape:
            return f"{name} is {seen[name]}, not {shape}"
    return ""


def _first(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - 1} more" if len(ordered) > 1 else ""
    return f"{ordered[0][:120]}{more}"


def _read(file: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    try:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                # copied, because the file is mapped: one overwritten in place would kill every process that uses it
                weights[_plain(name)] = tensors.get_tensor(name).to(torch.float32, copy=True)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: {_unreadable(error)}") from None
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{file}: {name} holds NaN or infinite weights; fetch or train it again")
    return weights


def _unreadable(error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return f"is not a readable safetensors file ({reason}); fetch or convert it again"
