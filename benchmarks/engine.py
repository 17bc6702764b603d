"""This engine beside toto-ts 0.2.0 on the full 151 M shape: the same random weights, inputs and machine, in turns.

`benchmarks/setup_peer.sh` makes the environment that toto-ts needs. Writes what it prints, and every raw
figure, into `benchmarks/results/`. Takes about half an hour; `--rows 1 --rounds 3` a few minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from autotuner.environment import available_threads, current_environment
from toto_core.series import find_series
from toto_core.toto1 import checkpoint
from toto_core.toto1.model import TotoModel
from toto_core.toto1.model_config import ModelConfig

HERE = Path(__file__).parent
SHAPE = ModelConfig(
    patch_size=64,
    embed_dim=768,
    num_layers=12,
    num_heads=12,
    mlp_hidden_dim=3072,
    spacewise_every_n_layers=12,
    k_components=24,
)
SYMBOLS = ("AMD", "AAPL", "GOOGL", "BTCUSD", "ETHUSD")
CALLS_A_TURN = 4
"""Of ours, the first one discarded: it pays for the other arms' use of the cache. toto-ts makes one call."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is asked: ``num_samples`` None is the deterministic mean path; ``peer_compiled`` runs that too."""

    context: int
    horizon: int
    num_samples: int | None
    series: int = 1
    peer_compiled: bool = False

    @property
    def label(self) -> str:
        """Short text for people."""
        samples = "mean path" if self.num_samples is None else f"{self.num_samples} samples"
        several = f" x {self.series} series" if self.series > 1 else ""
        return f"{self.context} · {self.horizon} · {samples}{several}"


ROWS = (
    Row(context=512, horizon=8, num_samples=256, peer_compiled=True),
    Row(context=512, horizon=8, num_samples=1024),
    Row(context=512, horizon=128, num_samples=64, peer_compiled=True),
    Row(context=4096, horizon=336, num_samples=32),
    Row(context=512, horizon=8, num_samples=256, series=5),
    Row(context=512, horizon=128, num_samples=None, peer_compiled=True),
)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One arm: whose engine, in which precision, compiled or not."""

    peer: bool
    precision: str
    compiled: bool

    @property
    def label(self) -> str:
        """Short text for people."""
        mode = "compiled" if self.compiled else "eager"
        return f"{'toto-ts' if self.peer else 'ours'} {mode} {self.precision}"


class Arm:
    """A started child process that answers one timed call at a time."""

    def __init__(self, variant: Variant, row: Row, model: str, python: Path, threads: int) -> None:
        self.variant = variant
        script = HERE / "arms" / ("peer.py" if variant.peer else "ours.py")
        self._process = subprocess.Popen(
            [str(python if variant.peer else sys.executable), str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        settings = {
            "compile_mode": "default" if variant.compiled else "eager",
            "freezing": variant.compiled,
            "precision": variant.precision,
            "num_threads": threads,
            "series_per_batch": row.series,
        }
        series = [[find_series(name, None).close[-row.context :].tolist()] for name in SYMBOLS[: row.series]]
        job = {
            "model": model,
            "threads": threads,
            "compiled": variant.compiled,
            "precision": variant.precision,
            "settings": settings,
            "series": series,
            "horizon": row.horizon,
            "num_samples": row.num_samples,
        }
        self.started = self._ask(json.dumps(job))

    def turn(self) -> tuple[float, int]:
        """Milliseconds of a call in a turn of this arm, and the process's peak memory in bytes."""
        calls = [self._ask("call") for _ in range(1 if self.variant.peer else CALLS_A_TURN)]
        kept = calls if self.variant.peer else calls[1:]
        return float(np.median([call["ms"] for call in kept])), int(calls[-1].get("peak_bytes", 0))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _ask(self, line: str) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the arm has no pipes")
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.variant.label} ended: exit code {self._process.wait()}")
        found: dict[str, Any] = json.loads(answer)
        return found


