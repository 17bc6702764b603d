"""Process runners over the sample series, small enough for a test."""

from __future__ import annotations

from pathlib import Path

from autotuner.measurement.process_runner import ProcessRunner, RunnerLimits
from autotuner.measurement.statistics import EffectiveCost
from autotuner.workload import RequestShape, Workload
from toto_core.series import find_series
from toto_core.settings import RuntimeSettings

EAGER = RuntimeSettings(num_threads=1)
"""One thread: two stall each other when the machine is shared with anything else."""


def process_runner(
    folder: Path,
    *,
    symbol: str = "AMD",
    workload: Workload | None = None,
    memory_bytes: int = 4 << 30,
    blocks: int = 6,
    factor: float = 1.0,
) -> ProcessRunner:
    """A runner whose reference runs on one thread, with few blocks and a short warm-up; prices times ``factor``."""
    series = find_series(symbol, None)
    workload = workload or Workload(
        shapes=(RequestShape(context_length=64, prediction_length=4, num_samples=64),)
    )
    return ProcessRunner(
        workload=workload,
        close=series.close * factor,
        last_fifth_start=series.last_fifth_start(),
        device="cpu",
        reference=EAGER,
        cost=EffectiveCost(weights=workload.weights),
        limits=RunnerLimits(blocks=blocks, memory_bytes=memory_bytes, warm_up_seconds=30.0),
        caches=folder / "caches",
    )
