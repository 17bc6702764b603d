"""Official weights to plain ones: every factor of unit scaling, and every norm's weight, is folded in once, at load.

A linear layer of the reference gives (W x + b) / sqrt(fan_in), its read-out (W x + b) / fan_in. A residual block of
factor t gives (t f(x) + x) / sqrt(1 + t²): here the stream is kept divided by all those 1 / sqrt(1 + t²), so that
nothing but f(x), times a constant, is added to it, and its norms add an eps that is divided by their square.
(Blake et al., "u-µP: The Unit-Scaled Maximal Update Parametrization", 2024.) Products are float64, results float32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from toto_core.toto2.model_config import LEVELS, Toto2Config

Weights = dict[str, Tensor]

SILU_SCALE = math.exp(0.8 * math.log((2.0 / (1.0 - 1.0 / math.pi)) ** 0.5) + 0.2 * math.log(2.0))
"""unit-scaling's ``silu`` with mult 1: the factor that gives its output the variance of its input, about."""
_HEAD = "output_head.param_projection.proj"


def folded(official: Weights, config: Toto2Config) -> Weights:
    """The weights of ``decode.Decoder`` from those of a checkpoint, by official names.

    Takes them out of ``official`` layer by layer: of the largest model there is no room for a second copy.
    """
    plain: Weights = {}
    square = 1.0  # of what the stream is divided by
    for index, axis in enumerate(config.layer_axes):
        theirs = _taken(official, f"transformer.layers.{index}.")
        ours, square = _layer(theirs, config, axis, square)
        plain |= {f"layers.{index}.{name}": _single(tensor) for name, tensor in ours.items()}
    rest = _taken(official, "")
    rest = {**_residual_mlp(rest, "patch_proj", "embed", readout=False), **_head(rest, config)}
    plain |= {name: _single(tensor) for name, tensor in rest.items()}
    plain["final_eps"] = torch.tensor(config.norm_eps / square)
    return plain


def _taken(official: Weights, prefix: str) -> Weights:
    """The weights whose names begin with ``prefix``, without it, in float64, and no longer in ``official``."""
    names = [name for name in official if name.startswith(prefix)]
    return {name.removeprefix(prefix): official.pop(name).double() for name in names}


def _single(tensor: Tensor) -> Tensor:
    return tensor.float().contiguous()


def _layer(
    theirs: Mapping[str, Tensor], config: Toto2Config, axis: str, square: float
) -> tuple[Weights, float]:
    """One layer, from the square of what the stream is divided by before it to that after it."""
    order = _head_order(config)
    ours: Weights = {"attention_eps": torch.tensor(config.norm_eps / square, dtype=torch.float64)}
    qkv = _linear(theirs, "attn.in_proj", norm=theirs.get("norm1.weight"))
    ours |= {f"qkv.{name}": tensor[order] for name, tensor in qkv.items()}
    factor, square = _residual(theirs["attn_tau"], square)
    out = _linear(theirs, "attn.out_proj", factor=factor)
    ours |= {f"out.{name}": tensor for name, tensor in out.items()}
    if axis == "variate":
        ours |= _alone(qkv, out, config)
    ours |= _head_scales(theirs, config)
    ours["feed_forward_eps"] = torch.tensor(config.norm_eps / square, dtype=torch.float64)
    gate_up = _linear(theirs, "ffn.fc1", norm=theirs.get("norm2.weight"))
    factor, square = _residual(theirs["mlp_tau"], square)
    down = _linear(theirs, "ffn.fc2", factor=factor)
    ours |= {f"gate_up.{name}": tensor for name, tensor in gate_up.items()}
    ours |= {f"down.{name}": tensor for name, tensor in down.items()}
    return ours, square


def _residual(tau: Tensor, square: float) -> tuple[float, float]:
    """By what a block's result is multiplied, and the square of what the stream is divided by after it."""
    ratio = float(tau)
    after = square / (1.0 + ratio * ratio)
    return ratio / math.sqrt(1.0 + ratio * ratio) / math.sqrt(after), after


