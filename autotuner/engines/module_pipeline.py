"""A pipeline over any torch module: compiled, in portions, rescued and counted; an engine adds one method."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autotuner.engines.quantile_forecast import QuantileForecast
from toto_core.compile_report import CompileReport
from toto_core.compiling.tally import Tally, counts
from toto_core.device import begin_call, free_memory, peak_bytes, ran_out_of_memory, records_graphs
from toto_core.pipeline import NoForecastError, PipelineClosedError, PipelineForkedError
from toto_core.requests import RequestError
from toto_core.settings import RuntimeSettings, round_up
from toto_core.torch_versions import compile_takes_a_limit, limiting

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_MOST_STEPS = 1_000_000


class ModulePipeline(ABC):
    """Calls ``module`` under ``settings`` on ``device``; a subclass turns contexts into quantiles with it.

    The module is compiled in place, just in time, as the settings say. Contexts are forecast ``series_per_batch``
    at a time, when compiled always as many (the last one repeated), and padded with NaN on the left to
    ``context_bucket``. Under bf16 and fp16 the module runs in torch's autocast. A compiled call that fails is
    answered in eager mode, and so is every later one. Not safe for calls from several threads at once.
    """

    levels: tuple[float, ...] = LEVELS
    """Quantile levels of its forecasts, rising, 0.5 among them."""
    patch_size: int = 1
    """Least context, in time steps."""
    autocast: bool = True
    """Whether bf16 and fp16 are torch's autocast; False for a module whose weights were loaded so."""

    def __init__(
        self,
        module: nn.Module,
        settings: RuntimeSettings,
        device: str | torch.device,
        *,
        load_ms: float = 0.0,
    ) -> None:
        self.module = _traceable(module).to(device).eval().requires_grad_(False)
        self.settings = settings
        self.device = torch.device(device)
        self.last_run_metadata: dict[str, Any] = {}
        self.provenance: dict[str, str] = {}
        self.on_call: Callable[[float, tuple[int, int, int], CompileReport, int | None], None] | None = None
        self.on_rescue: Callable[[str], None] | None = None
        self.rescues = True
        self.rescued: str | None = None
        self.cold_start_ms: float | None = None
        self.load_ms = 0.0
        self._pid = os.getpid()
        self._hold = self._closed = False
        self._seen: set[tuple[int, ...]] = set()
        self._tally = Tally(CompileReport(requested=settings.compiled))
        self._records_graphs = records_graphs(self.device, settings.compile_mode)
        if settings.compiled:
            alone: dict[str, Any] = {"recompile_limit": settings.recompile_limit, "isolate_recompiles": True}
            newer = alone if compile_takes_a_limit() else {}
            self.module.compile(mode=settings.compile_mode, dynamic=settings.dynamic, **newer)

    @abstractmethod
    def quantiles(self, contexts: Tensor, steps: int) -> Tensor:
        """Prices (batch, variate, level, time) of the ``steps`` after ``contexts`` (batch, variate, time).

        Both are float32 on the pipeline's device; NaN in a context is a value that is not known.
        """

    @property
    def compile_report(self) -> CompileReport:
        """What compiling did so far."""
        return self._tally.report

    @property
    def peak_bytes(self) -> int:
        """Most bytes used so far: reserved on a GPU, resident on a CPU."""
        return peak_bytes(self.device)

    def predict(
        self, context: Any, prediction_length: int = 8, num_samples: int | None = None, seed: int = 0
    ) -> QuantileForecast:
        """Forecast ``prediction_length`` steps after ``context``: (time,), (variate, time) or (batch, variate, time).

        ``num_samples`` and ``seed`` change nothing: the forecast is of quantiles, with nothing drawn. Raises
        ``RequestError`` for what cannot be forecast, and ``NoForecastError`` for prices that are not finite.
        """
        started = time.perf_counter()
        contexts = self._contexts(context, prediction_length)
        shape = tuple(contexts.shape)
        found = self._answered(lambda: self._in_portions(contexts, prediction_length))
        ms = (time.perf_counter() - started) * 1000.0
        self._note(shape, prediction_length, ms)
        return QuantileForecast(quantiles=found.permute(2, 0, 1, 3).contiguous(), levels=self.levels)

    def predict_many(
        self,
        contexts: Mapping[str, Any],
        prediction_length: int = 8,
        num_samples: int | None = None,
        seed: int = 0,
    ) -> dict[str, QuantileForecast]:
        """``predict`` for each of several series of any lengths, one after the other."""
        return {name: self.predict(each, prediction_length) for name, each in contexts.items()}

    def hold_compilation(self, *, hold: bool = True) -> None:
        """Compile nothing from now on: a shape never seen runs in eager mode. ``hold=False`` lets it again."""
        self._hold = hold

    def unload(self) -> None:
        """Free the model; later calls raise ``PipelineClosedError``."""
        self._closed = True
        self.module = nn.Identity()
        free_memory(self.device)

    def _contexts(self, context: Any, steps: int) -> Tensor:
        if self._closed:
            raise PipelineClosedError("this pipeline was unloaded; load another one")
        if os.getpid() != self._pid:
            raise PipelineForkedError("this pipeline was loaded in another process: load it in this one")
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= _MOST_STEPS:
            raise RequestError(f"predict: prediction_length must be from 1 to {_MOST_STEPS:,}, not {steps!r}")
        try:
            found = torch.as_tensor(np.asarray(context, dtype=np.float32))
        except (TypeError, ValueError) as error:
            raise RequestError(f"predict: context must be numbers: {error}") from None
        if not 1 <= found.ndim <= 3 or found.shape[-1] < self.patch_size or not found.numel():
            raise RequestError(
                f"predict: context must be (time,), (variate, time) or (batch, variate, time) with at least "
                f"{self.patch_size} time steps, not {tuple(found.shape)}"
            )
        if bool(torch.isinf(found).any()) or not bool(torch.isfinite(found).any(-1).all()):
            raise RequestError("predict: context holds infinite values, or a series without any value")
        return found.reshape(*(1,) * (3 - found.ndim), *found.shape)

    def _in_portions(self, contexts: Tensor, steps: int) -> Tensor:
        """Quantiles (batch, variate, level, time), on the CPU."""
        size, parts = self.settings.series_per_batch, []
        for start in range(0, contexts.shape[0], size):
            part = contexts[start : start + size]
            real = part.shape[0]
            if self.settings.compiled:
                part = self._padded(part, size - real)
            parts.append(self._call(part.to(self.device), steps)[:real])
        return torch.cat(parts)

    def _padded(self, part: Tensor, missing: int) -> Tensor:
        rows = torch.cat((part, part[-1:].expand(missing, -1, -1)))
        length = rows.shape[-1]
        bucket = self.settings.context_bucket
        more = round_up(length, bucket) - length if bucket else 0
        return torch.nn.functional.pad(rows, (more, 0), value=float("nan"))

    def _call(self, part: Tensor, steps: int) -> Tensor:
        """One model call, whose compiling is counted; raises whatever torch raises."""
        shape = (*part.shape, steps)
        watched = self.settings.compiled and self.rescued is None
        known = shape in self._seen
        if watched and self._hold and not known:
            self._tally.add_held()
        before, started = (counts() if watched else None), time.perf_counter()
        try:
            with torch.no_grad(), self._around(known=known):
                if self._records_graphs:
                    begin_call()
                found = self.quantiles(part, steps).float().cpu()
        finally:
            if before is not None:
                self._tally.add("module", before, counts(), time.perf_counter() - started)
        if not (self._hold and not known):
            self._seen.add(shape)
        return found

    @contextlib.contextmanager
    def _around(self, *, known: bool) -> Iterator[None]:
        with contextlib.ExitStack() as around:
            if self.rescued is not None:
                around.enter_context(torch.compiler.set_stance("force_eager"))
            elif self.settings.compiled and self._hold and not known:
                around.enter_context(torch.compiler.set_stance("eager_on_recompile"))
            elif self.settings.compiled and not known:
                around.enter_context(limiting(self.settings.recompile_limit))
            if self.autocast and self.settings.precision in {"bf16", "fp16"}:
                dtype = DTYPES[self.settings.precision]
                around.enter_context(torch.autocast(self.device.type, dtype=dtype))
            yield

    def _answered(self, compute: Callable[[], Tensor]) -> Tensor:
        """What ``compute`` gives, in eager mode where compiled it fails or gives what is not finite."""
        why = ""
        try:
            found = compute()
            if bool(torch.isfinite(found).all()):
                return found
            why = "prices were not finite"
        except Exception as error:
            if not self._may_rescue(error):
                raise
            why = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300] if str(error) else 'no reason'}"
        if not self._may_rescue(None):
            raise NoForecastError("prices came out as NaN or infinite: this is no forecast")
        self.rescued = why
        found = compute()
        if not bool(torch.isfinite(found).all()):
            self.rescued = None  # the settings are not at fault
            raise NoForecastError(
                "prices came out as NaN or infinite, in eager mode too: this is no forecast"
            )
        warnings.warn(
            f"a compiled call failed ({why}): it was answered in eager mode, as all others of this pipeline will be",
            RuntimeWarning,
            stacklevel=3,
        )
        if self.on_rescue is not None:
            with contextlib.suppress(Exception):  # whoever hears of it must not cost the forecast
                self.on_rescue(why)
        return found

    def _may_rescue(self, error: Exception | None) -> bool:
        if error is not None and (isinstance(error, RequestError) or ran_out_of_memory(error)):
            return False
        return self.settings.compiled and self.rescues and self.rescued is None

    def _note(self, shape: tuple[int, ...], steps: int, ms: float) -> None:
        if self.cold_start_ms is None:
            self.cold_start_ms = self.load_ms + ms
        report = self.compile_report
        self.last_run_metadata = {
            "settings": self.settings.to_dict(),
            "torch_compile_requested": self.settings.compiled,
            "torch_compile_success": self.rescued is None and report.really_compiled,
            "compile_report": report.to_dict(),
            "batch_size": shape[0],
            "rescued": self.rescued is not None,
            "cold_start_ms": self.cold_start_ms,
            "latency_ms": ms,
            **self.provenance,
        }
        if self.on_call is not None:
            self.on_call(ms, (shape[-1], steps, 0), report, None)


class _Traced(nn.Module):
    """A module around another one, whose call torch looks into."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.inner(*arguments, **options)


def _traceable(module: nn.Module) -> nn.Module:
    """The module, wrapped where it is one of torch's own, which torch.compile calls without compiling them."""
    return _Traced(module) if type(module).__module__.startswith("torch.nn.") else module
