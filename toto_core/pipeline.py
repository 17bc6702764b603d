"""``TotoPipeline``: arrays in, ``Forecast`` out."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toto_core import compile_config
from toto_core.call_tally import CallTally, metadata
from toto_core.compile_report import CompileReport
from toto_core.compiling.ahead import PackageStore
from toto_core.compiling.calls import Calls
from toto_core.device import free_memory, peak_bytes, resolve_device
from toto_core.earlier_keywords import SAMPLES, EarlierKeywords, Unasked, predict_ladder, resolve
from toto_core.float32_products import EXACT, TF32
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
from toto_core.rescue import RescuedCalls, counted
from toto_core.settings import RuntimeSettings
from toto_core.threads import set_threads
from toto_core.toto1 import checkpoint
from toto_core.toto1.decode import Context, Decoder

MOST_REPLACED = 0.01
"""Share of a forecast's samples that may come out as NaN or infinite, and be 0 instead, before it is none."""


class PipelineClosedError(RuntimeError):
    """The pipeline was unloaded; load another one."""


class PipelineForkedError(RuntimeError):
    """The pipeline belongs to the process that loaded it; its threads do not exist in a child made by a fork."""


class NoForecastError(RuntimeError):
    """The model gave NaN or infinite prices; the message says how many."""


class TotoPipeline:
    """A Toto model under one set of runtime settings; not safe for calls from several threads at once."""

    def __init__(
        self,
        decoder: Decoder,
        settings: RuntimeSettings,
        device: torch.device,
        load_ms: float,
        packages: PackageStore | None = None,
    ) -> None:
        self.settings = settings
        self.device = device
        self.load_ms = load_ms
        self.last_run_metadata: dict[str, Any] = {}
        self.provenance: dict[str, str] = {}
        """Where the settings came from, for whoever loads by symbol; copied into every run's metadata."""
        self.on_call: Callable[[float, tuple[int, int, int], CompileReport, int | None], None] | None = None
        """Called after every forecast with its milliseconds, its context length, steps and samples (0 for the mean
        path), what compiling did so far, and the samples per batch that fitted where those asked for did not, None
        where they did; must not raise."""
        self.rescues = True
        """Whether a compiled call that fails is answered in eager mode; False lets it raise, as measuring wants."""
        self.on_rescue: Callable[[str], None] | None = None
        """Called with the reason when a compiled call had to be answered in eager mode, at most once."""
        self.model: Decoder | None = decoder
        """The decoder, a ``torch.nn.Module``; None once unloaded."""
        self.ladder = Ladder()
        """How far a request may shrink when memory runs out."""
        self.num_samples: int = SAMPLES
        """Samples of a forecast whose caller does not say how many."""
        self.patch_size = decoder.config.patch_size
        """Time steps in a patch."""
        self.cold_start_ms: float | None = None
        """Load and first call together, compilation included; None before the first call."""
        self.common_scale = True
        """Whether small series are forecast times a power of ten; False gives the reference's own numbers, its floor
        of 0.1 on the variance included."""
        self._pid = os.getpid()
        self._tally = CallTally()
        self._products = TF32 if settings.precision == "tf32" and device.type == "cuda" else EXACT
        self._calls: RescuedCalls | None = RescuedCalls(decoder, settings, packages)
        self.compile_report = self._calls.report
        """What compiling did so far."""

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
        pipeline = cls(decoder, chosen, target, _milliseconds(started), packages)
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
        self._note(request, calls.report, length(context), len(forecast), _milliseconds(started))
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
        self._note(request, calls.report, longest, len(contexts), _milliseconds(started))
        return {name: forecasts[name] for name in contexts}

    @property
    def compiled(self) -> bool:
        """Whether calls run compiled: before the first one whether they are to, then whether they did."""
        if self.rescued is not None:
            return False
        return self.settings.compiled if self.cold_start_ms is None else self.compile_report.really_compiled

    @property
    def rescued(self) -> str | None:
        """Why a compiled call had to be answered in eager mode, as all were since; None when none had to."""
        return None if self._calls is None else self._calls.rescued

    @property
    def peak_bytes(self) -> int:
        """Most bytes used so far: reserved on a GPU, resident on a CPU, where it is the whole process's."""
        return peak_bytes(self.device)

    def hold_compilation(self, *, hold: bool = True) -> None:
        """Compile nothing from now on, as wanted in trading hours: a shape never seen runs in eager mode.

        ``compile_report.eager_calls`` counts those calls. ``hold=False`` lets shapes compile again.
        """
        self._open().calls.hold = hold

    def unload(self) -> None:
        """Free the model; later calls raise ``PipelineClosedError``."""
        self._calls = self.model = None
        free_memory(self.device)

    def _open(self) -> RescuedCalls:
        if self._calls is None:
            raise PipelineClosedError("this pipeline was unloaded; load another one")
        if os.getpid() != self._pid:
            raise PipelineForkedError(
                f"this pipeline was loaded in process {self._pid} and does not work after os.fork(): start processes "
                "with multiprocessing's 'spawn' or 'forkserver' and load it there"
            )
        return self._calls

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

        guarded, rescued = self._open(), self.rescued
        paths, count = guarded.run(compute) if self.rescues else counted(compute(guarded.calls))
        if count > MOST_REPLACED * paths.numel():
            raise NoForecastError(
                f"{count:,} of {paths.numel():,} prices came out as NaN or infinite: this is no forecast; "
                "try eager fp32 settings, and another checkpoint if these give the same"
            )
        self._tally.replaced += count
        if guarded.rescued != rescued:
            self._say_rescued(str(guarded.rescued))
        return paths

    def _say_rescued(self, why: str) -> None:
        warnings.warn(
            f"a compiled call failed ({why}): it was answered in eager mode, as all others of this pipeline will be",
            RuntimeWarning,
            stacklevel=5,
        )
        if self.on_rescue is not None:
            with contextlib.suppress(Exception):  # whoever hears of it must not cost the forecast
                self.on_rescue(why)

    def _note(
        self, asked: ForecastRequest, report: CompileReport, context_length: int, entries: int, ms: float
    ) -> None:
        if self.cold_start_ms is None:
            self.cold_start_ms = self.load_ms + ms
        self.compile_report = report
        self.last_run_metadata = {
            **metadata(self._tally, asked, self.settings, report),
            "batch_size": entries,
            "rescued": self.rescued is not None,
            "cold_start_ms": self.cold_start_ms,
            "latency_ms": ms,
            **self.provenance,
        }
        if self.on_call is not None:
            shape = (context_length, asked.steps, asked.num_samples or 0)
            self.on_call(ms, shape, report, self._tally.fitted(asked))


def _forecast(paths: Tensor, *, mean_path: bool, by_variate: bool = False) -> Forecast:
    if mean_path:
        return Forecast(mean=paths[..., 0], by_variate=by_variate)
    return Forecast(mean=paths.mean(-1), samples=paths, by_variate=by_variate)


def _milliseconds(started: float) -> float:
    return (time.perf_counter() - started) * 1000.0
