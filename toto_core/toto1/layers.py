"""Transformer layers: RMS norm, rotary positions with xpos scale, attention over time or variates, SwiGLU.

Token tensors are (batch, variate, token, width), where a token is a patch of the context during prefill and a
sample's newest patch during a decode step. The residual stream is float32; matrix products run in the dtype
of the weights. Inside, query, key and value weights are stored head by head, with the even dimensions of a
head before the odd ones (``checkpoint`` translates), so that a rotation swaps halves.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from toto_core.toto1.cache import slots_in_use, store

XPOS_SCALE_BASE = 512.0
ROTARY_THETA = 10_000.0


class Rotation(NamedTuple):
    """Cosine and sine times the xpos scale (for keys: divided by it), each (batch, 1, token, 1, head_dim)."""

    query_cos: Tensor
    query_sin: Tensor
    key_cos: Tensor
    key_sin: Tensor


def rotation(position: Tensor, last: Tensor, head_dim: int) -> Rotation:
    """Tables for ``position`` (batch, token), float32, whose pass ends at position ``last`` (batch, 1).

    The xpos exponent is (position - floor(last / 2)) / 512. The reference recomputes it in each pass from
    that pass's own last position, and lays the scale out in halves while it rotates pairs; both are kept.
    """
    pair = torch.arange(0, head_dim, 2, device=position.device, dtype=torch.float32)
    frequency = ROTARY_THETA ** (-pair / head_dim)
    angle = position.unsqueeze(-1) * frequency
    base = torch.log((pair + 0.4 * head_dim) / (1.4 * head_dim))
    # dimension 2i of a head takes scale 2i mod (head_dim / 2), and 2i + 1 likewise: see the docstring
    dimension = torch.cat((pair, pair + 1)).long() % (head_dim // 2)
    power = (position - torch.floor(last / 2)) / XPOS_SCALE_BASE
    scale = torch.exp(power.unsqueeze(-1) * base[dimension])
    cos = torch.cat((angle.cos(), angle.cos()), dim=-1)
    sin = torch.cat((angle.sin(), angle.sin()), dim=-1)
    tables = (cos * scale, sin * scale, cos / scale, sin / scale)
    return Rotation(*(table[:, None, :, None, :] for table in tables))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate (batch, variate, token, head, head_dim) by tables of ``rotation``, in fp32; dtype stays."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x.float() * cos + turned * sin).to(x.dtype)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + 1e-8) times a learned scale, over the last dimension."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., width)."""
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + 1e-8) * self.scale


class Attention(nn.Module):
    """The projections of one attention block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.wQKV = nn.Linear(width, 3 * width)
        self.wO = nn.Linear(width, width)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of ``x``, each (batch, variate, token, head, head_dim)."""
        projected = self.wQKV(x.to(self.wQKV.weight.dtype))
        query, key, value = torch.unflatten(projected, -1, (3, self.heads, -1)).unbind(-3)
        return query, key, value

    def values(self, x: Tensor) -> Tensor:
        """Values alone, for an attention that has a single key."""
        width = self.wO.weight.shape[0]
        weight, bias = self.wQKV.weight[2 * width :], self.wQKV.bias[2 * width :]
        projected: Tensor = functional.linear(x.to(weight.dtype), weight, bias)
        return projected

    def output(self, heads: Tensor) -> Tensor:
        """Project (batch, variate, token, head, head_dim) back to float32 tokens."""
        projected: Tensor = self.wO(heads.flatten(-2))
        return projected.float()


class Layer(nn.Module):
    """Pre-norm attention and SwiGLU, each added to the residual stream."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = RMSNorm(width)
        self.norm2 = RMSNorm(width)
        self.attention = Attention(width, heads)
        # positions 1 and 3 hold no weights; they keep the official names mlp.0 and mlp.2
        self.mlp = nn.ModuleList((nn.Linear(width, 2 * hidden), nn.Identity(), nn.Linear(hidden, width)))
        self.dropout = nn.Dropout(dropout)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Add the SwiGLU block to float32 tokens (the gate is the first half, as in the reference)."""
        hidden = self.norm2(x).to(self.mlp[0].weight.dtype)
        gate, up = self.mlp[0](hidden).chunk(2, dim=-1)
        down: Tensor = self.dropout(self.mlp[2](functional.silu(gate) * up).float())
        return x + down


