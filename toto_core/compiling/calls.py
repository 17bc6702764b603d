"""The two calls that a forecast of Toto 1.0 is made of, run as the settings say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from toto_core.compiling.ahead import PackageStore
from toto_core.compiling.running import RunningCalls, never_move
from toto_core.settings import RuntimeSettings
from toto_core.toto1 import forward
from toto_core.toto1.cache import Prefix, Suffix, empty_suffix
from toto_core.toto1.decode import Carry, Context, Decoder, LayerOps
from toto_core.toto1.forward import FirstPatch, NewestPatch
from toto_core.toto1.sampling import Noise
from toto_core.toto1.scaling import Stats

_TENSOR: Any = 0  # stands for a tensor in a template
_NEWEST = NewestPatch(_TENSOR, Stats(*(_TENSOR,) * len(Stats._fields)))
"""The form of what ``forward.following`` returns."""


class Calls(RunningCalls):
    """``first`` and ``following`` of one decoder under one configuration, with what compiling them did."""

    def __init__(
        self, decoder: Decoder, settings: RuntimeSettings, packages: PackageStore | None = None
    ) -> None:
        super().__init__(decoder, decoder.fold_weight.device, settings, packages)
        self._decoder = decoder
        self._kept: dict[tuple[Any, ...], Suffix] = {}
        first, following = _bound(decoder)
        self._first: Callable[..., FirstPatch] = self._whole(first)
        self._following: Callable[..., NewestPatch] = self._whole(following)
        self._ops = LayerOps(**self._layers(vars(LayerOps())))

    def begin(self) -> None:
        """Begin a model call: nothing that earlier ones returned is read any more.

        A decoder may have other calls beside these, with other repeated layers.
        """
        self._decoder.ops = self._ops
        self._begin()

    def suffix(self, prefix: Prefix, *, samples: int, slots: int) -> Suffix:
        """An empty suffix as ``cache.empty_suffix`` makes it.

        CUDA graphs write to fixed addresses, and torch records none that writes into an input it believes may
        move: for them every shape keeps its tensors, which are zeroed here.
        """
        if not self._records_graphs and self.recorder is None:
            return empty_suffix(prefix, samples=samples, slots=slots)
        shape = (prefix.keys[0].shape, prefix.keys[0].dtype, samples, slots)
        if shape not in self._kept:
            self._kept[shape] = stay_in_place(empty_suffix(prefix, samples=samples, slots=slots))
        kept = self._kept[shape]
        if self.recorder is not None:
            self.recorder.keep([*kept.keys, *kept.values])
        torch._foreach_zero_([*kept.keys, *kept.values])
        return kept

    def first(self, context: Context, rows: int, noise: Noise | None, *, keep: bool) -> FirstPatch:
        """``forward.first`` under the settings."""

        def call(context: Context, noise: Noise | None) -> FirstPatch:
            return self._first(context, rows, noise, keep=keep)

        grouped, bucketed = context.groups is not None, context.pad_patches is not None
        template = _first_template(self._decoder.time_layers, keep=keep, grouped=grouped, bucketed=bucketed)
        variant = (rows, keep, not grouped, not bucketed)
        return self._run("first", variant, call, template, (context, noise))

    def following(
        self, newest: NewestPatch, carry: Carry, suffix: Suffix, noise: Noise | None
    ) -> NewestPatch:
        """``forward.following`` under the settings."""
        variant = (carry.groups is None, carry.visible is None)
        arguments = (newest, carry, suffix, noise)
        newer = self._run("next", variant, self._following, _NEWEST, arguments)
        # the next replay overwrites what this one gave
        return newer if self.recorder is None else newer._replace(prices=newer.prices.clone())


def _bound(decoder: Decoder) -> tuple[Callable[..., FirstPatch], Callable[..., NewestPatch]]:
    """Both calls of one decoder, as plain functions: torch compiles by code object."""

    def first(context: Context, rows: int, noise: Noise | None, *, keep: bool) -> FirstPatch:
        return forward.first(decoder, context, rows, noise, keep=keep)

    def following(newest: NewestPatch, carry: Carry, suffix: Suffix, noise: Noise | None) -> NewestPatch:
        return forward.following(decoder, newest, carry, suffix, noise)

    return first, following


def stay_in_place(suffix: Suffix) -> Suffix:
    """The same suffix, whose tensors torch is told never move."""
    never_move((*suffix.keys, *suffix.values))
    return suffix


def _first_template(time_layers: int, *, keep: bool, grouped: bool, bucketed: bool) -> FirstPatch:
    """The form of what ``forward.first`` returns."""
    if not keep:
        return FirstPatch(_TENSOR, None)
    caches = (_TENSOR,) * time_layers
    groups, visible = (_TENSOR if given else None for given in (grouped, bucketed))
    return FirstPatch(_TENSOR, Carry(Prefix(caches, caches), _NEWEST.stats, _TENSOR, groups, visible))
