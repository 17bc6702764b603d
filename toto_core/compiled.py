"""The only place that calls ``torch.compile``: turns a decoder into the two calls a forecast is made of."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch._dynamo
import torch._inductor.config as inductor_config
from torch import Tensor
from torch._dynamo.utils import counters

from toto_core.cache import Suffix
from toto_core.compile_report import CompileReport
from toto_core.decode import Carry, Context, Decoder, LayerOps, Prediction
from toto_core.sampling import Noise, mixture_mean, sample, without_extremes
from toto_core.scaling import Stats
from toto_core.settings import RuntimeSettings


class First(NamedTuple):
    """The first patch of a forecast, prices (batch, variate, row, sample), and what later steps need."""

    prices: Tensor
    carry: Carry | None


class Next(NamedTuple):
    """One more patch of prices (batch, variate, sample, patch_size) and its statistics."""

    prices: Tensor
    stats: Stats


class Calls:
    """The calls of one decoder under one settings: ``first`` and ``next``, with what compiling them did.

    Compilation happens inside the first call of every new shape. A call may raise whatever torch's compiler
    raises; the caller decides whether to go on in eager mode.
    """

    def __init__(self, decoder: Decoder, settings: RuntimeSettings) -> None:
        self.settings = settings
        self._seen: set[tuple[Any, ...]] = set()
        self._tally = _Tally(CompileReport(requested=settings.compiled))
        decoder.ops = LayerOps()
        if settings.compiled and settings.compile_scope == "layer":
            decoder.ops = _compiled_layers(settings)

        def first(context: Context, rows: int, noise: Noise | None, *, keep: bool) -> First:
            return _first(decoder, context, rows, noise, keep=keep)

        def following(
            prices: Tensor, stats: Stats, carry: Carry, suffix: Suffix, slot: Tensor, *, noise: Noise | None
        ) -> Next:
            return _following(decoder, prices, stats, carry, suffix, slot=slot, noise=noise)

        whole = settings.compiled and settings.compile_scope == "full"
        self._first = _compile(first, settings) if whole else first
        self._following = _compile(following, settings) if whole else following

    @property
    def report(self) -> CompileReport:
        """What compiling did so far."""
        return self._tally.report

    def first(self, context: Context, rows: int, noise: Noise | None, *, keep: bool) -> First:
        """Prefill and the first ``rows`` steps; ``noise`` (variate, row, sample), None for the mean path.

        ``keep`` asks for the carry that ``following`` needs.
        """
        bucketed = context.pad_patches is not None
        shape = ("first", rows, keep, _shape(context.series), bucketed, _noise_shape(noise))
        result: First = self._run(shape, self._first, context, rows, noise, keep=keep)
        return result

    def following(
        self, prices: Tensor, stats: Stats, carry: Carry, suffix: Suffix, slot: Tensor, *, noise: Noise | None
    ) -> Next:
        """Feed back ``prices`` (batch, variate, sample, patch_size) and forecast the next patch."""
        shape = ("next", _shape(prices), _shape(suffix.keys[0]) if suffix.keys else (), _noise_shape(noise))
        result: Next = self._run(shape, self._following, prices, stats, carry, suffix, slot, noise=noise)
        return result

    def _run(self, shape: tuple[Any, ...], call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not self.settings.compiled:
            return call(*args, **kwargs)
        if self.settings.freezing and shape not in self._seen:
            # packed weights come from the global setting at the time a shape compiles, not from options=
            freezing = inductor_config.patch(freezing=True)
        else:
            freezing = contextlib.nullcontext()
        before, started = _counts(), time.perf_counter()
        try:
            with freezing:
                result = call(*args, **kwargs)
        finally:
            self._tally.add(shape[0], before, _counts(), time.perf_counter() - started)
        self._seen.add(shape)
        return result


def _first(decoder: Decoder, context: Context, rows: int, noise: Noise | None, *, keep: bool) -> First:
    prediction, carry = decoder.prefill(context, rows)
    if noise is None:
        scaled = mixture_mean(prediction.mixture).unsqueeze(-1)
    else:
        shape = (*prediction.loc.shape, rows, noise.component.shape[-1])
        scaled = sample(prediction.mixture, *(uniform.expand(shape) for uniform in noise))
    prices = prediction.loc[..., None, None] + prediction.scale[..., None, None] * scaled
    return First(without_extremes(prices), carry if keep else None)


def _following(
    decoder: Decoder,
    prices: Tensor,
    stats: Stats,
    carry: Carry,
    suffix: Suffix,
    *,
    slot: Tensor,
    noise: Noise | None,
) -> Next:
    prediction, stats = decoder.step(prices, stats, carry, suffix, slot)
    return Next(without_extremes(_next_prices(prediction, noise)), stats)


def _next_prices(prediction: Prediction, noise: Noise | None) -> Tensor:
    """Prices (batch, variate, sample, row) from one draw per sample; ``noise`` is (variate, row, sample)."""
    if noise is None:
        scaled = mixture_mean(prediction.mixture)
    else:
        shape = prediction.mixture.probs.shape[:-1]
        uniforms = (uniform.transpose(-1, -2).expand(shape).unsqueeze(-1) for uniform in noise)
        scaled = sample(prediction.mixture, *uniforms).squeeze(-1)
    return prediction.loc.unsqueeze(-1) + prediction.scale.unsqueeze(-1) * scaled


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


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _noise_shape(noise: Noise | None) -> tuple[int, ...]:
    return () if noise is None else _shape(noise.component)


@dataclass
class _Tally:
    """Adds up torch's global counters over our own calls only: another pipeline's compiles are not ours."""

    report: CompileReport
    compiling: Counter[str] = field(default_factory=Counter)

    def add(self, call: str, before: _Counts, after: _Counts, seconds: float) -> None:
        """Account for one call named ``call``; most calls compile nothing and end here at once."""
        if after == before:
            return
        report = self.report
        fell_back = after.frames - after.frames_ok > before.frames - before.frames_ok
        self.compiling[call] += after.graphs > before.graphs
        self.report = CompileReport(
            requested=report.requested,
            graphs=report.graphs + after.graphs - before.graphs,
            graph_breaks=report.graph_breaks + after.breaks - before.breaks,
            recompiles=sum(count - 1 for count in self.compiling.values() if count),
            recompile_limit_hit=report.recompile_limit_hit or fell_back or after.limits > before.limits,
            cudagraph_skips=report.cudagraph_skips + (_skip_reasons() if after.skips > before.skips else ()),
            compile_seconds=round(report.compile_seconds + seconds, 3),
            cache_hits=report.cache_hits + after.cache_hits - before.cache_hits,
        )


class _Counts(NamedTuple):
    frames: int
    frames_ok: int
    graphs: int
    breaks: int
    limits: int
    skips: int
    cache_hits: int


def _counts() -> _Counts:
    frames, inductor = counters["frames"], counters["inductor"]
    unimplemented = counters["unimplemented"].items()
    return _Counts(
        frames["total"],
        frames["ok"],
        counters["stats"]["unique_graphs"],
        sum(counters["graph_break"].values()),
        sum(count for reason, count in unimplemented if "recompile limit" in reason.lower()),
        inductor["cudagraph_skips"],
        inductor["fxgraph_cache_hit"],
    )


def _skip_reasons() -> tuple[str, ...]:
    metrics = torch._dynamo.utils.get_compilation_metrics()
    reasons = {m.cudagraph_skip_reason for m in metrics if getattr(m, "cudagraph_skip_reason", None)}
    return tuple(sorted(str(reason) for reason in reasons)) or ("reason not reported by torch",)
