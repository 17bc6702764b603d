"""``Toto2Pipeline``: arrays in, quantiles out."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from toto_core import compile_config
from toto_core.base_pipeline import BasePipeline, milliseconds
from toto_core.call_tally import asked_of_torch, done_by_torch
from toto_core.compile_report import CompileReport
from toto_core.compiling.ahead import PackageStore
from toto_core.device import owned, ran_out_of_memory, resolve_device, synchronize
from toto_core.float32_products import pinned
from toto_core.memory_ladder import ForecastMemoryError
from toto_core.model_files import digest, locate
from toto_core.quantile_forecast import QuantileForecast
from toto_core.requests import ArrayLike, RequestError, length
from toto_core.rescue import RescuedCalls
from toto_core.settings import RuntimeSettings
from toto_core.threads import set_threads
from toto_core.toto2 import checkpoint
from toto_core.toto2.batching import batches
from toto_core.toto2.calls import Toto2Calls
from toto_core.toto2.decode import Decoder
from toto_core.toto2.folding import folded
from toto_core.toto2.model_config import LEVELS
from toto_core.toto2.options import OptionsError, Toto2Options
from toto_core.toto2.passes import Context, Fed, Place, Plan
from toto_core.toto2.quantiles import median_of
from toto_core.toto2.requests import KnownInputs, Request, joint_contexts, read_context


class Toto2Pipeline(BasePipeline[Decoder, Toto2Calls]):
    """A Toto 2.0 model under one set of runtime settings; not safe for calls from several threads at once."""

    def __init__(
        self,
        decoder: Decoder,
        settings: RuntimeSettings,
        device: torch.device,
        load_ms: float,
        packages: PackageStore | None = None,
        *,
        options: Toto2Options | None = None,
    ) -> None:
        calls: RescuedCalls[Toto2Calls] = RescuedCalls(
            decoder, settings, packages, make=Toto2Calls, count=_not_finite
        )
        super().__init__(decoder, calls, settings, device, load_ms)
        self.options = options or Toto2Options()
        """How a forecast is decoded whose caller does not say otherwise."""
        self.patch_size = decoder.config.patch_size
        """Time steps in a patch."""

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | Path,
        *,
        device: str | torch.device = "cpu",
        settings: RuntimeSettings | None = None,
        options: Toto2Options | None = None,
        revision: str | None = None,
        artifacts: Path | None = None,
    ) -> Toto2Pipeline:
        """Load a model from a folder in the official layout, its weights in one file or in shards, or from a hub id.

        Without ``settings`` the process-wide defaults of ``compile_config`` hold: eager fp32, unless they were set. A
        thread count in the settings is set for the whole process, because a process has only one. ``artifacts`` is a
        folder in which what is compiled here is kept and found by the next process; it must be private and of this
        machine, because what lies there is code. Raises ``CheckpointError`` and ``DeviceError``, each with one line.
        """
        started = time.perf_counter()
        target = resolve_device(str(device))
        chosen = compile_config.defaults() if settings is None else settings
        set_threads(chosen.num_threads)
        folder = locate(str(name_or_dir), revision=revision)
        packages = None
        if chosen.compiled and artifacts is not None:
            packages = PackageStore(folder=artifacts, model=digest(folder))
        config, weights = checkpoint.load(folder)
        decoder = Decoder(config, folded(weights, config), precision=chosen.precision)
        decoder = decoder.to(target).eval().requires_grad_(False)
        return cls(decoder, chosen, target, milliseconds(started), packages, options=options)

    def predict(
        self,
        context: ArrayLike,
        prediction_length: int = 8,
        num_samples: int | None = None,
        seed: int = 0,
        *,
        padding_mask: ArrayLike | None = None,
        id_mask: ArrayLike | None = None,
        decode_block_size: int | None = None,
        known_dynamic: ArrayLike | None = None,
        known_dynamic_mask: ArrayLike | None = None,
        known_dynamic_ids: ArrayLike | None = None,
        has_missing_values: bool | None = None,
        quantile_real_cap_k: float | None = None,
        scaler_fallback_min_obs: int | None = None,
    ) -> QuantileForecast:
        """Forecast ``prediction_length`` steps of one or more series.

        ``context`` is (time,), (variate, time) or (batch, variate, time); a column (time, 1), a table of one column
        and a masked array are one series. ``padding_mask``, True for real values, has its shape; all values of the
        newest patch count as real, as in the reference. ``id_mask`` is the group of each variate: (variate,), (batch,
        variate), or of the context's shape.

        ``known_dynamic`` are inputs known beyond the context, (known, time) or (batch, known, time), time being that
        of context and forecast; ``known_dynamic_mask``, True for real values, has its shape, ``known_dynamic_ids`` is
        the group of each, that of the first variate unless given. The others are ``Toto2Options``, the pipeline's own
        unless given. ``num_samples`` and ``seed``, which other models' pipelines take, change nothing: nothing is
        drawn. Raises ``RequestError``, ``ForecastMemoryError``, and ``NoForecastError`` when more than 1 % of
        the quantiles are not finite.
        """
        started = time.perf_counter()
        calls = self._open()
        request = self._request(
            prediction_length,
            decode_block_size=decode_block_size,
            has_missing_values=has_missing_values,
            quantile_real_cap_k=quantile_real_cap_k,
            scaler_fallback_min_obs=scaler_fallback_min_obs,
        )
        known = None
        if known_dynamic is not None:
            known = KnownInputs(values=known_dynamic, mask=known_dynamic_mask, ids=known_dynamic_ids)
        whole = read_context(context, padding_mask, id_mask, known, request)
        quantiles, replaced = self._forecast(whole, request)
        self._note(
            request,
            calls.report,
            context=length(context),
            entries=whole.series.shape[0],
            replaced=replaced,
            ms=milliseconds(started),
        )
        return QuantileForecast(quantiles=quantiles, levels=LEVELS)

    def predict_many(
        self,
        contexts: Mapping[str, ArrayLike],
        prediction_length: int = 8,
        num_samples: int | None = None,
        seed: int = 0,
        *,
        decode_block_size: int | None = None,
    ) -> dict[str, QuantileForecast]:
        """Forecast several series of any lengths, each (time,) or (variate, time), ``series_per_batch`` at a time.

        Series of similar length are forecast together, the shorter ones padded on the left with what nothing attends:
        a forecast is that of ``predict`` alone, to float32 rounding. Raises ``RequestError``, which names the series.
        """
        started = time.perf_counter()
        calls = self._open()
        request = self._request(prediction_length, decode_block_size=decode_block_size)
        forecasts: dict[str, QuantileForecast] = {}
        total = 0
        for names, joint in joint_contexts(contexts, self.settings.series_per_batch, request):
            quantiles, replaced = self._forecast(joint, request)
            total += replaced
            for index, name in enumerate(names):
                mine = quantiles[:, index : index + 1]
                forecasts[name] = QuantileForecast(quantiles=mine, levels=LEVELS)
        longest = max(map(length, contexts.values()), default=0)
        self._note(
            request,
            calls.report,
            context=longest,
            entries=len(contexts),
            replaced=total,
            ms=milliseconds(started),
        )
        return {name: forecasts[name] for name in contexts}

    def _request(self, prediction_length: int, **given: object) -> Request:
        try:
            options = self.options.changed(**given)
        except OptionsError as error:
            raise RequestError(f"predict: {error}") from None
        return Request(steps=prediction_length, options=options, patch_size=self.patch_size)

    def _forecast(self, whole: Context, request: Request) -> tuple[Tensor, int]:
        """Quantiles (level, batch, variate, time) of any number of series, and how many of them were not finite."""

        def compute(calls: Toto2Calls) -> Tensor:
            return _quantiles(calls, whole, request, self.device)

        try:
            # not inference_mode: freezing needs tensors that still have version counters
            with torch.no_grad(), pinned(self._products):
                return self._guarded(compute)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            together = min(whole.series.shape[0], self.settings.series_per_batch)
            raise ForecastMemoryError(
                f"out of memory with {together} series together: give a shorter context or horizon, or settings with "
                "a smaller series_per_batch"
            ) from error.with_traceback(None)

    def _note(
        self, asked: Request, report: CompileReport, *, context: int, entries: int, replaced: int, ms: float
    ) -> None:
        said = {
            **asked_of_torch(self.settings, report),
            "num_samples_requested": None,
            "num_samples_used": None,
            "samples_replaced": replaced,
            "decode_block_size": asked.options.decode_block_size,
            **done_by_torch(report),
            "batch_size": entries,
        }
        self._done(said, (context, asked.steps, 0), report, None, ms)


def _quantiles(calls: Toto2Calls, whole: Context, request: Request, device: torch.device) -> Tensor:
    """Quantiles (level, batch, variate, time), on the CPU. Raises whatever torch raises."""
    parts: list[Tensor] = []
    bucketed = whole.pad_patches is not None or bool(
        calls.settings.compiled and calls.settings.context_bucket
    )
    plan = request.plan(whole, bucketed=bucketed)
    for part, real in batches(whole, calls.settings, request.patch_size):
        there = part.each(lambda tensor: tensor.to(device))
        parts.append(_model_call(calls, there, plan, request)[:, :real, :, : request.steps])
    synchronize(device)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _model_call(calls: Toto2Calls, context: Context, plan: Plan, request: Request) -> Tensor:
    """Quantiles (level, batch, variate, time) of one model call's series, time in whole blocks, on the CPU."""
    calls.begin()
    first = calls.first(context, plan)
    if first.carry is None or first.running is None:
        return owned(first.quantiles)
    blocks, running = [first.quantiles], first.running
    context_patches = context.series.shape[-1] // request.patch_size
    for index in range(1, request.later + 1):
        start = context_patches + (index - 1) * plan.block
        end = min(start + 2 * plan.block, context_patches + request.patches)
        place = _place(start, end, context.pad_patches, context.series.device)
        known = None if first.known is None else first.known.around(index * plan.block, plan.block)
        newer = calls.following(Fed(median_of(blocks[-1]), running, known), first.carry, place, plan)
        blocks.append(newer.quantiles)
        running = newer.running
    return owned(torch.cat(blocks, dim=-1))


def _place(start: int, end: int, pads: Tensor | None, device: torch.device) -> Place:
    return Place(torch.tensor(start, device=device), torch.tensor(end, device=device), pads)


def _not_finite(quantiles: Tensor) -> int:
    values = quantiles.numpy().ravel()
    if math.isfinite(
        float(values.dot(values))
    ):  # quicker than looking at each; squares that overflow are looked at
        return 0
    return values.size - int(np.count_nonzero(np.isfinite(values)))
