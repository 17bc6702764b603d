"""Several settings of toto-mini beside eager fp32, in processes that take turns, with intervals."""

from __future__ import annotations

import tempfile
from pathlib import Path

from autotuner.environment import available_threads, current_environment
from autotuner.measurement.outcome import Failed
from autotuner.measurement.process_runner import ProcessRunner, RunnerLimits
from autotuner.measurement.statistics import EffectiveCost
from autotuner.workload import RequestShape, Workload
from toto_core.series import find_series
from toto_core.settings import RuntimeSettings

THREADS = available_threads()
EAGER = RuntimeSettings(num_threads=THREADS)
COMPILED = EAGER.replace(compile_mode="default", freezing=True)
ROWS = (
    EAGER.replace(precision="bf16"),
    EAGER.replace(compile_mode="default"),
    EAGER.replace(compile_mode="default", compile_scope="layer"),
    COMPILED,
    COMPILED.replace(precision="bf16"),
)
SHAPES = (
    RequestShape(context_length=512, prediction_length=8, num_samples=256),
    RequestShape(context_length=512, prediction_length=64, num_samples=64),
)


def main() -> None:
    """Print one row per request shape and settings."""
    environment = current_environment("cpu")
    print(f"{environment.hardware}, {THREADS} threads, torch {environment.torch}, toto-mini, AMD")
    series = find_series("AMD", None)
    for shape in SHAPES:
        workload = Workload(shapes=(shape,))
        print(workload.summary)
        with tempfile.TemporaryDirectory(prefix="autotune-bench-") as folder:
            runner = ProcessRunner(
                workload=workload,
                close=series.close,
                last_fifth_start=series.last_fifth_start(),
                device="cpu",
                reference=EAGER,
                cost=EffectiveCost(weights=(1.0,)),
                limits=RunnerLimits(blocks=48, memory_bytes=8 << 30),
                caches=Path(folder),
            )
            try:
                for settings in ROWS:
                    print(f"  {settings.label:48} {_row(runner, settings)}", flush=True)
            finally:
                runner.close()


def _row(runner: ProcessRunner, settings: RuntimeSettings) -> str:
    outcome = runner.measure(settings, seconds=600.0)
    if isinstance(outcome, Failed):
        return f"{outcome.kind}: {outcome.detail}"
    conditions, how = outcome.conditions, "warm" if outcome.was_warm else "cold"
    return (
        f"{outcome.ratio.estimate:5.2f}x [{outcome.ratio.low:.2f}, {outcome.ratio.high:.2f}]  "
        f"p50 {outcome.timings[0].p50_ms:7.2f} ms beside {outcome.reference_timings[0].p50_ms:7.2f} ms, "
        f"drift {outcome.accuracy.drift:.3%}, start {outcome.start_ms / 1000:.1f} s {how}, "
        f"{conditions.disturbed_blocks} of {conditions.blocks} blocks disturbed"
    )


if __name__ == "__main__":
    main()
