"""CUDA graphs recorded by hand beside torch's own, on the 151 M shape, in turns; and where a call's time goes.

What `toto_core/compiling/recorded.py` tries: is it faster, and does it give the same forecasts?
"""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import random
import tempfile
from pathlib import Path

import numpy as np
import torch
from gpu_table import ROWS, SHAPE, SYMBOLS, Arm, Work, device_ms, ours, print_rows, timed

from toto_core.compiling.recorded import Recorder
from toto_core.series import find_series
from toto_core.toto1 import checkpoint
from toto_core.toto1.model import TotoModel

MODES = (("eager", "bf16"), ("reduce-overhead", "bf16"), ("default", "bf16"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("needs a CUDA device: nothing to record here")
        return
    contexts = [find_series(s, None).close[-512:].astype(np.float32) for s in SYMBOLS]
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        checkpoint.save(TotoModel(SHAPE), Path(folder))
        for horizon, samples in ROWS:
            work = Work(
                folder=folder, device=options.device, contexts=contexts, horizon=horizon, samples=samples
            )
            compare(work)


def compare(work: Work) -> None:
    """Build the arms, check the recorded ones against the same without, and let all take turns."""
    arms = [ours(work, mode, precision) for mode, precision in MODES]
    for mode, precision in (MODES[0], MODES[2]):
        try:
            arms.append(recorded(work, mode, precision))
        except Exception as error:  # an experiment that fails is its answer
            print(f"recorded {mode}: {type(error).__name__}: {error}", flush=True)
            break
    order = random.Random(0)
    for round_ in range(30):
        for arm in order.sample(arms, len(arms)):
            arm.blocks.append([timed(arm, (round_ + i) % len(SYMBOLS), i) for i in range(6)][1:])
    for arm in arms:
        arm.gpu_ms = device_ms(arm)
    print_rows(arms, work.horizon, work.samples)
    for arm in arms[1:]:
        print(f"\nwhere the time of 200 calls goes: {arm.name}")
        print(profile(arm), flush=True)


def recorded(work: Work, mode: str, precision: str) -> Arm:
    """An arm whose calls are recorded by hand; its forecasts must be those of the same settings without."""
    plain, arm = ours(work, mode, precision), ours(work, mode, precision)
    assert arm.pipeline
    calls = arm.pipeline._open().calls
    calls.recorder = Recorder()
    worst = 0.0
    for seed in range(6):
        mine, theirs = arm.call(seed % 5, seed), plain.call(seed % 5, seed)
        assert mine is not None
        assert theirs is not None
        worst = max(worst, float(((mine - theirs).abs() / theirs.abs()).max()))
    print(f"recorded {mode} {precision}: largest difference from the same without {worst:.1e}", flush=True)
    arm.name = f"recorded {mode} {precision}"
    return arm


def profile(arm: Arm) -> str:
    """The functions that take the most time, one line each."""
    profiler = cProfile.Profile()
    profiler.enable()
    for seed in range(200):
        arm.call(0, seed)
    profiler.disable()
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).sort_stats("tottime").print_stats(14)
    return "\n".join(line for line in text.getvalue().splitlines() if line.strip())


if __name__ == "__main__":
    main()
