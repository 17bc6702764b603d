"""Turns a decoder into the two calls a forecast is made of, run as their settings say; calls ``torch.compile``."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

import torch
import torch._inductor.config as inductor_config

from toto_core import forward
from toto_core.ahead import NEWEST_TEMPLATE, Ahead, Shelf, first_template
from toto_core.cache import Suffix
from toto_core.compile_report import CompileReport
from toto_core.decode import Carry, Context, Decoder, LayerOps
from toto_core.forward import First, Newest
from toto_core.packages import leaves
from toto_core.sampling import Noise
from toto_core.settings import RuntimeSettings
from toto_core.tally import Tally, counts


class Calls:
    """The calls of one decoder under one settings: ``first`` and ``following``, with what compiling them did.

    A whole static graph on a CPU is compiled ahead of time, into packages on ``shelf``; a repeated layer, a
    dynamic graph and anything on a GPU (only there CUDA graphs exist) just in time. Either happens inside the
    first call of every new shape. A call may raise whatever torch's compiler raises; the caller decides
    whether to go on in eager mode. While ``hold`` is true nothing is compiled: unknown shapes run eagerly.
    """

    def __init__(self, decoder: Decoder, settings: RuntimeSettings, shelf: Shelf | None = None) -> None:
        self.settings = settings
        self.hold = False
        self._decoder = decoder
        self._tally = Tally(CompileReport(requested=settings.compiled))
        self._ahead: Ahead | None = None
        self._seen: set[tuple[Any, ...]] = set()
        decoder.ops = LayerOps()
        self._first: Callable[..., First] = functools.partial(forward.first, decoder)
        self._following: Callable[..., Newest] = functools.partial(forward.following, decoder)
        if not settings.compiled:
            return
        if settings.compile_scope == "layer":
            decoder.ops = _compiled_layers(settings)
        elif settings.dynamic or decoder.fold_weight.device.type != "cpu":
            self._first = _compile(_plain_first(decoder), settings)
            self._following = _compile(_plain_following(decoder), settings)
        else:
            self._ahead = Ahead(decoder, settings, shelf or Shelf(), self._tally)

    @property
    def report(self) -> CompileReport:
        """What compiling did so far."""
        return self._tally.report

    def first(self, context: Context, rows: int, noise: Noise | None, *, keep: bool) -> First:
        """``forward.first`` under the settings."""
        result: First
        if self._ahead is None:
            result = self._just_in_time("first", (rows, keep), self._first, context, rows, noise, keep=keep)
            return result
        template = first_template(
            self._decoder.time_layers,
            keep=keep,
            grouped=context.groups is not None,
            bucketed=context.pad_patches is not None,
        )

        def call(context: Context, noise: Noise | None) -> First:
            return forward.first(self._decoder, context, rows, noise, keep=keep)

        variant = (rows, keep, context.groups is None, context.pad_patches is None)
        result = self._ahead.run("first", variant, call, template, (context, noise), hold=self.hold)
        return result

    def following(self, newest: Newest, carry: Carry, suffix: Suffix, noise: Noise | None) -> Newest:
        """``forward.following`` under the settings."""
        arguments = (newest, carry, suffix, noise)
        result: Newest
        if self._ahead is None:
            result = self._just_in_time("next", (), self._following, *arguments)
            return result
        variant = (carry.groups is None, carry.visible is None)
        call = functools.partial(forward.following, self._decoder)
        result = self._ahead.run("next", variant, call, NEWEST_TEMPLATE, arguments, hold=self.hold)
        return result

    def _just_in_time(
        self, name: str, variant: tuple[Any, ...], call: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        if not self.settings.compiled:
            return call(*args, **kwargs)
        shape = (
            name,
            *variant,
            *(leaf.shape for leaf in leaves([a for a in args if not isinstance(a, int)])),
        )
        if self.hold:
            return self._held(shape, call, *args, **kwargs)
        if self.settings.freezing and shape not in self._seen:
            # packed weights come from the global setting at the time a shape compiles, not from options=
            freezing = inductor_config.patch(freezing=True)
        else:
            freezing = contextlib.nullcontext()
        before, started = counts(), time.perf_counter()
        try:
            with freezing:
                result = call(*args, **kwargs)
        finally:
            self._tally.add(name, before, counts(), time.perf_counter() - started)
        self._seen.add(shape)
        return result

    def _held(self, shape: tuple[Any, ...], call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A call that may not compile: torch goes on in eager mode where it would."""
        if shape not in self._seen:
            self._tally.add_held()
        with torch.compiler.set_stance("eager_on_recompile"):
            return call(*args, **kwargs)


def _plain_first(decoder: Decoder) -> Callable[..., First]:
    def first(context: Context, rows: int, noise: Noise | None, *, keep: bool) -> First:
        return forward.first(decoder, context, rows, noise, keep=keep)

    return first


def _plain_following(decoder: Decoder) -> Callable[..., Newest]:
    def following(newest: Newest, carry: Carry, suffix: Suffix, noise: Noise | None) -> Newest:
        return forward.following(decoder, newest, carry, suffix, noise)

    return following


def _compile(function: Callable[..., Any], settings: RuntimeSettings) -> Callable[..., Any]:
    # torch's overloads leave out recompile_limit and isolate_recompiles, which the function itself takes
    torch_compile: Callable[..., Callable[..., Any]] = torch.compile
    return torch_compile(
        function,
        mode=settings.compile_mode,
        dynamic=settings.dynamic,
        recompile_limit=settings.recompile_limit,
        isolate_recompiles=True,  # Dynamo's cache is per code object: without it pipelines use up one limit
    )


def _compiled_layers(settings: RuntimeSettings) -> LayerOps:
    plain = LayerOps()
    return LayerOps(
        space=_compile(plain.space, settings),
        time=_compile(plain.time, settings),
        step=_compile(plain.step, settings),
    )
