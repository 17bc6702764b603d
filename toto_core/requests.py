"""Checks what a caller gives ``predict`` and turns it into padded contexts of whole patches."""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from toto_core.settings import RuntimeSettings, round_up
from toto_core.toto1.decode import Context

_SURELY_TURNED = 4
"""Times as many variates as time steps: a table with a row a time step, not a forecast that anybody wants."""
ArrayLike = Any
"""A tensor, a numpy array, or nested sequences of numbers."""


class RequestError(ValueError):
    """What was asked of ``predict`` cannot be forecast; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class ForecastRequest:
    """What is asked of a forecast.

    ``steps`` time steps; ``num_samples`` sample paths, None for the mean path, of which ``samples_per_batch``
    are decoded at a time; ``seed`` of the noise, which is drawn for ``drawn_samples`` where only the first
    ``num_samples`` of them are wanted. Raises ``RequestError`` for a number outside its range.
    """

    steps: int
    num_samples: int | None
    samples_per_batch: int
    seed: int
    patch_size: int
    drawn_samples: int | None = None

    def __post_init__(self) -> None:
        check_whole("prediction_length", self.steps, 1, 1_000_000)
        if self.num_samples is not None:
            check_whole("num_samples", self.num_samples, 1, 1_000_000)
        check_whole("samples_per_batch", self.samples_per_batch, 1, 1_000_000)
        check_whole("seed", self.seed, -(2**63), 2**63 - 1)

    @property
    def patches(self) -> int:
        """Patches to generate."""
        return math.ceil(self.steps / self.patch_size)

    @property
    def rows(self) -> int:
        """Rows of the first patch that are needed: all when more patches follow."""
        return min(self.steps, self.patch_size)

    @property
    def together(self) -> int:
        """Sample paths that are really decoded together."""
        return min(self.samples_per_batch, self.num_samples or 1)

    def with_fewer(self, num_samples: int) -> ForecastRequest:
        """The same request for at most ``num_samples`` of its samples: the first, and the same numbers."""
        if self.num_samples is None or num_samples >= self.num_samples:
            return self
        drawn = self.drawn_samples or self.num_samples
        return dataclasses.replace(self, num_samples=num_samples, drawn_samples=drawn)

    def with_smaller_batches(self, samples_per_batch: int) -> ForecastRequest:
        """The same request, of which at most ``samples_per_batch`` sample paths are decoded together."""
        return dataclasses.replace(self, samples_per_batch=min(samples_per_batch, self.together))


def read_context(
    context: ArrayLike, padding_mask: ArrayLike | None, id_mask: ArrayLike | None, patch_size: int
) -> Context:
    """A ``Context`` of whole patches on the CPU from (time,), (variate, time) or (batch, variate, time).

    ``padding_mask`` is True for real values, ``id_mask`` the group of each variate; both have the shape of
    ``context``. Padding to whole patches repeats the reference: zeros on the left, attended. Raises
    ``RequestError`` for other shapes, less than a patch, non-finite real values, or a group that changes inside a
    patch.
    """
    context, padding_mask = without_mask(context, padding_mask)
    series = batched(context, torch.float32, "context")
    if series.numel() == 0:
        raise RequestError("predict: context is empty")
    check_shape(series, patch_size)
    valid = torch.ones(series.shape, dtype=torch.bool)
    if padding_mask is not None:
        valid = like(padding_mask, series, torch.bool, "padding_mask")
        if not bool(valid.any(-1).any(-1).all()):
            raise RequestError("predict: padding_mask is false throughout: no value of the context is real")
        series = torch.where(valid, series, torch.zeros_like(series))
    if not np.isfinite(series.numpy()).all():  # several times as quick as torch on arrays so small
        raise RequestError("predict: context holds NaN or infinite values; mask them with padding_mask")
    missing = round_up(series.shape[-1], patch_size) - series.shape[-1]
    groups = None
    if id_mask is not None:
        groups = _groups(like(id_mask, series, torch.int64, "id_mask"), missing, patch_size)
    if missing:
        series, valid = pad(series, (missing, 0)), pad(valid, (missing, 0))
    return Context(series, valid, groups, None)


def length(context: ArrayLike) -> int:
    """Time steps of a context as the caller gave it."""
    found = _shape(context)
    return int(found[0] if _is_column(found) else found[-1])


def holds_rows(context: ArrayLike) -> bool:
    """Whether a context is a table (variate, time), of which earlier code expects one entry a row."""
    found = _shape(context)
    return len(found) == 2 and not _is_column(found)


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
            part = _pad_to_bucket(_pad_rows(part, size - real), settings.context_bucket, patch_size)
        yield part, real


def joint_contexts(
    contexts: Mapping[str, ArrayLike], size: int, patch_size: int
) -> Iterator[tuple[list[str], Context]]:
    """At most ``size`` series of one number of variates and of similar length, by name, as one ``Context``.

    Raises ``RequestError``, which names the series, before anything is forecast.
    """
    read = {name: _read_one(name, context, patch_size) for name, context in contexts.items()}
    alike = sorted(read, key=lambda name: (read[name].series.shape[1:], name))
    for _, group in itertools.groupby(alike, key=lambda name: read[name].series.shape[1]):
        names = list(group)
        for start in range(0, len(names), size):
            chosen = names[start : start + size]
            yield chosen, _joined([read[name] for name in chosen], patch_size)


def _read_one(name: str, context: ArrayLike, patch_size: int) -> Context:
    try:
        one = read_context(context, None, None, patch_size)
    except RequestError as error:
        raise RequestError(f"predict_many: {name}: {str(error).removeprefix('predict: ')}") from None
    if one.series.shape[0] != 1:
        raise RequestError(f"predict_many: {name}: context must be (time,) or (variate, time)")
    return one


def _joined(contexts: Sequence[Context], patch_size: int) -> Context:
    """One context of several series without groups, left-padded to the longest with what nothing attends."""
    longest = max(context.series.shape[-1] for context in contexts)
    missing = [longest - context.series.shape[-1] for context in contexts]
    series = torch.cat([pad(c.series, (m, 0)) for c, m in zip(contexts, missing, strict=True)])
    valid = torch.cat([pad(c.valid, (m, 0)) for c, m in zip(contexts, missing, strict=True)])
    pad_patches = torch.tensor([m // patch_size for m in missing]) if any(missing) else None
    return Context(series, valid, None, pad_patches)


def _pad_to_bucket(context: Context, bucket: int, patch_size: int) -> Context:
    if bucket == 0:
        return context
    rows, _, steps = context.series.shape
    added = round_up(steps, round_up(bucket, patch_size)) - steps
    added_patches = added // patch_size
    groups = context.groups
    if groups is not None:
        groups = torch.cat((groups[..., :1].expand(-1, -1, added_patches), groups), dim=-1)
    # the count is given even when it is 0: one graph serves every context of the bucket
    before = torch.zeros(rows, dtype=torch.int64) if context.pad_patches is None else context.pad_patches
    pad_patches = before + added_patches
    return Context(pad(context.series, (added, 0)), pad(context.valid, (added, 0)), groups, pad_patches)


def _pad_rows(context: Context, missing: int) -> Context:
    return context.each(lambda part: torch.cat((part, *[part[-1:]] * missing))) if missing else context


def _groups(ids: Tensor, missing: int, patch_size: int) -> Tensor:
    ids = torch.cat((ids[..., :1].expand(-1, -1, missing), ids), dim=-1)
    ids = torch.unflatten(ids, -1, (-1, patch_size))
    if not torch.equal(ids.amin(-1), ids.amax(-1)):
        raise RequestError("predict: id_mask changes inside a patch")
    return ids[..., 0]


def _shape(context: ArrayLike) -> Sequence[int]:
    shape = getattr(context, "shape", None)
    return np.shape(context) if shape is None else shape


def _is_column(shape: Sequence[int]) -> bool:
    """Whether a shape is that of one series written as a column, (time, 1)."""
    return len(shape) == 2 and shape[1] == 1 and shape[0] > 1


def without_mask(context: ArrayLike, padding_mask: ArrayLike | None) -> tuple[ArrayLike, ArrayLike | None]:
    """A masked array as its values and the mask of the real ones; anything else as it is."""
    if not isinstance(context, np.ma.MaskedArray) or padding_mask is not None:
        return context, padding_mask
    return context.filled(0), ~np.ma.getmaskarray(context)


def check_shape(series: Tensor, patch_size: int) -> None:
    """Raise ``RequestError`` for (batch, variate, time) that is too short, or lies the wrong way round."""
    _, variates, steps = series.shape
    if variates >= _SURELY_TURNED * steps:
        raise RequestError(
            f"predict: context has {variates} variates of {steps} time steps: time comes last, so turn it round "
            "(context.T)"
        )
    if steps < patch_size:
        raise RequestError(
            f"predict: context has {steps} time steps, fewer than one patch of {patch_size}: give a longer history"
        )


def check_whole(name: str, value: int, low: int, high: int) -> None:
    """Raise ``RequestError`` unless ``value`` is a whole number in the range."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise RequestError(f"predict: {name} must be a whole number from {low} to {high}, not {value!r}")


def batched(values: ArrayLike, dtype: torch.dtype, name: str) -> Tensor:
    """An array as a tensor (batch, variate, time) on the CPU. Raises ``RequestError`` for what is none."""
    try:
        tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
        if tensor.is_complex():
            raise TypeError("complex numbers")
        tensor = tensor.detach().to(device="cpu", dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"predict: {name} is not an array of numbers ({reason})") from None
    if _is_column(tensor.shape):
        tensor = tensor.T
    if not 1 <= tensor.ndim <= 3:
        raise RequestError(f"predict: {name} must have 1 to 3 dimensions, not {tensor.ndim}")
    return tensor.reshape((1,) * (3 - tensor.ndim) + tuple(tensor.shape))


def like(values: ArrayLike, series: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """``batched`` for what must have the shape of ``series``. Raises ``RequestError`` where it has not."""
    tensor = batched(values, dtype, name)
    if tensor.shape != series.shape:
        raise RequestError(f"predict: {name} must have the shape of context")
    return tensor
