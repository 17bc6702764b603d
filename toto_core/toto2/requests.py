"""Checks what a caller gives ``Toto2Pipeline.predict`` and turns it into contexts of whole patches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from toto_core.requests import ArrayLike, RequestError, batched, check_shape, check_whole, like, without_mask
from toto_core.settings import round_up
from toto_core.toto2.batching import joined
from toto_core.toto2.options import Toto2Options
from toto_core.toto2.passes import Context, Known, Plan


@dataclass(frozen=True, kw_only=True)
class KnownInputs:
    """Inputs whose future is known, as a caller gives them: (known, time) or (batch, known, time).

    Time begins with the context and reaches up to the forecast's end, or less far, what is missing being unobserved.
    ``mask`` is True for real values, ``ids`` (known,) or (batch, known) the group of each; None for all, and for the
    group of the first variate.
    """

    values: ArrayLike
    mask: ArrayLike | None = None
    ids: ArrayLike | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a forecast: ``steps`` time steps under ``options``. Raises ``RequestError``."""

    steps: int
    options: Toto2Options
    patch_size: int

    def __post_init__(self) -> None:
        check_whole("prediction_length", self.steps, 1, 1_000_000)
        block = self.options.decode_block_size
        if block % self.patch_size:
            raise RequestError(
                f"predict: decode_block_size {block} must be a multiple of the model's patch of {self.patch_size}"
            )

    @property
    def patches(self) -> int:
        """Patches to forecast."""
        return math.ceil(int(self.steps) / self.patch_size)

    @property
    def block(self) -> int:
        """Patches of one pass."""
        asked = int(self.options.decode_block_size) // self.patch_size
        return min(asked, self.patches) if asked else self.patches

    @property
    def later(self) -> int:
        """Passes after the first."""
        return math.ceil(self.patches / self.block) - 1

    @property
    def most_later(self) -> int:
        """Passes after the first that there is room for: a power of two, so that not every horizon has its graphs."""
        return 1 << (self.later - 1).bit_length() if self.later else 0

    def plan(self, context: Context, *, bucketed: bool) -> Plan:
        """How this is decoded of ``context``; one in a bucket has patches that are to be hidden, or may have."""
        asked = self.options
        return Plan(
            block=self.block,
            later=self.most_later,
            masked=bucketed or asked.has_missing_values or _has_gaps(context, self.patch_size),
            min_observed=int(asked.scaler_fallback_min_obs),
            cap=float(asked.quantile_real_cap_k),
        )


def read_context(
    context: ArrayLike,
    padding_mask: ArrayLike | None,
    id_mask: ArrayLike | None,
    known: KnownInputs | None,
    request: Request,
) -> Context:
    """A ``Context`` of whole patches on the CPU from (time,), (variate, time) or (batch, variate, time).

    ``padding_mask``, of the same shape, is True for real values. As in the reference, all values of the newest patch
    count as real; those that are not finite are the newest real one before them. ``id_mask`` is the group of each
    variate: (variate,), (batch, variate), or of the context's shape and the same throughout. A length that is no
    multiple of the patch is filled up on the left with what is not real. Raises ``RequestError`` for other shapes,
    less than a patch, or real values that are not finite.
    """
    size = request.patch_size
    context, padding_mask = without_mask(context, padding_mask)
    series = batched(context, torch.float32, "context")
    if series.numel() == 0:
        raise RequestError("predict: context is empty")
    check_shape(series, size)
    valid = _valid(padding_mask, series)
    _check_finite(series, valid, "context", "padding_mask")
    if valid is not None:
        series = _filled(series, valid)
        valid[..., -size:] = True
    groups = None if id_mask is None else _ids(id_mask, series)
    missing = round_up(series.shape[-1], size) - series.shape[-1]
    there, ids = (None, None) if known is None else _known(known, series, missing, request)
    if there is not None and (groups is not None or ids is not None):
        mine = torch.zeros(series.shape[:2], dtype=torch.int64) if groups is None else groups
        groups = torch.cat(
            (mine, mine[:, :1].expand(-1, there.values.shape[1]) if ids is None else ids), dim=1
        )
    if missing:
        valid = torch.ones(series.shape, dtype=torch.bool) if valid is None else valid
        series, valid = pad(series, (missing, 0)), pad(valid, (missing, 0))
    if valid is None or bool(valid.all()):
        return Context(series, None, _several(groups), there, None)
    series = torch.where(valid, series, torch.zeros_like(series))
    return Context(series, valid, _several(groups), there, None)


def joint_contexts(
    contexts: Mapping[str, ArrayLike], size: int, request: Request
) -> Iterator[tuple[list[str], Context]]:
    """At most ``size`` series of one number of variates and of similar length, by name, as one ``Context``.

    Raises ``RequestError``, which names the series, before anything is forecast.
    """
    read = {name: _read_one(name, context, request) for name, context in contexts.items()}
    variates: dict[int, list[str]] = {}
    for name in sorted(read, key=lambda name: (read[name].series.shape[-1], name)):
        variates.setdefault(read[name].series.shape[1], []).append(name)
    for names in variates.values():
        for start in range(0, len(names), size):
            chosen = names[start : start + size]
            yield chosen, joined([read[name] for name in chosen], request.patch_size)


