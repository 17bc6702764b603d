"""toto-ts 0.2.0 as one arm of ``engine.py``; runs in the environment that ``setup_peer.sh`` makes."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Any

import torch
from torch import Tensor
from toto.data.util.dataset import MaskedTimeseries  # type: ignore[import-not-found]
from toto.inference.forecaster import TotoForecaster  # type: ignore[import-not-found]
from toto.model.toto import Toto  # type: ignore[import-not-found]

MOST_TOGETHER = 256
"""Paths decoded in one batch: its README's figure, and what fits in memory at every row."""


def main() -> None:
    """Answer ``call`` requests, one JSON line each; the job is the first line."""
    job = json.loads(sys.stdin.readline())
    torch.set_num_threads(job["threads"])
    started = time.perf_counter()
    toto = Toto.load_from_checkpoint(job["model"])
    if job["precision"] == "bf16":
        _keep_heads_in_float32(toto.model.output_distribution)
    if job["compiled"]:
        toto.compile()  # as its README does; the forecaster calls the backbone, so that one is compiled too
        toto.model.compile()
    forecaster = TotoForecaster(toto.model)
    series = torch.tensor(job["series"], dtype=torch.float32)
    forecast = _call(forecaster, series, job)
    answer = {"start_s": time.perf_counter() - started, "mean": forecast.mean.float().flatten().tolist()}
    print(json.dumps(answer), flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        _call(forecaster, series, job)
        print(json.dumps({"ms": (time.perf_counter() - begun) * 1000.0}), flush=True)


def _keep_heads_in_float32(heads: Any) -> None:
    """Without this it cannot sample in bf16 at all: torch draws no gamma variates in it on a CPU."""
    forward = heads.forward

    def in_float32(x: Tensor, *rest: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return forward(x.float(), *(part.float() if isinstance(part, Tensor) else part for part in rest))

    heads.forward = in_float32


def _call(forecaster: Any, series: Tensor, job: dict[str, Any]) -> Any:
    batch = MaskedTimeseries(
        series=series,
        padding_mask=torch.ones_like(series, dtype=torch.bool),
        id_mask=torch.zeros_like(series),
        timestamp_seconds=torch.zeros_like(series, dtype=torch.int),
        time_interval_seconds=torch.ones(series.shape[:2], dtype=torch.int),
    )
    samples = job["num_samples"]
    precision = contextlib.nullcontext()
    if job["precision"] == "bf16":
        precision = torch.autocast("cpu", dtype=torch.bfloat16)
    with precision, torch.no_grad():
        return forecaster.forecast(
            batch, job["horizon"], num_samples=samples, samples_per_batch=min(samples or 1, MOST_TOGETHER)
        )


if __name__ == "__main__":
    main()
