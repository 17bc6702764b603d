"""What is counted of one call of a pipeline, and the metadata that says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toto_core.compile_report import CompileReport
from toto_core.earlier_keywords import dtype_name
from toto_core.requests import ForecastRequest
from toto_core.settings import RuntimeSettings


@dataclass(kw_only=True)
class CallTally:
    """Counts of one call.

    replaced       prices that were not finite and are 0.
    largest_power  power of ten that series were forecast times.
    retries        how often memory ran out.
    smallest       the smallest request that was made of what was asked, None before any was.
    """

    replaced: int = 0
    largest_power: float = 1.0
    retries: int = 0
    smallest: ForecastRequest | None = None

    def add_size(self, used: ForecastRequest, retries: int) -> None:
        """Count one batch of series, which was forecast as ``used`` after memory had run out ``retries`` times."""
        self.retries += retries
        if self.smallest is None or _size(used) < _size(self.smallest):
            self.smallest = used

    def fitted(self, asked: ForecastRequest) -> int | None:
        """Sample paths decoded together where that is less than was asked for, None where it is not."""
        used = self.smallest or asked
        return used.together if used.together < asked.together else None


def metadata(
    tally: CallTally, asked: ForecastRequest, settings: RuntimeSettings, report: CompileReport
) -> dict[str, Any]:
    """What a call says of itself: of earlier code's keys those it read, and what compiling did; plain values."""
    used = tally.smallest or asked
    return {
        **asked_of_torch(settings, report),
        "num_samples_requested": asked.num_samples,
        "num_samples_used": used.num_samples,
        "samples_per_batch_requested": asked.together,
        "samples_per_batch_used": used.together,
        "out_of_memory_retries": tally.retries,
        "samples_replaced": tally.replaced,
        "scale_factor": tally.largest_power,
        **done_by_torch(report),
    }


def asked_of_torch(settings: RuntimeSettings, report: CompileReport) -> dict[str, Any]:
    """The precision and compilation that were asked for, and whether torch compiled; plain values."""
    return {
        "torch_dtype": dtype_name(settings.precision),
        "torch_compile_requested": settings.compiled,
        "torch_compile_success": report.really_compiled,
        "torch_compile_mode": settings.compile_mode if settings.compiled else None,
        "torch_compile_backend": "inductor" if settings.compiled else None,
    }


def done_by_torch(report: CompileReport) -> dict[str, Any]:
    """What compiling did; plain values."""
    return {
        "graphs": report.graphs,
        "graph_breaks": report.graph_breaks,
        "recompiles": report.recompiles,
        "recompile_limit_hit": report.recompile_limit_hit,
        "cudagraph_skips": list(report.cudagraph_skips),
    }


def _size(request: ForecastRequest) -> tuple[int, int]:
    return request.num_samples or 0, request.together
