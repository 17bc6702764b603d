"""Records every distinct settings of a workload on this machine, as the tables that ``search.py`` replays."""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

from autotuner.environment import available_threads, current_environment
from autotuner.measurement.outcome import Failed
from autotuner.measurement.process_runner import ProcessRunner, RunnerLimits
from autotuner.search.profiles import profile
from autotuner.search.space import search_space
from autotuner.tuning.measuring import effective_cost
from autotuner.workload import Workload
from toto_core.model_files import locate, read_config
from toto_core.series import find_series

HERE = Path(__file__).parent


def main() -> None:
    """Measure every key once and write one JSON table into ``results/``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="toto-mini")
    parser.add_argument("--symbol", default="AMD")
    parser.add_argument("--name", default="toto-mini")
    parser.add_argument("--threads", type=int, default=available_threads(), help="most threads of a process")
    arguments = parser.parse_args()
    workload = Workload(model=arguments.model)
    patch_size = read_config(locate(arguments.model)).patch_size
    space = search_space(
        workload, workload.facts(device="cpu", threads=arguments.threads, patch_size=patch_size)
    )
    series = find_series(arguments.symbol, None)
    entries = []
    with tempfile.TemporaryDirectory(prefix="record-") as folder:
        runner = ProcessRunner(
            workload=workload,
            close=series.close,
            last_fifth_start=series.last_fifth_start(),
            device="cpu",
            reference=space.reference,
            cost=effective_cost(workload, profile("production")),
            limits=RunnerLimits(memory_bytes=8 << 30),
            caches=Path(folder),
        )
        try:
            for key in space.keys:
                begun = time.monotonic()
                outcome = runner.measure(key, seconds=300.0)
                cost_s = time.monotonic() - begun
                print(f"{key.label}: {cost_s:.0f} s", flush=True)
                entry = {"settings": key.to_dict(), "cost_s": round(cost_s, 2)}
                if isinstance(outcome, Failed):
                    entry |= {"failure": {"kind": outcome.kind, "detail": outcome.detail}}
                else:
                    entry |= {
                        "latency_ms": [timing.p50_ms for timing in outcome.timings],
                        "sigma_ms": [timing.sigma_ms for timing in outcome.timings],
                        "ratio": dataclasses.asdict(outcome.ratio),
                        "cold_start_ms": outcome.cold_start_ms,
                        "warm_start_ms": outcome.warm_start_ms,
                        "drift": outcome.accuracy.drift,
                        "quantile_shift": outcome.accuracy.quantile_shift,
                        "conditions": dataclasses.asdict(outcome.conditions),
                    }
                entries.append(entry)
        finally:
            runner.close()
    document = {
        "environment": json.loads(current_environment("cpu").to_json()),
        "workload": workload.to_dict(),
        "entries": entries,
    }
    target = HERE / "results" / f"grid-{arguments.name}-{arguments.symbol}.json"
    target.write_text(json.dumps(document, indent=1), encoding="utf-8")
    print(target)


if __name__ == "__main__":
    main()
