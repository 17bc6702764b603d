"""The public package of Toto 2.0 as one arm of ``engine2.py``; runs in the environment of ``setup_peer2.sh``."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from toto2 import Toto2Model  # type: ignore[import-not-found]


def main() -> None:
    """Answer ``call`` requests, one JSON line each; the job is the first line."""
    job = json.loads(sys.stdin.readline())
    torch.set_num_threads(job["threads"])
    series = np.load(job["series"])
    started = time.perf_counter()
    model = Toto2Model.from_pretrained(job["model"]).eval()
    forecast = torch.compile(model.forecast) if job["compiled"] else model.forecast
    target = torch.from_numpy(series)
    inputs = {
        "target": target,
        "target_mask": torch.ones_like(target, dtype=torch.bool),
        "series_ids": torch.zeros(target.shape[:2], dtype=torch.int64),
    }
    with torch.no_grad():
        # nothing is missing, so its fast path: one pass, no masks
        quantiles = forecast(dict(inputs), job["horizon"], has_missing_values=False)
        start_s = time.perf_counter() - started
        np.save(job["answer"], quantiles.numpy())
        print(json.dumps({"start_s": start_s}), flush=True)
        for _ in sys.stdin:
            begun = time.perf_counter()
            forecast(dict(inputs), job["horizon"], has_missing_values=False)
            print(json.dumps({"ms": (time.perf_counter() - begun) * 1000.0}), flush=True)


if __name__ == "__main__":
    main()
