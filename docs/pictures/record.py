"""Measures what the pictures of the statistics are drawn from, and writes `measured.json` beside this file.

    python docs/pictures/record.py STORE

STORE is one in which AMD was just tuned here. A few minutes, on a machine that does nothing else meanwhile.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from autotuner.commands.selftest import equal_arms
from autotuner.measurement.accuracy import LEVELS, rolling_origins
from autotuner.measurement.outcome import ArmLaunch
from autotuner.promotion.duel_plan import DuelPlan
from autotuner.search.profiles import profile
from autotuner.store import Store
from autotuner.tuning.measuring import measuring, plan_measuring, prepare
from autotuner.workload import Workload
from toto_core.pipeline import TotoPipeline
from toto_core.prices.options import PriceSource
from toto_core.settings import RuntimeSettings

LAUNCHES, SEEDS = 16, 2
WORKLOAD = Workload()


def main() -> None:
    prepared = prepare("AMD", WORKLOAD, prices=PriceSource(), device="cpu")
    with Store(sys.argv[1], create=False) as store:
        found = {
            "machine": prepared.subject.environment.hardware,
            "at": f"{datetime.now(UTC):%Y-%m-%d}",
            "torch": prepared.subject.environment.torch,
            "starts": starts(store),
            "launches": launches(store, prepared),
            "forecasts": forecasts(prepared),
        }
    Path(__file__).with_name("measured.json").write_text(json.dumps(found) + "\n")


def starts(store: Store) -> dict[str, Any]:
    """What the duel of AMD's promotion measured of starting and of one call, beside the reference's."""
    promotion = store.active("AMD")
    assert promotion is not None
    figures = promotion.figures
    assert figures.p50_ms
    assert figures.ratio
    return {
        "settings": promotion.settings.label,
        "cold_ms": figures.cold_start_ms,
        "warm_ms": figures.warm_start_ms,
        "p50_ms": figures.p50_ms,
        "reference_p50_ms": figures.p50_ms * figures.ratio.estimate,
    }


def launches(store: Store, prepared: Any) -> list[list[list[list[float]]]]:
    """Launches of the reference beside itself: launch, arm, block, call; milliseconds."""
    plan, taken = plan_measuring(prepared, profile=profile("production")), []
    with measuring(plan, store, seconds=600, say=print, say_steps=lambda _: None) as under_way:
        arms = equal_arms(plan.space.reference)
        for number in range(LAUNCHES):
            launch = under_way.runner.launch(arms, blocks=DuelPlan().blocks, seconds=60)
            ran = [arm for arm in launch.arms if isinstance(arm, ArmLaunch)]
            taken.append([[[round(ms, 4) for ms in block] for block in arm.blocks[0]] for arm in ran])
            print(f"launch {number + 1} of {LAUNCHES}")
    return taken


def forecasts(prepared: Any) -> dict[str, Any]:
    """Quantiles of eager fp32 and eager bf16 on the same windows and the same noise: seed, window, level, step."""
    shape, close = WORKLOAD.shapes[0], prepared.series.close
    origins = rolling_origins(
        len(close),
        last_fifth_start=prepared.series.last_fifth_start(),
        context=shape.context_length,
        prediction=shape.prediction_length,
        close=close,
    )
    found: dict[str, Any] = {
        "levels": LEVELS,
        "targets": [close[at : at + shape.prediction_length].tolist() for at in origins],
    }
    for precision in ("fp32", "bf16"):
        pipeline = TotoPipeline.from_pretrained(
            "toto-mini", settings=RuntimeSettings(precision=precision, num_threads=1)
        )
        found[precision] = [
            [
                pipeline.predict(
                    close[at - shape.context_length : at],
                    prediction_length=shape.prediction_length,
                    num_samples=shape.num_samples,
                    seed=seed,
                )
                .quantile(torch.tensor(LEVELS))[:, 0, 0]
                .tolist()
                for at in origins
            ]
            for seed in range(SEEDS)
        ]
    return found


if __name__ == "__main__":
    main()