def _linear(
    theirs: Mapping[str, Tensor],
    name: str,
    *,
    factor: float = 1.0,
    norm: Tensor | None = None,
    readout: bool = False,
) -> Weights:
    """Weight and bias of a unit-scaled linear layer, times ``factor``; ``norm`` is the weight of its input's norm."""
    weight = theirs[f"{name}.weight"]
    fan_in = weight.shape[1]
    scale = factor / (fan_in if readout else math.sqrt(fan_in))
    ours = {"weight": scale * (weight if norm is None else weight * norm)}
    if f"{name}.bias" in theirs:
        ours["bias"] = scale * theirs[f"{name}.bias"]
    return ours


def _residual_mlp(
    theirs: Mapping[str, Tensor], name: str, ours: str, *, readout: bool, norm: Tensor | None = None
) -> Weights:
    half = math.sqrt(0.5)  # a residual of factor 1
    up = _linear(theirs, f"{name}.linear1", norm=norm)
    down = _linear(theirs, f"{name}.linear2", factor=half, readout=readout)
    skip = _linear(theirs, f"{name}.skip_proj", factor=half, readout=readout, norm=norm)
    return {
        f"{ours}.up.weight": up["weight"],
        f"{ours}.up.bias": up["bias"],
        f"{ours}.down.weight": SILU_SCALE * down["weight"],
        f"{ours}.down.bias": down["bias"] + skip["bias"],
        f"{ours}.skip.weight": skip["weight"],
    }


def _head(theirs: Mapping[str, Tensor], config: Toto2Config) -> Weights:
    """The head with its rows by level, then step: theirs run by step, then level."""
    mlp = _residual_mlp(theirs, _HEAD, "head", readout=True, norm=theirs.get("transformer.out_norm.weight"))
    rows = torch.arange(config.patch_size * len(LEVELS)).reshape(config.patch_size, len(LEVELS)).T.flatten()
    by_level = ("head.down.weight", "head.down.bias", "head.skip.weight")
    return {name: tensor[rows] if name in by_level else tensor for name, tensor in mlp.items()}


def _alone(qkv: Weights, out: Weights, config: Toto2Config) -> Weights:
    """A lone variate attends itself: its values, for every query head that shares them, go straight through."""
    first = config.qk_dim * (config.num_heads + config.num_groups)
    values = {name: tensor[first:] for name, tensor in qkv.items()}
    shared = {
        name: torch.unflatten(tensor, 0, (config.num_groups, -1))
        .repeat_interleave(config.heads_per_group, 0)
        .flatten(0, 1)
        for name, tensor in values.items()
    }
    ours = {"alone.weight": out["weight"] @ shared["weight"]}
    if "bias" in out:
        ours["alone.bias"] = out["weight"] @ shared["bias"] + out["bias"]
    return ours


def _head_scales(theirs: Mapping[str, Tensor], config: Toto2Config) -> Weights:
    """Factors of each dimension of queries and keys, in our order of dimensions."""
    ours: Weights = {}
    order = _dimension_order(config)
    query = theirs.get("attn.q_norm.weight")
    if config.per_dim_scale:
        # softplus of the parameter over that of 0, which unit-scaling's constants come down to
        learned = functional.softplus(theirs["attn._pds.per_dim_scale"]) / math.log(2.0)
        query = learned if query is None else query * learned
    if query is not None:
        ours["query_scale"] = query[order]
    if "attn.k_norm.weight" in theirs:
        ours["key_scale"] = theirs["attn.k_norm.weight"][order]
    return ours


def _dimension_order(config: Toto2Config) -> Tensor:
    """Official dimension of each of ours within a head of queries or keys: rotated even, rotated odd, the rest."""
    rotated, whole = config.qk_dim // 2, torch.arange(config.qk_dim)
    return torch.cat((whole[0:rotated:2], whole[1:rotated:2], whole[rotated:]))


def _head_order(config: Toto2Config) -> Tensor:
    """Official row of each row of ours in the joint projection of queries, keys and values."""
    heads = config.num_heads + config.num_groups
    starts = torch.arange(heads).unsqueeze(-1) * config.qk_dim
    turned = (starts + _dimension_order(config)).flatten()
    values = heads * config.qk_dim + torch.arange(config.num_groups * config.v_dim)
    return torch.cat((turned, values))
