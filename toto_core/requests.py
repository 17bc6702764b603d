"""Turns what a caller gives ``predict`` into padded contexts of whole patches, and checks it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toto_core.decode import Context
from toto_core.settings import RuntimeSettings, round_up

ArrayLike = Any
"""A tensor, a numpy array, or nested sequences of numbers."""


class RequestError(ValueError):
    """What was asked of ``predict`` cannot be forecast; the message is one line."""


def read_context(
    context: ArrayLike, padding_mask: ArrayLike | None, id_mask: ArrayLike | None, patch_size: int
) -> Context:
    """A ``Context`` of whole patches on the CPU from (time,), (variate, time) or (batch, variate, time).

    ``padding_mask`` is True for real values, ``id_mask`` the group of each variate; both have the shape of
    ``context``. Padding to whole patches repeats the reference: zeros on the left, attended. Raises
    ``RequestError`` for other shapes, non-finite real values, or a group that changes inside a patch.
    """
    series = _batched(context, torch.float32, "context")
    if series.numel() == 0:
        raise RequestError("predict: context is empty")
    valid = torch.ones_like(series, dtype=torch.bool)
    if padding_mask is not None:
        valid = _like(padding_mask, series, torch.bool, "padding_mask")
    if not bool(torch.isfinite(series[valid]).all()):
        raise RequestError("predict: context holds NaN or infinite values; mask them with padding_mask")
    series = torch.where(valid, series, torch.zeros_like(series))
    missing = round_up(series.shape[-1], patch_size) - series.shape[-1]
    pad = torch.nn.functional.pad
    groups = None
    if id_mask is not None:
        groups = _groups(_like(id_mask, series, torch.int64, "id_mask"), missing, patch_size)
    return Context(pad(series, (missing, 0)), pad(valid, (missing, 0)), groups, None)


def batches(context: Context, settings: RuntimeSettings, patch_size: int) -> Iterator[tuple[Context, int]]:
    """Model calls of at most ``series_per_batch`` series, and how many of each are real.

    A compiled call is padded to the batch shape (the last series repeated) and to the bucket (leading patches
    that nothing attends), so that its shape never changes; an eager one gains nothing from padding.
    """
    size = settings.series_per_batch
    for start in range(0, context.series.shape[0], size):
        part = _rows(context, start, size)
        real = part.series.shape[0]
        if settings.compiled:
            part = _pad_to_bucket(_pad_rows(part, size - real), settings.context_bucket, patch_size)
        yield part, real


def _pad_to_bucket(context: Context, bucket: int, patch_size: int) -> Context:
    if bucket == 0:
        return context
    rows, length = context.series.shape[0], context.series.shape[-1]
    added = round_up(length, round_up(bucket, patch_size)) - length
    pad = torch.nn.functional.pad
    added_patches = added // patch_size
    groups = context.groups
    if groups is not None:
        groups = torch.cat((groups[..., :1].expand(-1, -1, added_patches), groups), dim=-1)
    # the count is given even when it is 0: one graph serves every context of the bucket
    pad_patches = torch.full((rows,), added_patches, dtype=torch.int64)
    return Context(pad(context.series, (added, 0)), pad(context.valid, (added, 0)), groups, pad_patches)


def _rows(context: Context, start: int, size: int) -> Context:
    return context.each(lambda part: part[start : start + size])


def _pad_rows(context: Context, missing: int) -> Context:
    if missing == 0:
        return context
    return context.each(lambda part: torch.cat((part, *[part[-1:]] * missing)))


def _groups(ids: Tensor, missing: int, patch_size: int) -> Tensor:
    ids = torch.cat((ids[..., :1].expand(-1, -1, missing), ids), dim=-1)
    ids = torch.unflatten(ids, -1, (-1, patch_size))
    if not torch.equal(ids.amin(-1), ids.amax(-1)):
        raise RequestError("predict: id_mask changes inside a patch")
    return ids[..., 0]


def _batched(values: ArrayLike, dtype: torch.dtype, name: str) -> Tensor:
    try:
        tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
        if tensor.is_complex():
            raise TypeError("complex numbers")
        tensor = tensor.detach().to(device="cpu", dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"predict: {name} is not an array of numbers ({reason})") from None
    if not 1 <= tensor.ndim <= 3:
        raise RequestError(f"predict: {name} must have 1 to 3 dimensions, not {tensor.ndim}")
    return tensor.reshape((1,) * (3 - tensor.ndim) + tuple(tensor.shape))


def _like(values: ArrayLike, series: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    tensor = _batched(values, dtype, name)
    if tensor.shape != series.shape:
        raise RequestError(f"predict: {name} must have the shape of context")
    return tensor