def _valid(mask: ArrayLike | None, series: Tensor) -> Tensor | None:
    """A copy of the mask of a context, None where there is none."""
    if mask is None:
        return None
    valid = like(mask, series, torch.bool, "padding_mask").clone()
    if not bool(valid.any(-1).any(-1).all()):
        raise RequestError("predict: padding_mask is false throughout: no value of the context is real")
    return valid


def _check_finite(series: Tensor, valid: Tensor | None, name: str, mask: str) -> None:
    finite = np.isfinite(series.numpy())  # several times as quick as torch on arrays so small
    if not finite.all() and (valid is None or not (finite | ~valid.numpy()).all()):
        raise RequestError(f"predict: {name} holds NaN or infinite values; mask them with {mask}")


def _filled(series: Tensor, valid: Tensor) -> Tensor:
    """Values that are not finite, all of them masked, as the newest real one before them, or 0."""
    finite = series.isfinite()
    if bool(finite.all()):
        return series
    order = torch.arange(series.shape[-1]).expand(series.shape)
    newest = torch.where(valid, order, -1).cummax(-1).values
    real = torch.where(valid, series, torch.zeros_like(series))
    before = torch.where(newest < 0, torch.zeros_like(series), real.gather(-1, newest.clamp_min(0)))
    return torch.where(finite, series, before)


def _ids(ids: ArrayLike, series: Tensor) -> Tensor:
    """Groups (batch, variate) from (variate,), (batch, variate), or a shape like the context's."""
    found = _whole_numbers(ids, "id_mask")
    batch, variates, steps = series.shape
    if found.shape[-1:] == (steps,) and found.shape in (series.shape, series.shape[1:], series.shape[2:]):
        found = found.reshape(-1, variates, steps)
        if not torch.equal(found.amin(-1), found.amax(-1)):
            raise RequestError("predict: id_mask changes in time: a variate has one group")
        return found[..., 0].expand(batch, -1)
    return _of_rows(found, batch, variates, "id_mask")


def _of_rows(found: Tensor, batch: int, rows: int, name: str) -> Tensor:
    """(batch, row) from (row,) or (batch, row)."""
    if found.shape in ((rows,), (1, rows), (batch, rows)):
        return found.expand(batch, rows)
    raise RequestError(f"predict: {name} must be ({rows},) or ({batch}, {rows}), not {tuple(found.shape)}")


def _whole_numbers(ids: ArrayLike, name: str) -> Tensor:
    try:
        found = ids if isinstance(ids, Tensor) else torch.from_numpy(np.array(ids))
        return found.detach().to(device="cpu", dtype=torch.int64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RequestError(
            f"predict: {name} is not an array of numbers ({' '.join(str(error).split())[:200]})"
        ) from None


def _known(known: KnownInputs, series: Tensor, missing: int, request: Request) -> tuple[Known, Tensor | None]:
    """Known inputs up to the end of the last pass there is room for, and their groups (batch, known), or None."""
    ahead = request.patches * request.patch_size
    values = batched(known.values, torch.float32, "known_dynamic")
    batch, _, steps = series.shape
    if values.shape[0] != batch or not steps <= values.shape[-1] <= steps + ahead:
        raise RequestError(
            f"predict: known_dynamic must be ({batch}, known, time) of {steps} to {steps + ahead} time steps, "
            f"the context's and those of the forecast, not {tuple(values.shape)}"
        )
    valid = torch.ones(values.shape, dtype=torch.bool)
    if known.mask is not None:
        valid = like(known.mask, values, torch.bool, "known_dynamic_mask")
    _check_finite(values, valid, "known_dynamic", "known_dynamic_mask")
    values = torch.where(valid, values, torch.zeros_like(values))
    ids = None
    if known.ids is not None:
        asked = _whole_numbers(known.ids, "known_dynamic_ids")
        ids = _of_rows(asked, batch, values.shape[1], "known_dynamic_ids")
    passes = (1 + request.most_later) * request.block * request.patch_size
    room = (missing, steps + passes - values.shape[-1])
    return Known(pad(values, room), pad(valid, room)), ids


def _several(groups: Tensor | None) -> Tensor | None:
    """The groups, None where all rows of a series are in one."""
    if groups is None or torch.equal(groups, groups[:, :1].expand_as(groups)):
        return None
    return groups.contiguous()


def _has_gaps(context: Context, patch_size: int) -> bool:
    """Whether nothing was observed in some patch of the context."""
    masks = [] if context.observed is None else [context.observed]
    if context.known is not None:
        masks.append(context.known.observed[..., : context.series.shape[-1]])
    return not all(bool(torch.unflatten(mask, -1, (-1, patch_size)).any(-1).all()) for mask in masks)


def _read_one(name: str, context: ArrayLike, request: Request) -> Context:
    try:
        one = read_context(context, None, None, None, request)
    except RequestError as error:
        raise RequestError(f"predict_many: {name}: {str(error).removeprefix('predict: ')}") from None
    if one.series.shape[0] != 1:
        raise RequestError(f"predict_many: {name}: context must be (time,) or (variate, time)")
    return one
