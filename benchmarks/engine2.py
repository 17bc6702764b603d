"""This engine's Toto 2.0 beside the public package: the same random weights, inputs and machine, in turns.

`benchmarks/setup_peer2.sh` makes the environment that the package needs; then `python -m benchmarks.engine2`. Writes
what it prints, and every raw figure, into `benchmarks/results/`. All rows take an hour or two; `--shapes 22m
--horizons 96 --series 1` a few minutes. Shapes: the 4m model's is published; those of 22m and 313m are the ones that
have their numbers of parameters.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import itertools
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autotuner.environment import available_threads
from benchmarks.engine import interval, machine
from tests.support.toto2_model import FOUR_M, TINY, save_toto2_model
from toto_core.toto2.model_config import LEVELS

HERE = Path(__file__).parent
_22M = dataclasses.replace(
    FOUR_M, d_model=512, num_heads=8, num_groups=8, num_layers=6, layer_group_size=6, d_ff=1368
)
SHAPES = {
    "tiny": TINY,
    "4m": FOUR_M,
    "22m": _22M,
    "313m": dataclasses.replace(_22M, d_model=1024, num_heads=16, num_groups=16, num_layers=24, d_ff=2736),
}
CALLS_A_TURN = 4
"""The first one discarded: it pays for the other arms' use of the cache."""
REFERENCE = "package eager fp32"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is asked of which model."""

    shape: str
    context: int
    horizon: int
    series: int

    @property
    def label(self) -> str:
        """Short text for people."""
        return f"{self.shape} · {self.context} · {self.horizon} · {self.series} series"


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
        return f"{'package' if self.peer else 'ours'} {mode} {self.precision}"


VARIANTS = tuple(
    Variant(peer=False, precision=precision, compiled=compiled)
    for compiled in (False, True)
    for precision in ("fp32", "bf16")
) + tuple(Variant(peer=True, precision="fp32", compiled=compiled) for compiled in (False, True))


class Arm:
    """A started child process that answers one timed call at a time."""

    def __init__(self, variant: Variant, row: Row, folder: Path, python: Path, threads: int) -> None:
        self.variant = variant
        script = HERE / "arms" / ("peer2.py" if variant.peer else "ours2.py")
        self._process = subprocess.Popen(
            [str(python if variant.peer else sys.executable), "-W", "ignore", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        answer = folder / f"{variant.label}.npy"
        settings = {
            "compile_mode": "default" if variant.compiled else "eager",
            "freezing": variant.compiled,
            "precision": variant.precision,
            "num_threads": threads,
            "series_per_batch": row.series,
        }
        job = {
            "model": str(folder / row.shape),
            "series": str(folder / "series.npy"),
            "answer": str(answer),
            "threads": threads,
            "compiled": variant.compiled,
            "settings": settings,
            "horizon": row.horizon,
        }
        self.started = self._ask(json.dumps(job))
        self.quantiles = np.load(answer)

    def turn(self) -> float:
        """Milliseconds of a call in a turn of this arm."""
        calls = [float(self._ask("call")["ms"]) for _ in range(CALLS_A_TURN)]
        return float(np.median(calls[1:]))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _ask(self, line: str) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the arm has no pipes")
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.variant.label} ended: exit code {self._process.wait()}")
        found: dict[str, Any] = json.loads(answer)
        return found


def least_ms(row: Row, precision: str, limits: Mapping[str, float]) -> float:
    """What the machine needs at least: the larger of reading the weights once and the arithmetic.

    Counts matrix products with weights only. Behind the last layer over time, and in it but for keys and values,
    only the tokens pass that predict something; a lone variate's attention is one product.
    """
    config = SHAPES[row.shape]
    width, feed_forward = config.d_model, 3 * config.d_model * config.d_ff
    ahead = -(-row.horizon // config.patch_size)
    tokens = -(-row.context // config.patch_size) + ahead - 1
    last = max(index for index, axis in enumerate(config.layer_axes) if axis == "time")
    body = weights = 0
    for index, axis in enumerate(config.layer_axes):
        pair = 2 * width * config.qk_dim * config.num_groups
        rest = (2 * width * width if axis == "time" else width * width - pair) + feed_forward
        body += pair * (tokens if index <= last else ahead) + rest * (tokens if index < last else ahead)
        weights += pair + rest
    embed = 5 * width * config.patch_size + 4 * width * width
    head = 4 * width * width + 5 * width * config.patch_size * len(LEVELS)
    around = embed * tokens + head * ahead
    reading = (weights * (4 if precision == "fp32" else 2) + 4 * (embed + head)) / limits["read_bytes_per_s"]
    arithmetic = 2 * row.series * (body / limits[precision] + around / limits["fp32"])
    return max(reading, arithmetic) * 1000.0


@contextlib.contextmanager
def started(row: Row, folder: Path, python: Path, threads: int) -> Iterator[tuple[list[Arm], dict[str, str]]]:
    """The arms of a row, and why those that are not there did not start."""
    arms: list[Arm] = []
    failed: dict[str, str] = {}
    try:
        for variant in VARIANTS:
            try:
                arms.append(Arm(variant, row, folder, python, threads))
            except RuntimeError as error:
                failed[variant.label] = str(error)
        yield arms, failed
    finally:
        for arm in arms:
            arm.close()


def measure(row: Row, folder: Path, python: Path, *, rounds: int, threads: int) -> dict[str, Any]:
    """Raw milliseconds per arm and round, and how far each arm's quantiles are from the package's."""
    moves = np.random.default_rng(0).normal(0.0, 0.01, size=(row.series, 1, row.context))
    np.save(folder / "series.npy", (100.0 * np.exp(moves.cumsum(-1))).astype(np.float32))
    order = random.Random(0)
    with started(row, folder, python, threads) as (arms, failed):
        times: dict[str, list[float]] = {arm.variant.label: [] for arm in arms}
        for _ in range(rounds):
            for arm in order.sample(arms, len(arms)):
                times[arm.variant.label].append(arm.turn())
        expected = next((arm.quantiles for arm in arms if arm.variant.label == REFERENCE), None)
        apart = {
            arm.variant.label: float(np.abs(arm.quantiles - expected).max() / np.abs(expected).max())
            for arm in arms
            if expected is not None
        }
        said = {arm.variant.label: arm.started for arm in arms}
    return {
        "row": dataclasses.asdict(row),
        "ms": times,
        "apart": apart,
        "started": said,
        "failed": failed,
    }


def lines_of(row: Row, found: dict[str, Any], limits: Mapping[str, float]) -> list[str]:
    """A Markdown table of one row."""
    times: dict[str, Sequence[float]] = found["ms"]
    lines = [
        f"### {row.label}",
        "",
        f"| arm | ms | x {REFERENCE} [95 %] | x package compiled fp32 [95 %] | x the limit | apart | start s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, ms in times.items():
        ratios = []
        for other in (REFERENCE, "package compiled fp32"):
            if other not in times:
                ratios.append("")
                continue
            estimate, low, high = interval(np.array(times[other]) / np.array(ms))
            ratios.append(f"{estimate:.2f} [{low:.2f}, {high:.2f}]")
        limit = float(np.median(ms)) / least_ms(row, name.rsplit(" ", 1)[1], limits)
        lines.append(
            f"| {name} | {np.median(ms):.2f} | {ratios[0]} | {ratios[1]} | {limit:.1f} | "
            f"{found['apart'].get(name, float('nan')):.0e} | {found['started'][name]['start_s']:.1f} |"
        )
    return [*lines, *(f"{name}: {error}" for name, error in found["failed"].items()), ""]


def main() -> None:
    """Measure the rows asked for, print a table each, and keep everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--peer", type=Path, default=Path(".autotune/peer2"), help="the package's environment"
    )
    parser.add_argument("--shapes", nargs="*", default=["4m", "22m", "313m"], choices=list(SHAPES))
    parser.add_argument("--contexts", type=int, nargs="*", default=[512, 4096])
    parser.add_argument("--horizons", type=int, nargs="*", default=[8, 96, 720])
    parser.add_argument("--series", type=int, nargs="*", default=[1, 64])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    asked = parser.parse_args()
    python = asked.peer / "bin" / "python"
    if not python.exists():
        sys.exit(f"{python} is not there: run benchmarks/setup_peer2.sh {asked.peer} first")
    threads = available_threads()
    about, limits = machine(threads)
    today = datetime.datetime.now(datetime.UTC).date()
    text = [f"# Toto 2.0 beside the public package (timecopilot-toto-2 0.1.1), {today}", "", about, ""]
    print("\n".join(text), flush=True)
    raw: dict[str, Any] = {"machine": about, "limits": limits, "rows": []}
    out = asked.results / f"engine2-{today}"
    for shape in asked.shapes:
        with tempfile.TemporaryDirectory(prefix="engine2-") as folder:
            save_toto2_model(Path(folder) / shape, SHAPES[shape])
            for context, horizon, series in itertools.product(asked.contexts, asked.horizons, asked.series):
                row = Row(shape=shape, context=context, horizon=horizon, series=series)
                found = measure(row, Path(folder), python, rounds=asked.rounds, threads=threads)
                lines = lines_of(row, found, limits)
                print("\n".join(lines), flush=True)
                text += lines
                raw["rows"].append(found)
                out.with_suffix(".md").write_text("\n".join(text), encoding="utf-8")
                out.with_suffix(".json").write_text(json.dumps(raw, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
