"""Runs the two calls of a forecast as the settings say: eagerly, or compiled just in time or ahead of time."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import torch

from toto_core.compile_report import CompileReport
from toto_core.compiling.ahead import NEWEST_TEMPLATE, AheadOfTime, PackageStore, Result, first_template
from toto_core.compiling.packages import flatten
from toto_core.compiling.probes import probed_once
from toto_core.compiling.recorded import Recorder
from toto_core.compiling.tally import Tally, counts
from toto_core.device import begin_call, records_graphs
from toto_core.settings import RuntimeSettings
from toto_core.torch_versions import compile_alone, limiting
from toto_core.toto1 import forward
from toto_core.toto1.cache import Prefix, Suffix, empty_suffix
from toto_core.toto1.decode import Carry, Context, Decoder, LayerOps
from toto_core.toto1.forward import FirstPatch, NewestPatch
from toto_core.toto1.sampling import Noise


class Calls:
    """``first`` and ``following`` of one decoder under one configuration, with what compiling them did.

    A whole static graph on a CPU is compiled ahead of time, into ``packages``; a repeated layer, a
    dynamic graph and anything on a GPU (only there CUDA graphs exist) just in time. Either happens inside the
    first call of every new shape. A call may raise whatever torch's compiler raises; the caller decides
    whether to go on in eager mode. While ``hold`` is true nothing is compiled: unknown shapes run eagerly.
    """

    def __init__(
        self, decoder: Decoder, settings: RuntimeSettings, packages: PackageStore | None = None
    ) -> None:
        self.settings = settings
        self.hold = False
        self._decoder = decoder
        self.recorder: Recorder | None = None
        """Replays calls just in time that were made once before; None leaves that to torch."""
        self._tally = Tally(CompileReport(requested=settings.compiled))
        self._ahead: AheadOfTime | None = None
        self._seen: set[tuple[Any, ...]] = set()
        self._kept: dict[tuple[Any, ...], Suffix] = {}
        self._records_graphs = records_graphs(decoder.fold_weight.device, settings.compile_mode)
        self._first, self._following = _bound(decoder)
        self._ops = LayerOps()
        if not settings.compiled:
            return
        if settings.compile_scope == "layer":
            plain = vars(self._ops)
            self._ops = LayerOps(**{name: _compile(op, settings) for name, op in plain.items()})
        elif settings.dynamic or decoder.fold_weight.device.type != "cpu":
            self._first = _compile(self._first, settings)
            self._following = _compile(self._following, settings)
        else:
            self._ahead = AheadOfTime(decoder, settings, packages or PackageStore(), self._tally)

    @property
    def report(self) -> CompileReport:
        """What compiling did so far."""
        return self._tally.report

    def begin(self) -> None:
        """Begin a model call: nothing that earlier ones returned is read any more.

        A decoder may have other calls beside these, with other repeated layers.
        """
        self._decoder.ops = self._ops
        if self._records_graphs:
            begin_call()

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

        variant = (rows, keep, context.groups is None, context.pad_patches is None)
        arguments = (context, noise)
        if self._ahead is None:
            return self._just_in_time("first", variant, call, arguments)
        template = first_template(
            self._decoder.time_layers,
            keep=keep,
            grouped=context.groups is not None,
            bucketed=context.pad_patches is not None,
        )
        return self._ahead.run("first", variant, call, template, arguments, hold=self.hold)

    def following(
        self, newest: NewestPatch, carry: Carry, suffix: Suffix, noise: Noise | None
    ) -> NewestPatch:
        """``forward.following`` under the settings."""
        variant = (carry.groups is None, carry.visible is None)
        arguments = (newest, carry, suffix, noise)
        if self._ahead is None:
            newer = self._just_in_time("next", variant, self._following, arguments)
            # the next replay overwrites what this one gave
            return newer if self.recorder is None else newer._replace(prices=newer.prices.clone())
        return self._ahead.run("next", variant, self._following, NEWEST_TEMPLATE, arguments, hold=self.hold)

    def _just_in_time(
        self, name: str, variant: tuple[Any, ...], call: Callable[..., Result], arguments: tuple[Any, ...]
    ) -> Result:
        """``call(*arguments)``, which torch may compile inside; in eager mode nothing but that."""
        if not self.settings.compiled and self.recorder is None:
            return call(*arguments)
        shape = (name, *variant, *(leaf.shape for leaf in flatten(arguments)))
        if self.recorder is not None and shape in self._seen:
            return cast("Result", self.recorder.run(shape, call, arguments))
        if self.hold:  # torch goes on in eager mode where it would compile
            if shape not in self._seen:
                self._tally.add_held()
            with torch.compiler.set_stance("eager_on_recompile"):
                return call(*arguments)
        packed = self.settings.freezing and shape not in self._seen
        before, started = counts(), time.perf_counter()
        try:
            with contextlib.ExitStack() as around:
                if shape not in self._seen:
                    around.enter_context(limiting(self.settings.recompile_limit))
                    around.enter_context(warnings.catch_warnings())
                    warnings.filterwarnings("ignore", message="TensorFloat32")  # fp32 was asked for
                    if self.settings.compiled:
                        around.enter_context(probed_once())
                if packed:
                    around.enter_context(_freezing())
                result = call(*arguments)
        finally:
            self._tally.add(name, before, counts(), time.perf_counter() - started)
        self._seen.add(shape)
        return result


def _freezing() -> AbstractContextManager[Any]:
    """Packs the weights in: torch reads this global when a shape compiles, and ignores it among the options."""
    import torch._inductor.config as inductor_config  # here, because it takes seconds and eager mode needs none

    patch: AbstractContextManager[Any] = inductor_config.patch(freezing=True)
    return patch


def _bound(decoder: Decoder) -> tuple[Callable[..., FirstPatch], Callable[..., NewestPatch]]:
    """Both calls of one decoder, as plain functions: torch compiles by code object."""

    def first(context: Context, rows: int, noise: Noise | None, *, keep: bool) -> FirstPatch:
        return forward.first(decoder, context, rows, noise, keep=keep)

    def following(newest: NewestPatch, carry: Carry, suffix: Suffix, noise: Noise | None) -> NewestPatch:
        return forward.following(decoder, newest, carry, suffix, noise)

    return first, following


def _compile(function: Callable[..., Any], settings: RuntimeSettings) -> Callable[..., Any]:
    return compile_alone(
        function, limit=settings.recompile_limit, mode=settings.compile_mode, dynamic=settings.dynamic
    )


def stay_in_place(suffix: Suffix) -> Suffix:
    """The same suffix, whose tensors torch is told never move."""
    from torch._dynamo import mark_static_address  # here, because it takes seconds and eager mode needs none

    for tensor in (*suffix.keys, *suffix.values):
        mark_static_address(tensor, guard=False)
    return suffix
