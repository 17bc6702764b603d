"""Toto 2.0's layers: weightless norms, rotary positions, attention over time or variates, SwiGLU.

Token tensors are (series, token, width), where a series is one row (variate or known input) of one request.
The residual stream is float32; matrix products run in the dtype of their weights. All factors of unit scaling and
all weights of norms over the width are folded into these weights (``folding``), so that what is left is a plain
pre-norm transformer. Within a head the rotated dimensions come first, even ones before odd ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from toto_core.toto2.model_config import Toto2Config

ROTARY_THETA = 10_000.0
XPOS_SCALE_BASE = 256.0


class Rotation(NamedTuple):
    """Cosine and sine for queries and for keys, each (token, pair), or (series, 1, token, pair)."""

    query_cos: Tensor
    query_sin: Tensor
    key_cos: Tensor
    key_sin: Tensor


def rotation(position: Tensor, center: Tensor | None, pairs: int) -> Rotation:
    """Tables for ``position`` (token,), float32, for heads that rotate ``pairs`` pairs of dimensions.

    ``center``, float32 (series, 1) or (1, 1), is where xPos has the factor 1, None without xPos. The reference takes
    the middle of all positions of a pass, and keys keep the factor of the pass that made them.
    """
    pair = torch.arange(0, 2 * pairs, 2, device=position.device, dtype=torch.float32)
    angle = position.unsqueeze(-1) * (1.0 / ROTARY_THETA ** (pair / (2 * pairs)))
    cos, sin = angle.cos(), angle.sin()
    if center is None:
        return Rotation(cos, sin, cos, sin)
    base = (pair + 0.8 * pairs) / (2.8 * pairs)
    power = (position - center) / XPOS_SCALE_BASE
    scale = (base ** power.unsqueeze(-1)).unsqueeze(1)
    return Rotation(cos * scale, sin * scale, cos / scale, sin / scale)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first dimensions of (series, head, token, head_dim); the others stay as they are."""
    pairs = cos.shape[-1]
    even, odd, rest = torch.split(x, [pairs, pairs, x.shape[-1] - 2 * pairs], dim=-1)
    return torch.cat((even * cos - odd * sin, odd * cos + even * sin, rest), dim=-1)


def normalized(x: Tensor, eps: Tensor | float) -> Tensor:
    """x / sqrt(mean(x²) + eps) over the last dimension."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


class Cache(NamedTuple):
    """Keys and values (series, head, place, head_dim) of one layer, written in place by the tokens of a later pass.

    ``places`` int64 (token,) are theirs; ``mask`` bool (series or 1, 1, token, place) is what each attends.
    """

    keys: Tensor
    values: Tensor
    places: Tensor
    mask: Tensor


class ResidualMlp(nn.Module):
    """One hidden layer with a linear way around it, as the reference has it before and after its layers."""

    def __init__(self, width_in: int, hidden: int, width_out: int) -> None:
        super().__init__()
        self.up = nn.Linear(width_in, hidden)
        self.down = nn.Linear(hidden, width_out)
        self.skip = nn.Linear(width_in, width_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width_in) to (..., width_out)."""
        out: Tensor = self.down(functional.silu(self.up(x))) + self.skip(x)
        return out

    def of_first(self, x: Tensor) -> Tensor:
        """``forward`` where all inputs after those given are 0."""
        first = x.shape[-1]
        hidden = functional.silu(functional.linear(x, self.up.weight[:, :first], self.up.bias))
        out: Tensor = self.down(hidden) + functional.linear(x, self.skip.weight[:, :first])
        return out


