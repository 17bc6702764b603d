"""Whole runs for one symbol, with and without another process that keeps one core busy: do they agree?

Each run begins with a copy of a store that knows what compiling costs (from another symbol's run of the same
workload), and with no champion. Where promoted settings differ, a joint duel under each load says by how much.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from autotuner.promotion.duel import run_duel
from autotuner.promotion.duel_plan import DuelArm, DuelPlan, DuelResult
from autotuner.search.profiles import profile
from autotuner.tuning.measuring import effective_cost, plan_measuring, prepare
from autotuner.workload import Workload
from toto_core.prices.options import PriceSource
from toto_core.settings import RuntimeSettings

PRODUCTION = profile("production")
PLAN = DuelPlan(stage2_launches=24, early=())
_BUSY = "while True: pass"


def main() -> None:
    """Print one line a run, then the joint duels of what differs, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path, help="a store with another symbol's run of the same workload")
    parser.add_argument("--symbol", default="AMD")
    parser.add_argument("--runs", type=int, default=3, help="runs of each kind")
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("--duel-seconds", type=float, default=300.0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    for number, busy in itertools.product(range(arguments.runs), (False, True)):
        with neighbour(busy=busy):
            document = one_run(arguments.store, arguments.symbol, arguments.timeout, seed=number)
        runs.append({"busy": busy, "document": document})
        print(line(document, busy=busy), flush=True)
    promoted = list(dict.fromkeys(RuntimeSettings.from_dict(run["document"]["settings"]) for run in runs))
    duels = []
    for (one, other), busy in itertools.product(itertools.combinations(promoted, 2), (False, True)):
        with neighbour(busy=busy):
            result = joint_duel(one, other, arguments.symbol, runs, seconds=arguments.duel_seconds)
        gain = None if result is None or result.gain is None else result.gain
        verdict = (
            "no duel" if result is None else f"{result.verdict}, gain {gain}, {result.launches} launches"
        )
        duels.append({"busy": busy, "challenger": one.label, "champion": other.label, "verdict": verdict})
        print(
            f"{'busy ' if busy else 'quiet'} duel: {one.label} against {other.label}: {verdict}", flush=True
        )
    if arguments.output:
        arguments.output.write_text(json.dumps({"runs": runs, "duels": duels}, indent=1), encoding="utf-8")


@contextlib.contextmanager
def neighbour(*, busy: bool) -> Iterator[None]:
    """Another process that wants a whole core, or none."""
    process = subprocess.Popen([sys.executable, "-c", _BUSY]) if busy else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def one_run(store: Path, symbol: str, timeout: float, *, seed: int) -> dict[str, Any]:
    """The document of a whole run that takes up nothing but what compiling costs."""
    with tempfile.TemporaryDirectory(prefix="neighbour-") as folder:
        copy = Path(folder) / "autotune.db"
        shutil.copy(store, copy)
        begun = time.monotonic()
        command = ["run", "--symbol", symbol, "--fresh", "--json", "--db", str(copy), "--seed", str(seed)]
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from autotuner.cli import main; main()",
                *command,
                "--timeout",
                str(timeout),
            ],
            stdout=subprocess.PIPE,
            check=True,
        )
        document: dict[str, Any] = json.loads(done.stdout)
    return document | {"wall_s": round(time.monotonic() - begun, 1)}


def line(document: Mapping[str, Any], *, busy: bool) -> str:
    """A run in one line."""
    ratio, conditions = document["ratio"], document.get("conditions") or {}
    return (
        f"{'busy ' if busy else 'quiet'} run: {RuntimeSettings.from_dict(document['settings']).label}: "
        f"{ratio['estimate']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}], {document['launches']} launches, "
        f"{document['trials']['measured']} trials ({document['trials']['ended_because']}), "
        f"{conditions.get('disturbed_blocks')} of {conditions.get('blocks')} blocks disturbed, "
        f"{document['wall_s']:.0f} s"
    )


def joint_duel(
    one: RuntimeSettings, other: RuntimeSettings, symbol: str, runs: list[dict[str, Any]], *, seconds: float
) -> DuelResult | None:
    """A fresh duel of two promoted settings; nobody else takes part, so that there is time for many launches."""
    prepared = prepare(symbol, Workload(), prices=PriceSource(), device="cpu")
    runner = plan_measuring(prepared, profile=PRODUCTION).make_runner(lambda _: None)
    starts = {
        RuntimeSettings.from_dict(run["document"]["settings"]): run["document"].get("warm_start_ms")
        or run["document"].get("cold_start_ms")
        or 0.0
        for run in runs
    }
    try:
        return run_duel(
            runner,
            challengers=[DuelArm(settings=one, start_ms=starts[one])],
            champion=DuelArm(settings=other, start_ms=starts[other]),
            reference=DuelArm(settings=other),
            cost=effective_cost(prepared.subject.workload, PRODUCTION),
            seconds=seconds,
            plan=PLAN,
            rng=np.random.default_rng(0),
        )
    finally:
        runner.close()


if __name__ == "__main__":
    main()
