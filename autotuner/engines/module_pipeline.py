"""A pipeline over any torch module: compiled, in portions, rescued and counted; an engine adds one method."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toto_core.base_pipeline import BasePipeline, milliseconds
from toto_core.call_tally import asked_of_torch, done_by_torch
from toto_core.compiling.ahead import PackageStore
from toto_core.compiling.running import RunningCalls
from toto_core.quantile_forecast import QuantileForecast
from toto_core.requests import RequestError
from toto_core.rescue import RescuedCalls
from toto_core.settings import RuntimeSettings, round_up
from toto_core.torch_versions import compile_takes_a_limit

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_MOST_STEPS = 1_000_000


class ModuleCalls(RunningCalls):
    """Calls of a module that is compiled in place, just in time."""

    ahead_of_time = False

    def __init__(
        self,
        module: nn.Module,
        settings: RuntimeSettings,
        packages: PackageStore | None = None,
        *,
        device: torch.device,
    ) -> None:
        super().__init__(module, device, settings, packages)
        self._module = module

    def quantiles(self, compute: Callable[[Tensor, int], Tensor], part: Tensor, steps: int) -> Tensor:
        """``compute(part, steps)``, which calls the module, under the settings."""
        self._begin()
        if not self.settings.compiled:
            with _plainly(self._module):
                return compute(part, steps)

        def call(part: Tensor) -> Any:
            return compute(part, steps)

        found: Any = self._just_in_time("module", (steps,), call, (part,))
        answer: Tensor = found
        return answer


class ModulePipeline(BasePipeline[nn.Module, ModuleCalls], ABC):
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

    def __init__(self, module: nn.Module, settings: RuntimeSettings, device: str | torch.device) -> None:
        target = torch.device(device)
        # parameters keep asking for gradients: without, Chronos-2 took a fifth longer on a CPU (70 beside 57 ms)
        self.module = _traceable(module).to(target).eval()
        if settings.compiled:
            alone: dict[str, Any] = {"recompile_limit": settings.recompile_limit, "isolate_recompiles": True}
            newer = alone if compile_takes_a_limit() else {}
            self.module.compile(mode=settings.compile_mode, dynamic=settings.dynamic, **newer)
        make = partial(ModuleCalls, device=target)
        calls: RescuedCalls[ModuleCalls] = RescuedCalls(self.module, settings, make=make, count=_not_finite)
        super().__init__(self.module, calls, settings, target, 0.0)

    @abstractmethod
    def quantiles(self, contexts: Tensor, steps: int) -> Tensor:
        """Prices (batch, variate, level, time) of the ``steps`` after ``contexts`` (batch, variate, time).

        Both are float32 on the pipeline's device; NaN in a context is a value that is not known.
        """

    def predict(
        self, context: Any, prediction_length: int = 8, num_samples: int | None = None, seed: int = 0
    ) -> QuantileForecast:
        """Forecast ``prediction_length`` steps after ``context``: (time,), (variate, time) or (batch, variate, time).

        ``num_samples`` and ``seed`` change nothing: the forecast is of quantiles, with nothing drawn. Raises
        ``RequestError`` for what cannot be forecast, and ``NoForecastError`` for prices that are not finite.
        """
        started = time.perf_counter()
        calls = self._open()
        contexts = _contexts(context, prediction_length, self.patch_size)

        def compute(calls: ModuleCalls) -> Tensor:
            return self._in_portions(calls, contexts, prediction_length)

        with torch.no_grad():
            found, replaced = self._guarded(compute)
        said = {
            **asked_of_torch(self.settings, calls.report),
            "num_samples_used": None,
            "samples_replaced": replaced,
            **done_by_torch(calls.report),
            "batch_size": contexts.shape[0],
        }
        shape = (contexts.shape[-1], prediction_length, 0)
        self._done(said, shape, calls.report, None, milliseconds(started))
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

    def unload(self) -> None:
        """Free the model; later calls raise ``PipelineClosedError``."""
        self.module = nn.Identity()
        super().unload()

    def _in_portions(self, calls: ModuleCalls, contexts: Tensor, steps: int) -> Tensor:
        """Quantiles (batch, variate, level, time), on the CPU."""
        size, parts = self.settings.series_per_batch, []
        for start in range(0, contexts.shape[0], size):
            part = contexts[start : start + size]
            real = part.shape[0]
            if self.settings.compiled:
                part = _padded(part, size - real, self.settings.context_bucket)
            with self._precision():
                found = calls.quantiles(self.quantiles, part.to(self.device), steps)
            parts.append(found.float().cpu()[:real])
        return torch.cat(parts)

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        if not self.autocast or self.settings.precision not in {"bf16", "fp16"}:
            yield
            return
        with torch.autocast(self.device.type, dtype=DTYPES[self.settings.precision]):
            yield


@contextlib.contextmanager
def _plainly(module: nn.Module) -> Iterator[None]:
    """Call a module as if it were not compiled: after a rescue it still is."""
    compiled, module._compiled_call_impl = module._compiled_call_impl, None
    try:
        yield
    finally:
        module._compiled_call_impl = compiled


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


def _contexts(context: Any, steps: int, shortest: int) -> Tensor:
    """A context as (batch, variate, time) on the CPU. Raises ``RequestError``."""
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= _MOST_STEPS:
        raise RequestError(f"predict: prediction_length must be from 1 to {_MOST_STEPS:,}, not {steps!r}")
    try:
        found = torch.as_tensor(np.asarray(context, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise RequestError(f"predict: context must be numbers: {error}") from None
    if not 1 <= found.ndim <= 3 or found.shape[-1] < shortest or not found.numel():
        raise RequestError(
            f"predict: context must be (time,), (variate, time) or (batch, variate, time) with at least "
            f"{shortest} time steps, not {tuple(found.shape)}"
        )
    if bool(torch.isinf(found).any()) or not bool(torch.isfinite(found).any(-1).all()):
        raise RequestError("predict: context holds infinite values, or a series without any value")
    return found.reshape(*(1,) * (3 - found.ndim), *found.shape)


def _padded(part: Tensor, missing: int, bucket: int) -> Tensor:
    """As many series as a compiled call has, the last one repeated, and as long as its bucket."""
    rows = torch.cat((part, part[-1:].expand(missing, -1, -1)))
    length = rows.shape[-1]
    more = round_up(length, bucket) - length if bucket else 0
    return torch.nn.functional.pad(rows, (more, 0), value=float("nan"))


def _not_finite(quantiles: Tensor) -> int:
    return quantiles.numel() - int(torch.isfinite(quantiles).sum())