def space_layer(layer: Layer, x: Tensor, same_group: Tensor | None) -> Tensor:
    """One space-wise layer: every token attends the variates of its group at its own time.

    ``same_group`` is bool (batch, token or 1, 1, variate, variate), or None when all variates are one group.
    """
    hidden = layer.norm1(x)
    if x.shape[1] == 1:  # a lone variate attends itself: softmax over one key is 1
        attended = torch.unflatten(layer.attention.values(hidden), -1, (layer.attention.heads, -1))
        return layer.feed_forward(x + layer.attention.output(attended))
    query, key, value = (t.permute(0, 2, 3, 1, 4) for t in layer.attention.qkv(hidden))
    attended = _attend(query, key, value, same_group)
    return layer.feed_forward(x + layer.attention.output(attended.permute(0, 3, 1, 2, 4)))


def time_layer(
    layer: Layer, x: Tensor, rotary: Rotation, visible: Tensor | None, *, last_only: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """One causal time-wise layer over the context; returns tokens and the keys and values to cache.

    ``visible`` is bool (batch, 1, 1, token, token), or None for plain causal attention. With ``last_only``
    only the newest token is carried on, because nothing after this layer looks further back. Keys and values
    are (batch, variate, head, patch, head_dim).
    """
    query, key, value = layer.attention.qkv(layer.norm1(x))
    query = rotate(query, rotary.query_cos, rotary.query_sin).transpose(2, 3)
    key = rotate(key, rotary.key_cos, rotary.key_sin).transpose(2, 3)
    value = value.transpose(2, 3)
    if last_only:
        x, query = x[:, :, -1:], query[:, :, :, -1:]
        visible = None if visible is None else visible[..., -1:, :]
    causal = visible is None and not last_only
    attended = _attend(query, key, value, visible, causal=causal)
    x = x + layer.attention.output(attended.transpose(2, 3))
    return layer.feed_forward(x), key, value


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool = False
) -> Tensor:
    """Scaled dot-product attention over (first, second, head, token, head_dim); ``mask`` broadcasts to it.

    The two leading dimensions are merged, because inductor's attention patterns take four dimensions only.
    """
    leading, tokens = query.shape[:2], (query.shape[-2], key.shape[-2])
    if mask is not None:
        mask = mask.expand(*leading, 1, *tokens).flatten(0, 1)
    query, key, value = (t.flatten(0, 1) for t in (query, key, value))
    attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
    return torch.unflatten(attended, 0, leading)


def step_layer(
    layer: Layer,
    x: Tensor,
    rotary: Rotation,
    prefix: tuple[Tensor, Tensor],
    suffix: tuple[Tensor, Tensor],
    *,
    slot: Tensor,
    visible: Tensor | None,
) -> Tensor:
    """One time-wise layer of a decode step: each sample attends the shared prefix and its own suffix.

    ``x`` is (batch, variate, sample, width). ``prefix`` holds keys and values (batch, variate, head, patch,
    head_dim), ``suffix`` the caches of ``cache.Suffix``, written in place at ``slot``. ``visible`` is bool
    (batch, 1, 1, 1, patch) over the prefix, or None. The prefix is never copied per sample.
    """
    query, key, value = layer.attention.qkv(layer.norm1(x))
    query = rotate(query, rotary.query_cos, rotary.query_sin).transpose(2, 3)
    store(suffix[0], rotate(key, rotary.key_cos, rotary.key_sin).transpose(2, 3), slot)
    store(suffix[1], value.transpose(2, 3), slot)
    shared = (query @ prefix[0].transpose(-1, -2)).float()
    own = (query.unsqueeze(-2).float() * suffix[0].float()).sum(-1)
    if visible is not None:
        shared = shared.masked_fill(~visible, -torch.inf)
    own = own.masked_fill(~slots_in_use(suffix[0], slot), -torch.inf)
    weights = functional.softmax(torch.cat((shared, own), -1) / math.sqrt(query.shape[-1]), dim=-1)
    patches = prefix[0].shape[-2]
    from_prefix = weights[..., :patches].to(value.dtype) @ prefix[1]
    from_suffix = (weights[..., patches:].unsqueeze(-1) * suffix[1].float()).sum(-2)
    attended = (from_prefix.float() + from_suffix).to(value.dtype)
    x = x + layer.attention.output(attended.transpose(2, 3))
    return layer.feed_forward(x)
