"""Runs any call of a model as the settings say: eagerly, or compiled just in time or ahead of time."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn

from toto_core.compile_report import CompileReport
from toto_core.compiling.ahead import AheadOfTime, PackageStore, Result
from toto_core.compiling.packages import flatten
from toto_core.compiling.probes import probed_once
from toto_core.compiling.recorded import Recorder
from toto_core.compiling.tally import Tally, counts
from toto_core.compiling.torch_cache import keep_torch_private
from toto_core.device import begin_call, records_graphs
from toto_core.settings import RuntimeSettings
from toto_core.torch_versions import compile_alone, limiting, without_autotune_tables


class RunningCalls:
    """What the calls of every model share, under one configuration, with what compiling them did.

    A whole static graph on a CPU is compiled ahead of time, into ``packages``; a repeated layer, a
    dynamic graph and anything on a GPU (only there CUDA graphs exist) just in time. Either happens inside the
    first call of every new shape. A call may raise whatever torch's compiler raises; the caller decides
    whether to go on in eager mode. While ``hold`` is true nothing is compiled: unknown shapes run eagerly.
    """

    ahead_of_time = True
    """Whether anything is compiled ahead of time; False for a model whose calls torch cannot export."""

    def __init__(
        self, model: nn.Module, device: torch.device, settings: RuntimeSettings, packages: PackageStore | None
    ) -> None:
        self.settings = settings
        self.hold = False
        self.recorder: Recorder | None = None
        """Replays calls just in time that were made once before; None leaves that to torch."""
        self._tally = Tally(CompileReport(requested=settings.compiled))
        self._seen: set[tuple[Any, ...]] = set()
        self._records_graphs = records_graphs(device, settings.compile_mode)
        self._by_layer = settings.compiled and settings.compile_scope == "layer"
        just_in_time = self._by_layer or settings.dynamic or device.type != "cpu" or not self.ahead_of_time
        self._whole_just_in_time = settings.compiled and just_in_time and not self._by_layer
        self._ahead: AheadOfTime | None = None
        if settings.compiled and not just_in_time:
            self._ahead = AheadOfTime(model, settings, packages or PackageStore(), self._tally)

    @property
    def report(self) -> CompileReport:
        """What compiling did so far."""
        return self._tally.report

    def _begin(self) -> None:
        """Begin a model call: nothing that earlier ones returned is read any more."""
        if self._records_graphs:
            begin_call()

    def _whole(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A call's function, for torch to compile as a whole where that is done just in time."""
        return self._compiled(function) if self._whole_just_in_time else function

    def _layers(self, ops: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
        """The functions of repeated layers, for torch to compile where these are compiled alone."""
        return {name: self._compiled(op) for name, op in ops.items()} if self._by_layer else ops

    def _compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        asked = self.settings
        return compile_alone(
            function, limit=asked.recompile_limit, mode=asked.compile_mode, dynamic=asked.dynamic
        )

    def _run(
        self,
        name: str,
        variant: tuple[Any, ...],
        call: Callable[..., Result],
        template: Result,
        arguments: tuple[Any, ...],
    ) -> Result:
        """``call(*arguments)``, which ``variant`` and the arguments' shapes tell from others of its ``name``.

        ``template`` has the form of the result.
        """
        if self._ahead is not None:
            return self._ahead.run(name, variant, call, template, arguments, hold=self.hold)
        return self._just_in_time(name, variant, call, arguments)

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
                        keep_torch_private()
                        around.enter_context(probed_once())
                        around.enter_context(without_autotune_tables(self.settings.compile_mode))
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


def never_move(tensors: Sequence[Tensor]) -> None:
    """Tell torch that these tensors stay where they are, so that CUDA graphs may write into them."""
    from torch._dynamo import mark_static_address  # here, because it takes seconds and eager mode needs none

    for tensor in tensors:
        mark_static_address(tensor, guard=False)
