"""The seed's table on one device: modes and precisions of the 151 M shape in turns, five symbols, beside toto-ts.

Random weights: speed depends on shapes alone. All arms stand in one process and take turns in random order; ratios
are of medians of one round, their interval is bootstrapped over rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toto_core.pipeline import TotoPipeline
from toto_core.series import find_series
from toto_core.settings import RuntimeSettings
from toto_core.toto1 import checkpoint
from toto_core.toto1.model import TotoModel
from toto_core.toto1.model_config import ModelConfig

SYMBOLS = ("AMD", "AAPL", "GOOGL", "BTCUSD", "ETHUSD")
SHAPE = ModelConfig(
    patch_size=64,
    embed_dim=768,
    num_layers=12,
    num_heads=12,
    mlp_hidden_dim=3072,
    spacewise_every_n_layers=12,
    k_components=24,
)
WEIGHTS = 118e6
"""Weights that a call reads: those of the layers and of the folded heads for the rows it needs."""
MODES = (
    ("eager", "fp32"),
    ("eager", "bf16"),
    ("default", "bf16"),
    ("reduce-overhead", "fp32"),
    ("reduce-overhead", "tf32"),
    ("reduce-overhead", "bf16"),
    ("reduce-overhead", "fp16"),
)
LONG = (("eager", "fp32"), ("eager", "bf16"), ("reduce-overhead", "fp32"), ("reduce-overhead", "bf16"))
"""What the horizon of two patches is tried with."""
ROWS = ((8, 256), (128, 64))
"""Steps and samples."""
SLOWEST = (("eager", "fp32"), ("reduce-overhead", "bf16"), ("max-autotune", "bf16"))
"""Max-autotune takes minutes to build, so it has a table of its own, after the others."""
LATEST = 220.0
"""Seconds after which no further arm is built."""
_BEGUN = time.perf_counter()
CALLS = 5
"""Of a block, after one that is discarded."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every arm is asked: a model's folder, a device, contexts (time,) by symbol, steps and samples."""

    folder: str
    device: str
    contexts: list[Any]
    horizon: int
    samples: int


@dataclass(kw_only=True)
class Arm:
    """One way to forecast: ``call(symbol, seed)`` gives samples (time, sample) or None."""

    name: str
    call: Callable[[int, int], Tensor | None]
    pipeline: TotoPipeline | None = None
    cold_s: float = 0.0
    replay_s: float = 0.0
    blocks: list[list[float]] = field(default_factory=list)
    gpu_ms: float = 0.0

    @property
    def medians(self) -> np.ndarray[Any, Any]:
        """Milliseconds, (round,)."""
        return np.array([np.median(block) for block in self.blocks])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--build", help="only build this arm, to fill the compiler's cache")
    options = parser.parse_args()
    shape = (
        dataclasses.replace(
            SHAPE, embed_dim=64, num_layers=2, num_heads=2, mlp_hidden_dim=128, spacewise_every_n_layers=2
        )
        if options.small
        else SHAPE
    )
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        checkpoint.save(TotoModel(shape), Path(folder))
        if not options.build and not options.small:
            build_side_by_side(options.device)
        for horizon, samples in ROWS:
            modes = MODES[:3] if options.small else MODES if horizon == 8 else LONG
            table(folder, options, horizon, samples, modes)
        if not options.small:
            table(folder, options, *ROWS[0], SLOWEST)


def build_side_by_side(device: str) -> None:
    """Every compiled arm in a process of its own, all at once: the table then finds its graphs on disk."""
    begun = time.perf_counter()
    names = [f"{mode} {precision}" for mode, precision in MODES if mode != "eager"] + ["toto-ts compiled"]
    command = [sys.executable, __file__, "--device", device, "--build"]
    processes = [(name, subprocess.Popen([*command, name], stdout=subprocess.DEVNULL)) for name in names]
    for name, process in processes:
        process.wait()
        print(
            f"{name}: built after {time.perf_counter() - begun:.0f} s, exit code {process.returncode}",
            flush=True,
        )


def table(
    folder: str, options: argparse.Namespace, horizon: int, samples: int, modes: Sequence[tuple[str, str]]
) -> None:
    """Build every arm, let them take turns, print the rows."""
    contexts = [find_series(s, None).close[-512:].astype(np.float32) for s in SYMBOLS]
    work = Work(folder=folder, device=options.device, contexts=contexts, horizon=horizon, samples=samples)
    arms = build_arms(work, modes, options.build)
    if options.build:
        return
    order = random.Random(0)
    for round_ in range(options.rounds if not options.small else 4):
        for arm in order.sample(arms, len(arms)):
            if arm.pipeline is None and round_ >= 6:
                continue  # toto-ts takes long, and its ratio is far from one
            arm.blocks.append([timed(arm, (round_ + i) % len(SYMBOLS), i) for i in range(CALLS + 1)][1:])
    for arm in arms:
        arm.gpu_ms = device_ms(arm)
    print_rows(arms, horizon, samples)


def build_arms(work: Work, modes: Sequence[tuple[str, str]], only: str | None) -> list[Arm]:
    """Every arm that can be built, ``only`` one where it is named; one that fails is told and left out."""
    makers = {
        f"{mode} {precision}": functools.partial(ours, work, mode, precision) for mode, precision in modes
    }
    makers |= {f"toto-ts {mode}": functools.partial(peer, work, mode=mode) for mode in ("eager", "compiled")}
    arms = []
    for name, make in makers.items():
        if only not in {None, name}:
            continue
        begun = time.perf_counter()
        try:
            arms.append(make())
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
            continue
        print(f"built {name} in {time.perf_counter() - begun:.1f} s", flush=True)
    return arms