class Layer(nn.Module):
    """Attention and SwiGLU, each added to the residual stream.

    ``attention_eps`` and ``feed_forward_eps`` are what the norms add in the units of the stream, which differ from
    layer to layer. ``alone`` is the whole attention of a variate that has none beside it: softmax over one key is 1.
    """

    attention_eps: Tensor
    feed_forward_eps: Tensor
    query_scale: Tensor | None
    key_scale: Tensor | None

    def __init__(self, config: Toto2Config, axis: str) -> None:
        super().__init__()
        heads, groups, width = config.num_heads, config.num_groups, config.d_model
        self.sizes = [config.qk_dim * heads, config.qk_dim * groups, config.v_dim * groups]
        self.heads, self.groups, self.shared = heads, groups, config.heads_per_group
        self.attention_scale = 1.0 / config.qk_dim
        self.qk_eps = config.norm_eps if config.qk_norm else None
        self.qkv = nn.Linear(width, sum(self.sizes), bias=config.attn_bias)
        self.out = nn.Linear(config.v_dim * heads, width, bias=config.attn_bias)
        self.gate_up = nn.Linear(width, 2 * config.d_ff, bias=config.mlp_bias)
        self.down = nn.Linear(config.d_ff, width, bias=config.mlp_bias)
        self.alone = nn.Linear(width, width, bias=config.attn_bias) if axis == "variate" else None
        self.register_buffer("attention_eps", torch.empty(()))
        self.register_buffer("feed_forward_eps", torch.empty(()))
        scaled_queries = config.qk_norm_include_weight and config.qk_norm
        empty = torch.empty(config.qk_dim)
        self.register_buffer("query_scale", empty if scaled_queries or config.per_dim_scale else None)
        self.register_buffer("key_scale", empty.clone() if scaled_queries else None)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (series, head, token, head_dim) of the stream, normalised, not rotated."""
        hidden = normalized(x, self.attention_eps).to(self.qkv.weight.dtype)
        query, key, value = torch.split(self.qkv(hidden), self.sizes, dim=-1)
        query = self._heads(query, self.heads, self.query_scale)
        key = self._heads(key, self.groups, self.key_scale)
        return query, key, torch.unflatten(value, -1, (self.groups, -1)).transpose(1, 2)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool = False
    ) -> Tensor:
        """What attention adds to the stream, float32 (series, token, width); ``mask`` is True for what is seen."""
        if self.shared > 1:
            key, value = (each.repeat_interleave(self.shared, dim=1) for each in (key, value))
        seen = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal, scale=self.attention_scale
        )
        added: Tensor = self.out(seen.transpose(1, 2).flatten(-2))
        return added.float()

    def attend_alone(self, x: Tensor) -> Tensor:
        """What attention adds where there is one token to attend, itself."""
        assert self.alone is not None
        added: Tensor = self.alone(normalized(x, self.attention_eps).to(self.alone.weight.dtype))
        return added.float()

    def feed_forward(self, x: Tensor) -> Tensor:
        """Add the SwiGLU block to the stream; the second half is the one that is activated, as in the reference."""
        hidden = normalized(x, self.feed_forward_eps).to(self.gate_up.weight.dtype)
        gate, up = self.gate_up(hidden).chunk(2, dim=-1)
        added: Tensor = self.down(gate * functional.silu(up))
        return x + added.float()

    def _heads(self, flat: Tensor, heads: int, scale: Tensor | None) -> Tensor:
        split = torch.unflatten(flat, -1, (heads, -1))
        if self.qk_eps is None and scale is None:
            return split.transpose(1, 2)
        wide = split.float()
        if self.qk_eps is not None:
            wide = normalized(wide, self.qk_eps)
        if scale is not None:
            wide = wide * scale
        return wide.to(flat.dtype).transpose(1, 2)


def time_layer(
    layer: Layer, x: Tensor, rotary: Rotation, mask: Tensor | None, last: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A layer over time in a pass over the whole context; also the keys and values of its tokens.

    Without a ``mask`` (series or 1, 1, token, token) every token attends itself and all before it. Only the ``last``
    tokens are carried on. Keys and values are (series, head, token, head_dim).
    """
    tokens = x.shape[1]
    query, key, value = layer.project(x)
    key = rotate(key, rotary.key_cos, rotary.key_sin).to(value.dtype)
    query = rotate(query, rotary.query_cos, rotary.query_sin).to(value.dtype)
    if last < tokens:
        x, query = x[:, -last:], query[:, :, -last:]
        mask = _last_rows(mask, last, tokens, x.device)
    causal = mask is None and last == tokens
    x = x + layer.attend(query, key, value, mask, causal=causal)
    return layer.feed_forward(x), key, value


def later_time_layer(layer: Layer, x: Tensor, rotary: Rotation, cache: Cache, last: int) -> Tensor:
    """A layer over time in the pass of a later block: its tokens go into the cache and attend there.

    Only the ``last`` tokens are carried on.
    """
    query, key, value = layer.project(x)
    query = rotate(query, rotary.query_cos, rotary.query_sin).to(value.dtype)
    key = rotate(key, rotary.key_cos, rotary.key_sin).to(value.dtype)
    cache.keys.index_copy_(2, cache.places, key)
    cache.values.index_copy_(2, cache.places, value)
    x, query, mask = x[:, -last:], query[:, :, -last:], cache.mask[:, :, -last:]
    return layer.feed_forward(x + layer.attend(query, cache.keys, cache.values, mask))


def variate_layer(layer: Layer, x: Tensor, rows: int, same_group: Tensor | None) -> Tensor:
    """A layer across the ``rows`` of each request, at every token on its own.

    ``same_group`` is bool (request, token, row, row), None where every row attends every other.
    """
    if rows == 1:
        return layer.feed_forward(x + layer.attend_alone(x))
    series, tokens, width = x.shape
    across = torch.unflatten(x, 0, (-1, rows)).transpose(1, 2).reshape(-1, rows, width)
    mask = None if same_group is None else same_group.flatten(0, 1).unsqueeze(1)
    across = across + layer.attend(*layer.project(across), mask)
    across = torch.unflatten(layer.feed_forward(across), 0, (-1, tokens))
    return across.transpose(1, 2).reshape(series, tokens, width)


def _last_rows(mask: Tensor | None, last: int, tokens: int, device: torch.device) -> Tensor | None:
    """The mask's rows of the last tokens; of one token nothing is hidden by causality."""
    if mask is not None:
        return mask[:, :, -last:]
    if last == 1:
        return None
    square = torch.ones((last, tokens), dtype=torch.bool, device=device)
    return square.tril(tokens - last)[None, None]
