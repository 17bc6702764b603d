"""Who attends whom: over time, and across the rows of a request; None stands for everybody, without a mask."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from toto_core.toto2.passes import Carry, Context


def causal(seen: Tensor | None, tokens: int) -> Tensor | None:
    """Bool (series, 1, token, token): what each token attends; None for plain causal attention.

    A patch that nothing may attend attends itself, or it would turn into NaN; nothing ever reads it.
    """
    if seen is None:
        return None
    series = pad(seen.flatten(0, 1), (0, tokens - seen.shape[-1]), value=True)
    square = torch.ones((tokens, tokens), dtype=torch.bool, device=seen.device)
    own = torch.eye(tokens, dtype=torch.bool, device=seen.device)
    return ((square.tril() & series[:, None, :]) | own)[:, None]


def same_group(groups: Tensor | None, seen: Tensor | None, rows: int, tokens: int) -> Tensor | None:
    """Bool (batch, token, row, row) of the first pass; None where every row attends every other."""
    if rows == 1 or (groups is None and seen is None):
        return None
    if seen is None:
        assert groups is not None
        return (groups[:, None, :, None] == groups[:, None, None, :]).expand(-1, tokens, -1, -1)
    ids = torch.zeros_like(seen[..., 0], dtype=torch.int64) if groups is None else groups
    by_token = pad(seen, (0, tokens - seen.shape[-1]), value=True).transpose(1, 2)
    same = ids[:, None, :, None] == ids[:, None, None, :]
    # of rows that miss a patch nothing is read at it
    return same & (by_token.unsqueeze(-1) == by_token.unsqueeze(-2))


def later_groups(context: Context, seen: Tensor | None, rows: int, tokens: int) -> Tensor | None:
    """Bool (batch, token, row, row) of later passes; None where every row attends every other.

    The reference tells the rows of a later pass's tokens by what the context's *first* patches hold: rows without
    an observation there attend each other, whatever their groups.
    """
    if rows == 1 or (context.groups is None and seen is None):
        return None
    if seen is None:
        return same_group(context.groups, None, rows, tokens)
    patches = seen.shape[-1]
    ids = torch.zeros_like(seen[..., 0], dtype=torch.int64) if context.groups is None else context.groups
    index = torch.arange(tokens, device=seen.device).expand(seen.shape[0], -1)
    if context.pad_patches is not None:
        index = index + context.pad_patches.unsqueeze(-1)
    there = seen.gather(-1, index.clamp_max(patches - 1).unsqueeze(1).expand(-1, rows, -1))
    there = (there | (index >= patches).unsqueeze(1)).transpose(1, 2)
    same = (ids[:, None, :, None] == ids[:, None, None, :]) & there.unsqueeze(-1) & there.unsqueeze(-2)
    return same | (~there.unsqueeze(-1) & ~there.unsqueeze(-2))


def later_mask(carry: Carry, places: Tensor) -> Tensor | None:
    """Bool (series or 1, 1, token, place): the cache up to a token's own place, but for what is hidden.

    None for a model that has no layer over time, and so no cache.
    """
    if not carry.keys:
        return None
    every = torch.arange(carry.keys[0].shape[2], device=places.device)
    mask = (every <= places.unsqueeze(-1))[None, None]
    return mask if carry.visible is None else mask & carry.visible[:, None, None]
