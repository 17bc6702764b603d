"""What a forecasting process feels of a promotion that is switched in: latency quantiles beside matched windows.

Also what telemetry and a cached lookup cost a call.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import timeit
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

import autotuner
from autotuner.environment import current_environment
from autotuner.figures import Figures
from autotuner.serving.follow import LivePipeline, follow
from autotuner.serving.spool import Labels
from autotuner.serving.telemetry import Telemetry
from autotuner.store import Promotion, Store
from autotuner.workload import Workload
from toto_core.compile_report import CompileReport
from toto_core.series import find_series
from toto_core.settings import RuntimeSettings

BEFORE = RuntimeSettings(compile_mode="default", num_threads=1)
AFTER = BEFORE.replace(freezing=True)


def main() -> None:
    """Print p50, p99 and p99.9 of windows without and with a switch, in turns, and the costs per call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="of one window")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTOTUNE_CACHE"] = str(Path(folder) / "cache")
        os.environ["AUTOTUNE_DB"] = store = str(Path(folder) / "autotune.db")
        promote(store, BEFORE)
        pipeline = follow("AMD", every_seconds=1.0, db=store)
        quiet, switched = [], []
        for number in range(arguments.rounds):
            quiet.append(window(pipeline, arguments.seconds, lambda: None))
            wanted = AFTER if number % 2 == 0 else BEFORE
            before = pipeline.switches
            switched.append(window(pipeline, arguments.seconds, lambda wanted=wanted: promote(store, wanted)))
            print(
                f"round {number + 1}: {pipeline.switches - before} switch, {pipeline.waiting or 'nothing waits'}"
            )
        pipeline.close()
        show("windows without a promotion", np.concatenate(quiet))
        show("windows in which one is switched in", np.concatenate(switched))
        ratio = np.quantile(np.concatenate(switched), 0.999) / np.quantile(np.concatenate(quiet), 0.999)
        print(f"p99.9 with over without: {ratio:.2f}")
        costs(folder)


def promote(store: str, settings: RuntimeSettings) -> None:
    """As a run would."""
    with Store(store) as opened:
        opened.promote(
            Promotion(
                symbol="AMD",
                profile="production",
                workload=Workload(),
                environment=current_environment(),
                settings=settings,
                verdict="first",
                reason="benchmark",
                figures=Figures(),
                promoted_at=datetime.now(UTC),
            )
        )


def window(pipeline: LivePipeline, seconds: float, event: Callable[[], None]) -> npt.NDArray[np.float64]:
    """Milliseconds of calls back to back; ``event`` happens after a tenth of the time."""
    context = find_series("AMD", None).close[-512:]
    begun, happened, times = time.perf_counter(), False, []
    while (now := time.perf_counter()) - begun < seconds:
        if not happened and now - begun > seconds / 10:
            event()
            happened = True
            now = time.perf_counter()
        pipeline.predict(context)
        times.append((time.perf_counter() - now) * 1000.0)
    return np.array(times)


def show(name: str, times: npt.NDArray[np.float64]) -> None:
    """One line of quantiles."""
    p50, p99, p999 = np.quantile(times, [0.5, 0.99, 0.999])
    print(f"{name}: {times.size:,} calls, p50 {p50:.2f} ms, p99 {p99:.2f} ms, p99.9 {p999:.2f} ms")


def costs(folder: str) -> None:
    """Microseconds a call of telemetry and of a cached lookup."""
    telemetry = Telemetry(
        Labels(symbol="AMD", settings_key="k", environment_fingerprint="f"),
        Path(folder) / "spool",
        window_seconds=3600,
    )
    report, calls = CompileReport(), 200_000
    seen = min(timeit.repeat(lambda: telemetry.observe(1.5, (512, 8, 256), report), number=calls, repeat=5))
    autotuner.lookup("AMD")
    looked = min(timeit.repeat(lambda: autotuner.lookup("AMD"), number=calls, repeat=5))
    print(f"telemetry {1e6 * seen / calls:.2f} us a call, cached lookup {1e6 * looked / calls:.2f} us")


if __name__ == "__main__":
    main()
