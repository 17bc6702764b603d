"""This engine as one arm of ``engine.py``."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from toto_core.forecast import Forecast
from toto_core.pipeline import TotoPipeline
from toto_core.settings import RuntimeSettings


def main() -> None:
    """Answer ``call`` requests, one JSON line each; the job is the first line."""
    job = json.loads(sys.stdin.readline())
    started = time.perf_counter()
    pipeline = TotoPipeline.from_pretrained(job["model"], settings=RuntimeSettings(**job["settings"]))
    series = np.array(job["series"], dtype=np.float32)
    forecast = _call(pipeline, series, job)
    report = pipeline.compile_report
    answer = {
        "start_s": time.perf_counter() - started,
        "mean": forecast.mean.flatten().tolist(),
        "graphs": report.graphs,
        "compiled": report.really_compiled,
    }
    print(json.dumps(answer), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        _call(pipeline, series, job)
        milliseconds = (time.perf_counter() - begun) * 1000.0
        print(
            json.dumps({"ms": milliseconds, "peak_bytes": pipeline.peak_bytes}),
            flush=True,
        )


def _call(pipeline: TotoPipeline, series: np.ndarray[Any, Any], job: dict[str, Any]) -> Forecast:
    return pipeline.predict(series, job["horizon"], job["num_samples"], seed=1)


if __name__ == "__main__":
    main()