def least_ms(row: Row, precision: str, limits: Mapping[str, float]) -> float:
    """What the machine needs at least: per model call the larger of reading the weights and the arithmetic.

    Counts matrix products with weights only. The newest token alone passes the last time-wise layer's query,
    output and feed-forward and, of one variate, the space-wise layer; heads are float32.
    """
    width, hidden, paths = SHAPE.embed_dim, SHAPE.mlp_hidden_dim, (row.num_samples or 1)
    layer = 4 * width * width + 3 * width * hidden
    tokens = row.series * -(-row.context // SHAPE.patch_size)
    patches = -(-row.horizon // SHAPE.patch_size)
    head = min(row.horizon, SHAPE.patch_size) * 4 * SHAPE.k_components * width
    keys_values, rest, space = 2 * width * width, layer - 2 * width * width, layer - 2 * width * width
    prefill = (10 * layer + keys_values) * tokens + (rest + space) * row.series
    step = (11 * layer + space) * paths * row.series
    size = 4 if precision == "fp32" else 2
    weights = (11 * layer + space) * size
    calls = [(prefill, head * row.series)] + [
        (step, SHAPE.patch_size * 4 * SHAPE.k_components * width * paths)
    ] * (patches - 1)
    seconds = 0.0
    for body, heads in calls:
        reading = (weights + 4 * head) / limits["read_bytes_per_s"]
        seconds += max(reading, 2 * body / limits[precision] + 2 * heads / limits["fp32"])
    return seconds * 1000.0


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Median of ratios with its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    values = np.array(ratios)
    medians = np.median(rng.choice(values, size=(4000, len(values))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(np.median(values)), float(low), float(high)


def measure(row: Row, model: str, python: Path, *, rounds: int, threads: int) -> dict[str, Any]:
    """Raw milliseconds per arm and round, and what each arm said when it started."""
    variants = [Variant(peer=False, precision=p, compiled=c) for c in (False, True) for p in ("fp32", "bf16")]
    modes = (False, True) if row.peer_compiled else (False,)
    variants += [Variant(peer=True, precision=p, compiled=c) for c in modes for p in ("fp32", "bf16")]
    arms: list[Arm] = []
    order = random.Random(0)
    try:
        failed = {}
        for variant in variants:
            try:
                arms.append(Arm(variant, row, model, python, threads))
            except RuntimeError as error:
                failed[variant.label] = str(error)
        times: dict[str, list[float]] = {arm.variant.label: [] for arm in arms}
        peaks: dict[str, int] = {}
        for _ in range(rounds):
            for arm in order.sample(arms, len(arms)):
                milliseconds, peaks[arm.variant.label] = arm.turn()
                times[arm.variant.label].append(milliseconds)
        started = {arm.variant.label: arm.started for arm in arms}
    finally:
        for arm in arms:
            arm.close()
    return {
        "row": dataclasses.asdict(row),
        "ms": times,
        "peak_bytes": peaks,
        "started": started,
        "failed": failed,
    }


def lines_of(row: Row, found: dict[str, Any], limits: Mapping[str, float]) -> list[str]:
    """A Markdown table of one row."""
    times, reference = found["ms"], found["ms"]["toto-ts eager fp32"]
    best = min((np.median(ms), name) for name, ms in times.items() if name.startswith("toto-ts"))[1]
    expected = np.array(found["started"]["toto-ts eager fp32"]["mean"])
    lines = [
        f"### {row.label}",
        "",
        f"| arm | ms | x toto-ts eager fp32 [95 %] | x its best ({best.removeprefix('toto-ts ')}) | "
        "x the limit | peak MB | start s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, ms in times.items():
        estimate, low, high = interval(np.array(reference) / np.array(ms))
        other = interval(np.array(times[best]) / np.array(ms))
        precision = "bf16" if name.endswith("bf16") else "fp32"
        limit = (
            "" if name.startswith("toto-ts") else f"{np.median(ms) / least_ms(row, precision, limits):.1f}"
        )
        peak = found["peak_bytes"].get(name, 0) / 2**20
        lines.append(
            f"| {name} | {np.median(ms):.1f} | {estimate:.1f} [{low:.1f}, {high:.1f}] | "
            f"{other[0]:.1f} [{other[1]:.1f}, {other[2]:.1f}] | {limit} | {f'{peak:.0f}' if peak else ''} | "
            f"{found['started'][name]['start_s']:.1f} |"
        )
    lines += [f"{name}: {error}" for name, error in found["failed"].items()]
    if row.num_samples is None:
        for name in ("ours eager fp32", "ours compiled fp32", "ours compiled bf16"):
            error = np.abs(np.array(found["started"][name]["mean"]) - expected).max() / np.abs(expected).max()
            lines.append(
                f"\n{name}: forecast within {error:.1e} of toto-ts's, relative to its largest value."
            )
    return [*lines, ""]


def machine(threads: int) -> tuple[str, dict[str, float]]:
    """One line that describes the machine, and its limits, measured now."""
    answer = subprocess.run(
        [sys.executable, str(HERE / "arms" / "machine.py"), str(threads)],
        check=True,
        capture_output=True,
        text=True,
    )
    limits: dict[str, float] = json.loads(answer.stdout)
    environment = current_environment("cpu")
    return (
        f"{environment.hardware}, {threads} threads, {psutil.virtual_memory().total / 2**30:.0f} GB, "
        f"torch {environment.torch}: reads {limits['read_bytes_per_s'] / 1e9:.0f} GB/s, "
        f"fp32 {limits['fp32'] / 1e9:.0f} GFLOP/s, bf16 {limits['bf16'] / 1e9:.0f} GFLOP/s"
    ), limits


def main() -> None:
    """Measure the rows asked for, print a table each, and keep everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", type=Path, default=Path(".autotune/peer"), help="toto-ts's environment")
    parser.add_argument("--rows", type=int, nargs="*", default=range(1, len(ROWS) + 1))
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    python = arguments.peer / "bin" / "python"
    if not python.exists():
        sys.exit(f"{python} is not there: run benchmarks/setup_peer.sh {arguments.peer} first")
    threads = available_threads()
    about, limits = machine(threads)
    today = datetime.datetime.now(datetime.UTC).date()
    text = [f"# Engine beside toto-ts 0.2.0, {today}", "", about, ""]
    print("\n".join(text), flush=True)
    raw: dict[str, Any] = {"machine": about, "limits": limits, "rows": []}
    out = HERE / "results" / f"engine-{today}"
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        torch.manual_seed(0)
        checkpoint.save(TotoModel(SHAPE), Path(folder))
        for number in arguments.rows:
            row = ROWS[number - 1]
            found = measure(row, folder, python, rounds=arguments.rounds, threads=threads)
            lines = lines_of(row, found, limits)
            print("\n".join(lines), flush=True)
            text += lines
            raw["rows"].append(found)
            out.with_suffix(".md").write_text("\n".join(text), encoding="utf-8")
            out.with_suffix(".json").write_text(json.dumps(raw, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
