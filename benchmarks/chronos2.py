"""What compiling buys Chronos-2: settings of the seam beside its own eager fp32, and that beside the package's call.

Random weights of the released model's shape (120 M parameters). Ten minutes; needs the extra `chronos2`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from autotuner.engines.chronos2 import ATTENTION, Chronos2
from autotuner.environment import available_threads, current_environment
from autotuner.measurement.outcome import Failed
from autotuner.measurement.process_runner import ProcessRunner, RunnerLimits
from autotuner.measurement.statistics import EffectiveCost, paired_ratio
from autotuner.workload import RequestShape, Workload
from tests.support.chronos2_model import write_chronos2
from toto_core.series import find_series
from toto_core.settings import RuntimeSettings

THREADS = available_threads()
EAGER = RuntimeSettings(num_threads=THREADS)
COMPILED = EAGER.replace(compile_mode="default")
ROWS = (
    EAGER.replace(precision="bf16"),
    EAGER.replace(knobs=((ATTENTION, "eager"),)),
    COMPILED,
    COMPILED.replace(precision="bf16"),
    COMPILED.replace(knobs=((ATTENTION, "eager"),)),
    COMPILED.replace(compile_mode="max-autotune"),
)
SHAPES = (
    Workload(shapes=(RequestShape(context_length=512, prediction_length=16),)),
    Workload(shapes=(RequestShape(context_length=512, prediction_length=64),), series_per_call=16),
)
ROUNDS, CALLS = 24, 5


def main() -> None:
    """Print the package's own call beside ours, then a row per workload and settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="A model of 0.1 M parameters, to try this out.")
    parser.add_argument("--workloads", type=int, default=len(SHAPES), help="How many of the workloads.")
    asked = parser.parse_args()
    width, layers = (64, 2) if asked.small else (768, 12)
    environment = current_environment("cpu", "chronos2")
    print(f"{environment.hardware}, {THREADS} threads, torch {environment.torch}, {environment.engine}")
    with tempfile.TemporaryDirectory(prefix="autotune-bench-") as folder:
        model = write_chronos2(Path(folder) / "model", width=width, layers=layers)
        print(f"  {'ours eager fp32, beside the package':48} {_beside_the_package(model)}")
        for shape in SHAPES[: asked.workloads]:
            _workload(shape, model, Path(folder))


def _workload(shape: Workload, model: Path, folder: Path) -> None:
    workload = Workload(model=str(model), shapes=shape.shapes, series_per_call=shape.series_per_call)
    series = find_series("AMD", None)
    print(workload.summary.replace(str(model), "Chronos-2"))
    together = {"series_per_batch": workload.series_per_call}
    runner = ProcessRunner(
        workload=workload,
        close=series.close,
        last_fifth_start=series.last_fifth_start(),
        device="cpu",
        reference=EAGER.replace(**together),
        cost=EffectiveCost(weights=(1.0,)),
        limits=RunnerLimits(blocks=ROUNDS, memory_bytes=12 << 30),
        caches=folder / "caches",
    )
    try:
        for settings in ROWS:
            print(f"  {settings.label:48} {_row(runner, settings.replace(**together))}", flush=True)
    finally:
        runner.close()


def _row(runner: ProcessRunner, settings: RuntimeSettings) -> str:
    outcome = runner.measure(settings, seconds=900.0)
    if isinstance(outcome, Failed):
        return f"{outcome.kind}: {outcome.detail}"
    return (
        f"{outcome.ratio.estimate:5.2f}x [{outcome.ratio.low:.2f}, {outcome.ratio.high:.2f}]  "
        f"p50 {outcome.timings[0].p50_ms:8.2f} ms beside {outcome.reference_timings[0].p50_ms:8.2f} ms, "
        f"drift {outcome.accuracy.drift:.3%}, start {outcome.start_ms / 1000:.1f} s, "
        f"graphs {outcome.report.graphs}, breaks {outcome.report.graph_breaks}"
    )


def _beside_the_package(model: Path) -> str:
    """Times of both in one process, in turns: the same model, called by the package's predict and by ours."""
    from chronos import Chronos2Pipeline

    torch.set_num_threads(THREADS)
    package = Chronos2Pipeline.from_pretrained(str(model), device_map="cpu")
    ours = Chronos2().load(str(model), revision=None, settings=EAGER, device="cpu", artifacts=None)
    context = find_series("AMD", None).close[-512:].astype(np.float32)
    theirs = torch.as_tensor(context)[None, None]
    calls: tuple[Callable[[], object], ...] = (
        lambda: package.predict(theirs, prediction_length=16, batch_size=1),
        lambda: ours.predict(context, 16),
    )
    taken: list[list[tuple[float, ...]]] = [[], []]
    order = np.random.default_rng(0)
    for _ in range(ROUNDS):
        for arm in order.permutation(2):
            taken[arm].append(tuple(_ms(calls[arm]) for _ in range(CALLS))[1:])
    blocks = [(tuple(each),) for each in taken]
    ratio = paired_ratio(blocks[0], blocks[1], cost=EffectiveCost(weights=(1.0,)), rng=order)
    medians = [float(np.median([ms for block in each for ms in block])) for each in taken]
    return (
        f"{ratio.estimate:5.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]  "
        f"p50 {medians[1]:8.2f} ms beside {medians[0]:8.2f} ms of the package's predict"
    )


def _ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000.0


if __name__ == "__main__":
    main()
