"""``TotoPipeline``: arrays in, ``Forecast`` out."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toto_core import compile_config
from toto_core.base_pipeline import (
    BasePipeline,
    NoForecastError,
    PipelineClosedError,
    PipelineForkedError,
    milliseconds,
)
from toto_core.call_tally import CallTally, metadata
from toto_core.compile_report import CompileReport
from toto_core.compiling.ahead import PackageStore
from toto_core.compiling.calls import Calls
from toto_core.device import free_memory, resolve_device
from toto_core.earlier_keywords import SAMPLES, EarlierKeywords, Unasked, predict_ladder, resolve
from toto_core.forecast import Forecast
from toto_core.loading import packages_of
from toto_core.memory_ladder import Ladder, fitting
from toto_core.model_call import Place, forecast_paths
from toto_core.model_files import locate
from toto_core.requests import (
    ArrayLike,
    ForecastRequest,
    holds_rows,
    joint_contexts,
    length,
    read_context,
)
from toto_core.rescue import RescuedCalls
from toto_core.settings import RuntimeSettings
from toto_core.threads import set_threads
from toto_core.toto1 import checkpoint
from toto_core.toto1.decode import Context, Decoder

__all__ = ["NoForecastError", "PipelineClosedError", "PipelineForkedError", "TotoPipeline"]


class TotoPipeline(BasePipeline[Decoder, Calls]):
    """A Toto model under one set of runtime settings; not safe for calls from several threads at once."""

    def __init__(
        self,
        decoder: Decoder,
        settings: RuntimeSettings,
        device: torch.device,
        load_ms: float,
        packages: PackageStore | None = None,
    ) -> None:
        calls: RescuedCalls[Calls] = RescuedCalls(decoder, settings, packages)
        super().__init__(decoder, calls, settings, device, load_ms)
        self.ladder = Ladder()
        """How far a request may shrink when memory runs out."""
        self.num_samples: int = SAMPLES
        """Samples of a forecast whose caller does not say how many."""
        self.patch_size = decoder.config.patch_size
        """Time steps in a patch."""
        self.common_scale = True
        """Whether small series are forecast times a power of ten; False gives the reference's own numbers, its floor
        of 0.1 on the variance included."""
        self._tally = CallTally()

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | None = None,
        device_map: str | torch.device | None = None,
        torch_dtype: torch.dtype | str | None = None,
        *,
        device: str | torch.device | None = None,
        settings: RuntimeSettings | None = None,
        revision: str | None = None,
        artifacts: Path | None = None,
        model_id: str | None = None,
        **earlier: Any,
    ) -> TotoPipeline:
        """Load a model from ``toto-mini``, a folder in the official layout, or a hub id.

        Without ``settings`` the process-wide defaults of ``compile_config`` hold. A thread count in the
        settings is set for the whole process, because a process has only one. ``artifacts`` is a folder in which
        what is compiled here is kept and found by the next process; it must be private and of this machine,
        because what lies there is code.

        The rest is for code written for the earlier integration: ``model_id`` and ``device_map`` are other names of
        ``name_or_dir`` and ``device``, and ``earlier`` holds the fields of ``EarlierKeywords``, ``torch_compile``
        first among them. Raises ``CheckpointError`` and ``DeviceError``, and ``ValueError`` for keywords that
        contradict the settings, each with one line.
        """
        started = time.perf_counter()
        target = resolve_device(str(device or device_map or "cpu"))
        keywords = EarlierKeywords.read({**earlier, "torch_dtype": torch_dtype})
        named = name_or_dir or model_id
        is_earlier = keywords.said or named is None or device_map is not None or compile_config.applied()
        found = resolve(
            named, keywords, settings=settings, device=target.type, earlier=is_earlier, environ=os.environ
        )
        for note in found.notes:
            warnings.warn(note, stacklevel=2)
        chosen, ladder = found.settings, keywords.ladder
        set_threads(chosen.num_threads)
        folder = locate(found.model, revision=revision)
        packages = packages_of(keywords, folder, chosen, artifacts)
        model = checkpoint.load(folder)
        decoder = Decoder(model, precision=chosen.precision).to(target).eval().requires_grad_(False)
        pipeline = cls(decoder, chosen, target, milliseconds(started), packages)
        pipeline.ladder, pipeline.num_samples = ladder, found.num_samples
        if keywords.warmup_sequence and chosen.compiled:  # in eager mode there is nothing to warm
            steps = max(keywords.warmup_sequence, pipeline.patch_size)
            pipeline.predict(100.0 + torch.arange(steps) % 7)
        return pipeline

    def predict(
        self,
        context: ArrayLike,
        prediction_length: int = 8,
        num_samples: int | None = SAMPLES,
        seed: int = 0,
        samples_per_batch: int | None = None,
        *,
        padding_mask: ArrayLike | None = None,
        id_mask: ArrayLike | None = None,
        **earlier: Any,
    ) -> Forecast:
        """Forecast ``prediction_length`` steps of one or more series.

        ``context`` is (time,), (variate, time) or (batch, variate, time); a column (time, 1), a table of one column
        and a masked array are one series. ``padding_mask`` (True for real values) and ``id_mask`` (group of each
        variate) have its shape. ``num_samples=None`` gives the
        deterministic mean path. ``samples_per_batch`` bounds memory and changes no number; it defaults to the
        settings'. The same ``seed`` gives the same noise to every series. Series that the
        reference's floor would move are forecast times a power of ten (``scale_factor`` in the metadata).

        Where memory runs out the request is made smaller as far as ``ladder`` allows, which is said once and in the
        metadata. ``earlier`` are keywords of the earlier integration: ``max_oom_retries``, ``min_samples_per_batch``
        and ``min_num_samples`` change the ladder for this call; ``temperature``, ``top_k``, ``top_p`` and
        ``time_interval_seconds`` are ignored, as they were. Raises ``RequestError``, ``ForecastMemoryError``, and
        ``NoForecastError`` when more than 1 % of the samples are not finite.
        """
        started = time.perf_counter()
        calls = self._open()
        request = self._request(prediction_length, num_samples, samples_per_batch, seed)
        ladder = predict_ladder(earlier, self.ladder)
        self._tally = CallTally()
        paths = self._fitting(read_context(context, padding_mask, id_mask, self.patch_size), request, ladder)
        forecast = _forecast(paths, by_variate=holds_rows(context), mean_path=num_samples is None)
        self._note(request, calls.report, length(context), len(forecast), milliseconds(started))
        return forecast

    def predict_many(
        self,
        contexts: Mapping[str, ArrayLike],
        prediction_length: int = 8,
        num_samples: int | None = SAMPLES,
        seed: int = 0,
        samples_per_batch: int | None = None,
    ) -> dict[str, Forecast]:
        """Forecast several series of any lengths, each (time,) or (variate, time), ``series_per_batch`` at a time.

        Series of similar length are forecast together, the shorter ones padded on the left with what nothing attends:
        a forecast is that of ``predict`` alone, to float32 rounding. Raises ``RequestError``, which names the
        series.
        """
        started = time.perf_counter()
        calls = self._open()
        request = self._request(prediction_length, num_samples, samples_per_batch, seed)
        self._tally = CallTally()
        forecasts: dict[str, Forecast] = {}
        for names, joint in joint_contexts(contexts, self.settings.series_per_batch, self.patch_size):
            for name, path in zip(names, self._fitting(joint, request, self.ladder), strict=True):
                forecasts[name] = _forecast(path.unsqueeze(0), mean_path=num_samples is None)
        longest = max(map(length, contexts.values()), default=0)
        self._note(request, calls.report, longest, len(contexts), milliseconds(started))
        return {name: forecasts[name] for name in contexts}

    def _request(
        self, prediction_length: int, num_samples: int | None, samples_per_batch: int | None, seed: int
    ) -> ForecastRequest:
        if isinstance(num_samples, Unasked):
            num_samples = self.num_samples
        if samples_per_batch is None:
            samples_per_batch = self.settings.samples_per_batch
        return ForecastRequest(
            steps=prediction_length,
            num_samples=num_samples,
            samples_per_batch=(num_samples or 1) if samples_per_batch is None else samples_per_batch,
            seed=seed,
            patch_size=self.patch_size,
        )

    def _fitting(self, whole: Context, request: ForecastRequest, ladder: Ladder) -> Tensor:
        """``_paths`` in the largest size for which there is memory."""
        config = None if self.model is None else self.model.config
        together = self.settings.series_per_batch
        about = (str(self.device), config, together, tuple(whole.series.shape[1:]), request.patches)
        paths, used, retries = fitting(
            lambda smaller: self._paths(whole, smaller),
            request,
            ladder,
            about=about,
            free=lambda: free_memory(self.device),
        )
        self._tally.add_size(used, retries)
        return paths

    def _paths(self, whole: Context, request: ForecastRequest) -> Tensor:
        """Prices (batch, variate, time, sample) of any number of series; a compiled call that fails is rescued."""
        place = Place(device=self.device, products=self._products, common_scale=self.common_scale)

        def compute(calls: Calls) -> Tensor:
            paths, power = forecast_paths(calls, whole, request, place)
            self._tally.largest_power = max(self._tally.largest_power, power)
            return paths

        paths, count = self._guarded(compute)
        self._tally.replaced += count
        return paths

    def _note(
        self, asked: ForecastRequest, report: CompileReport, context_length: int, entries: int, ms: float
    ) -> None:
        said = {**metadata(self._tally, asked, self.settings, report), "batch_size": entries}
        shape = (context_length, asked.steps, asked.num_samples or 0)
        self._done(said, shape, report, self._tally.fitted(asked), ms)


def _forecast(paths: Tensor, *, mean_path: bool, by_variate: bool = False) -> Forecast:
    if mean_path:
        return Forecast(mean=paths[..., 0], by_variate=by_variate)
    return Forecast(mean=paths.mean(-1), samples=paths, by_variate=by_variate)
