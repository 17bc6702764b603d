"""Peak memory of 4,096 samples at horizon 512 on the full 151 M shape, by how many are decoded together."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from engine import SHAPE

from autotuner.environment import available_threads
from toto_core.toto1 import checkpoint
from toto_core.toto1.model import TotoModel

_RUN = """
import sys, time
import numpy as np
from toto_core.pipeline import TotoPipeline
from toto_core.settings import RuntimeSettings
precision, mode, together, threads = sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
settings = RuntimeSettings(
    precision=precision, compile_mode=mode, freezing=mode != "eager", num_threads=threads,
    samples_per_batch=together,
)
pipeline = TotoPipeline.from_pretrained(sys.argv[1], settings=settings)
begun = time.perf_counter()
forecast = pipeline.predict(100 + np.sin(np.arange(512) / 5), 512, 4096)
seconds = time.perf_counter() - begun
assert tuple(forecast.samples.shape) == (1, 1, 512, 4096)
print(pipeline.last_run_metadata["peak_bytes"] / 2**20, seconds)
"""
_RUNS = (("fp32", "eager", 512), ("bf16", "default", 512), ("bf16", "eager", 4096))


def main() -> None:
    """Print the peak and the seconds of one forecast, compilation included where there is one."""
    threads = str(available_threads())
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        torch.manual_seed(0)
        checkpoint.save(TotoModel(SHAPE), Path(folder))
        for precision, mode, together in _RUNS:
            done = subprocess.run(
                [sys.executable, "-c", _RUN, folder, precision, mode, str(together), threads],
                check=True,
                capture_output=True,
                text=True,
            )
            megabytes, seconds = (float(value) for value in done.stdout.split())
            print(
                f"{mode} {precision}, {together} samples together: {megabytes:,.0f} MB, {seconds:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