def ours(work: Work, mode: str, precision: str) -> Arm:
    """This engine under one configuration, called until it replays what it recorded."""
    begun = time.perf_counter()
    settings = RuntimeSettings(compile_mode=mode, precision=precision)
    pipeline = TotoPipeline.from_pretrained(work.folder, device=work.device, settings=settings)

    def call(symbol: int, seed: int) -> Tensor | None:
        found = pipeline.predict(work.contexts[symbol], work.horizon, work.samples, seed=seed).samples
        return None if found is None else found[0, 0]

    call(0, 0)
    cold = time.perf_counter() - begun
    for seed in (1, 2):
        call(0, seed)
    replay = time.perf_counter() - begun
    return Arm(name=f"{mode} {precision}", call=call, pipeline=pipeline, cold_s=cold, replay_s=replay)


def peer(work: Work, *, mode: str) -> Arm:
    """toto-ts as its README runs it."""
    from toto.data.util.dataset import MaskedTimeseries  # type: ignore[import-not-found]
    from toto.inference.forecaster import TotoForecaster  # type: ignore[import-not-found]
    from toto.model.toto import Toto  # type: ignore[import-not-found]

    begun = time.perf_counter()
    toto = Toto.load_from_checkpoint(work.folder).to(work.device)
    if mode == "compiled":
        toto.compile()
        toto.model.compile()  # the forecaster calls the backbone
    forecaster = TotoForecaster(toto.model)

    def call(symbol: int, seed: int) -> Tensor | None:
        series = torch.tensor(work.contexts[symbol], device=work.device)[None]
        batch = MaskedTimeseries(
            series=series,
            padding_mask=torch.ones_like(series, dtype=torch.bool),
            id_mask=torch.zeros_like(series),
            timestamp_seconds=torch.zeros_like(series, dtype=torch.int),
            time_interval_seconds=torch.ones(1, dtype=torch.int, device=work.device),
        )
        with torch.no_grad():
            forecaster.forecast(
                batch, work.horizon, num_samples=work.samples, samples_per_batch=work.samples
            ).samples.cpu()
        return None

    call(0, 0)
    cold = time.perf_counter() - begun
    call(0, 1)
    return Arm(name=f"toto-ts {mode} fp32", call=call, cold_s=cold, replay_s=time.perf_counter() - begun)


def timed(arm: Arm, symbol: int, seed: int) -> float:
    """Milliseconds of one call, arrays in, samples on the CPU out."""
    begun = time.perf_counter()
    arm.call(symbol, seed)
    return (time.perf_counter() - begun) * 1000.0


def device_ms(arm: Arm) -> float:
    """Milliseconds a call that kernels ran on the device, summed; 0 without a GPU."""
    if not torch.cuda.is_available():
        return 0.0
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for seed in range(3):
            arm.call(0, seed)
    return float(sum(event.self_device_time_total for event in profile.key_averages()) / 3000.0)


def shift(arm: Arm, reference: Arm) -> float:
    """Largest |q - q_ref| over the reference's 10-90 % spread, over all symbols and steps, on the same noise."""
    worst, levels = 0.0, torch.tensor([0.1, 0.5, 0.9])
    for symbol in range(len(SYMBOLS)):
        found, exact = arm.call(symbol, 5), reference.call(symbol, 5)
        if found is None or exact is None:
            return float("nan")
        ours, theirs = (torch.quantile(each, levels, dim=-1) for each in (found, exact))
        spread = (theirs[2] - theirs[0]).clamp_min(1e-12)
        worst = max(worst, float(((ours - theirs).abs() / spread).max()))
    return worst


def print_rows(arms: list[Arm], horizon: int, samples: int) -> None:
    """One row an arm, fastest last."""
    reference, rng = arms[0], np.random.default_rng(0)
    print(f"\n512 context, {horizon} steps, {samples} samples, one series; milliseconds, wall time\n")
    columns = (
        "configuration",
        "p50",
        "x eager fp32 (95 %)",
        "p95",
        "sigma",
        "GPU alone",
        "shift",
        "skips",
        "cold s",
    )
    print(f"| {' | '.join(columns)} | replay s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for arm in arms:
        rounds = min(len(arm.blocks), len(reference.blocks))
        ratios = np.log(reference.medians[:rounds] / arm.medians[:rounds])
        draws = np.exp(rng.choice(ratios, (2000, rounds)).mean(axis=1))
        low, high = np.quantile(draws, [0.025, 0.975])
        calls = np.concatenate([np.array(block) for block in arm.blocks])
        skips = len(arm.pipeline.compile_report.cudagraph_skips) if arm.pipeline else "-"
        moved = f"{shift(arm, reference):.1e}" if arm.pipeline else "-"
        print(
            f"| {arm.name} | {np.median(calls):.3f} | {np.exp(ratios.mean()):.2f} [{low:.2f}, {high:.2f}] "
            f"| {np.quantile(calls, 0.95):.3f} | {calls.std():.3f} | {arm.gpu_ms:.3f} | {moved} | {skips} "
            f"| {arm.cold_s:.1f} | {arm.replay_s:.1f} |",
            flush=True,
        )
    by_symbol = [np.median([timed(reference, s, i) for i in range(10)]) for s in range(len(SYMBOLS))]
    print(
        "eager fp32 by symbol: "
        + ", ".join(f"{s} {ms:.3f}" for s, ms in zip(SYMBOLS, by_symbol, strict=True))
    )


if __name__ == "__main__":
    main()
