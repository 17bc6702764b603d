"""Contexts of several series into model calls: joined, cut into batches, filled up to a batch and to a bucket."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from toto_core.settings import RuntimeSettings, round_up
from toto_core.toto2.passes import Context, Known


def batches(context: Context, settings: RuntimeSettings, patch_size: int) -> Iterator[tuple[Context, int]]:
    """Model calls of at most ``series_per_batch`` series, and how many of each are real.

    A compiled call is padded to the batch shape (the last series repeated) and to the bucket (leading patches
    that nothing attends), so that its shape never changes; an eager one gains nothing from padding.
    """
    size = settings.series_per_batch
    for start in range(0, context.series.shape[0], size):
        part = context.each(operator.itemgetter(slice(start, start + size)))
        real = part.series.shape[0]
        if settings.compiled:
            part = _in_bucket(_filled_up(part, size - real), settings.context_bucket, patch_size)
        yield part, real


def joined(contexts: Sequence[Context], patch_size: int) -> Context:
    """One context of several series without groups, left-padded to the longest with what nothing attends."""
    longest = max(context.series.shape[-1] for context in contexts)
    missing = [longest - context.series.shape[-1] for context in contexts]
    if not any(missing) and all(context.observed is None for context in contexts):
        return Context(torch.cat([context.series for context in contexts]), None, None, None, None)
    added = [(_observed(context), m) for context, m in zip(contexts, missing, strict=True)]
    series = torch.cat([pad(c.series, (m, 0)) for c, m in zip(contexts, missing, strict=True)])
    observed = torch.cat([pad(valid, (m, 0)) for valid, m in added])
    pads = torch.tensor([m // patch_size for m in missing]) if any(missing) else None
    return Context(series, observed, None, None, pads)


def _observed(context: Context) -> Tensor:
    if context.observed is not None:
        return context.observed
    return torch.ones(context.series.shape, dtype=torch.bool)


def _in_bucket(context: Context, bucket: int, patch_size: int) -> Context:
    if bucket == 0:
        return context
    rows, _, steps = context.series.shape
    added = round_up(steps, round_up(bucket, patch_size)) - steps
    before = torch.zeros(rows, dtype=torch.int64) if context.pad_patches is None else context.pad_patches
    known = context.known
    if known is not None:
        known = Known(pad(known.values, (added, 0)), pad(known.observed, (added, 0)))
    # a mask and a count are given even when nothing is added: one graph serves every context of the bucket
    return Context(
        pad(context.series, (added, 0)),
        pad(_observed(context), (added, 0)),
        context.groups,
        known,
        before + added // patch_size,
    )


def _filled_up(context: Context, missing: int) -> Context:
    return context.each(lambda part: torch.cat((part, *[part[-1:]] * missing))) if missing else context
