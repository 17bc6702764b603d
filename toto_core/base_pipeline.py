"""What the pipelines of all models share: the process they live in, rescue, holding, unloading, what a call says."""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from toto_core.compile_report import CompileReport
from toto_core.compiling.running import RunningCalls
from toto_core.device import free_memory, peak_bytes
from toto_core.float32_products import EXACT, TF32
from toto_core.rescue import Compute, RescuedCalls
from toto_core.settings import RuntimeSettings

M = TypeVar("M", bound=nn.Module)
C = TypeVar("C", bound=RunningCalls)

MOST_REPLACED = 0.01
"""Share of a forecast's prices that may come out as NaN or infinite before it is none."""


class PipelineClosedError(RuntimeError):
    """The pipeline was unloaded; load another one."""


class PipelineForkedError(RuntimeError):
    """The pipeline belongs to the process that loaded it; its threads do not exist in a child made by a fork."""


class NoForecastError(RuntimeError):
    """The model gave NaN or infinite prices; the message says how many."""


class BasePipeline(Generic[M, C]):
    """A model under one set of runtime settings; not safe for calls from several threads at once."""

    def __init__(
        self,
        model: M,
        calls: RescuedCalls[C],
        settings: RuntimeSettings,
        device: torch.device,
        load_ms: float,
    ) -> None:
        self.settings = settings
        self.device = device
        self.load_ms = load_ms
        self.last_run_metadata: dict[str, Any] = {}
        self.provenance: dict[str, str] = {}
        """Where the settings came from, for whoever loads by symbol; copied into every run's metadata."""
        self.on_call: Callable[[float, tuple[int, int, int], CompileReport, int | None], None] | None = None
        """Called after every forecast with its milliseconds, its context length, steps and samples (0 where none
        are drawn), what compiling did so far, and the samples per batch that fitted where those asked for did not,
        None where they did; must not raise."""
        self.rescues = True
        """Whether a compiled call that fails is answered in eager mode; False lets it raise, as measuring wants."""
        self.on_rescue: Callable[[str], None] | None = None
        """Called with the reason when a compiled call had to be answered in eager mode, at most once."""
        self.model: M | None = model
        """The decoder, a ``torch.nn.Module``; None once unloaded."""
        self.cold_start_ms: float | None = None
        """Load and first call together, compilation included; None before the first call."""
        self._pid = os.getpid()
        self._products = TF32 if settings.precision == "tf32" and device.type == "cuda" else EXACT
        self._calls: RescuedCalls[C] | None = calls
        self.compile_report = calls.report
        """What compiling did so far."""

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

    def _open(self) -> RescuedCalls[C]:
        if self._calls is None:
            raise PipelineClosedError("this pipeline was unloaded; load another one")
        if os.getpid() != self._pid:
            raise PipelineForkedError(
                f"this pipeline was loaded in process {self._pid} and does not work after os.fork(): start processes "
                "with multiprocessing's 'spawn' or 'forkserver' and load it there"
            )
        return self._calls

    def _guarded(self, compute: Compute[C]) -> tuple[Tensor, int]:
        """What ``compute`` gives, rescued where a compiled call fails, and how many prices were not finite."""
        guarded, rescued = self._open(), self.rescued
        paths, count = guarded.run(compute) if self.rescues else guarded.counted(compute(guarded.calls))
        if count > MOST_REPLACED * paths.numel():
            raise NoForecastError(
                f"{count:,} of {paths.numel():,} prices came out as NaN or infinite: this is no forecast; "
                "try eager fp32 settings, and another checkpoint if these give the same"
            )
        if guarded.rescued != rescued:
            self._say_rescued(str(guarded.rescued))
        return paths, count

    def _say_rescued(self, why: str) -> None:
        warnings.warn(
            f"a compiled call failed ({why}): it was answered in eager mode, as all others of this pipeline will be",
            RuntimeWarning,
            stacklevel=6,
        )
        if self.on_rescue is not None:
            with contextlib.suppress(Exception):  # whoever hears of it must not cost the forecast
                self.on_rescue(why)

    def _done(
        self,
        said: dict[str, Any],
        shape: tuple[int, int, int],
        report: CompileReport,
        fitted: int | None,
        ms: float,
    ) -> None:
        """Note a finished call: what it says of itself, and whoever wants to hear of it."""
        if self.cold_start_ms is None:
            self.cold_start_ms = self.load_ms + ms
        self.compile_report = report
        self.last_run_metadata = {
            **said,
            "rescued": self.rescued is not None,
            "cold_start_ms": self.cold_start_ms,
            "latency_ms": ms,
            **self.provenance,
        }
        if self.on_call is not None:
            self.on_call(ms, shape, report, fitted)


def milliseconds(started: float) -> float:
    """Milliseconds since ``time.perf_counter()`` said ``started``."""
    return (time.perf_counter() - started) * 1000.0
