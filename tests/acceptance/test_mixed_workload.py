"""A mix of request shapes, where recompile limit and bucket change what is measured."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from autotuner.measurement.outcome import Failed, Measured, Outcome
from autotuner.measurement.process_runner import ProcessRunner, RunnerLimits
from autotuner.search.profiles import Limits, profile
from autotuner.search.search import Search, SearchPlan
from autotuner.search.space import SearchSpace, search_space
from autotuner.tuning.measuring import effective_cost
from autotuner.workload import Workload, read_workload
from tests.support.tiny_model import TINY, save_tiny_model
from toto_core.series import find_series
from toto_core.settings import RuntimeSettings

MIX = """
model = "{model}"
calls_per_process = 1000000

[[requests]]
context_length = 64
prediction_length = 4
num_samples = 0

[[requests]]
context_length = 256
prediction_length = 4
num_samples = 0
weight = 2.0
"""
MORE = """
[[requests]]
context_length = 128
prediction_length = 8
num_samples = 0
"""
EAGER = RuntimeSettings(num_threads=1)
LIMITED = EAGER.replace(compile_mode="default", recompile_limit=1)
EXACT = EAGER.replace(compile_mode="default")
BUCKETED = EAGER.replace(compile_mode="default", context_bucket=256)


# Three contexts are three graphs, and in one bucket a single one; the second horizon is one more.
TWO_SHAPES: tuple[str, tuple[RuntimeSettings, ...], dict[RuntimeSettings, int]] = (MIX, (EAGER, LIMITED), {})
THREE_SHAPES = (MIX + MORE, (EAGER, LIMITED, EXACT, BUCKETED), {EXACT: 3, BUCKETED: 2})


def _runner(workload: Workload, folder: Path) -> ProcessRunner:
    series = find_series("AMD", None)
    return ProcessRunner(
        workload=workload,
        close=series.close,
        last_fifth_start=series.last_fifth_start(),
        device="cpu",
        reference=EAGER,
        cost=effective_cost(workload, profile("production")),
        limits=RunnerLimits(blocks=8, memory_bytes=4 << 30),
        caches=folder / "caches",
    )


@pytest.mark.slow
@pytest.mark.exhaustive  # the suite reaches a limit in a process of production, and a bucket in two hundred requests
@pytest.mark.parametrize(("mix", "keys", "graphs"), [TWO_SHAPES, THREE_SHAPES])
def test_recompile_limit_and_bucket_change_the_outcome_and_the_study_finds_it(
    mix: str, keys: tuple[RuntimeSettings, ...], graphs: dict[RuntimeSettings, int], tmp_path: Path
) -> None:
    file = tmp_path / "mix.toml"
    file.write_text(mix.format(model=save_tiny_model(tmp_path / "model")))
    workload = read_workload(file)
    runner = _runner(workload, tmp_path)
    try:
        study = Search(
            runner=runner,
            space=SearchSpace.of(keys),
            workload=workload,
            profile=profile("production"),
            limits=Limits(),
            known={},
            first=[],
            plan=SearchPlan(trials=len(keys), seconds=280.0, seed=0),
            storage_url=None,
            study_name="mixed",
            on_outcome=lambda _: None,
            clock=time.monotonic,
            seconds_for_trial=lambda _, left: left,
        ).run()
    finally:
        runner.close()

    limited = study.outcomes[LIMITED]
    assert isinstance(limited, Failed)
    assert limited.kind == "not_compiled"
    assert "recompile limit" in limited.detail
    assert study.failed == {"not_compiled": 1}
    measured = {key: study.outcomes[key] for key in graphs}
    assert {key: _graphs(outcome) for key, outcome in measured.items()} == graphs
    assert study.ranked[0].settings in (graphs or {EAGER})
    if EXACT in measured:
        exact, bucketed = measured[EXACT], measured[BUCKETED]
        assert isinstance(exact, Measured)
        assert isinstance(bucketed, Measured)
        assert bucketed.start_ms < exact.start_ms
        assert np.isclose(bucketed.accuracy.mae, exact.accuracy.mae, rtol=1e-4)


def _graphs(outcome: Outcome) -> int | None:
    return outcome.report.graphs if isinstance(outcome, Measured) else None


def test_the_space_of_a_mix_offers_limits_and_buckets_and_that_of_one_shape_does_not(tmp_path: Path) -> None:
    mix = tmp_path / "mix.toml"
    mix.write_text((MIX + MORE).format(model="toto-mini"))
    facts = {"device": "cpu", "threads": 2, "patch_size": TINY.patch_size}
    mixed = read_workload(mix)
    many = search_space(mixed, mixed.facts(**facts))  # type: ignore[arg-type]
    one = search_space(Workload(), Workload().facts(**facts))  # type: ignore[arg-type]
    assert len({key.context_bucket for key in many.keys}) > 1
    assert len({key.recompile_limit for key in many.keys}) > 1
    assert {key.context_bucket for key in one.keys} == {0}
    assert len({key.recompile_limit for key in one.keys}) == 1
