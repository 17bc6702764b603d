"""This engine's Toto 2.0 as one arm of ``engine2.py``."""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from toto_core.settings import RuntimeSettings
from toto_core.toto2 import Toto2Pipeline


def main() -> None:
    """Answer ``call`` requests, one JSON line each; the job is the first line."""
    job = json.loads(sys.stdin.readline())
    series = np.load(job["series"])
    started = time.perf_counter()
    pipeline = Toto2Pipeline.from_pretrained(job["model"], settings=RuntimeSettings(**job["settings"]))
    pipeline.rescues = False
    forecast = pipeline.predict(series, job["horizon"])
    start_s = time.perf_counter() - started
    np.save(job["answer"], forecast.quantiles.numpy())
    report = pipeline.compile_report
    said = {"start_s": start_s, "compiled": report.really_compiled, "recompiles": report.recompiles}
    print(json.dumps(said), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        pipeline.predict(series, job["horizon"])
        milliseconds = (time.perf_counter() - begun) * 1000.0
        print(json.dumps({"ms": milliseconds}), flush=True)


if __name__ == "__main__":
    main()
