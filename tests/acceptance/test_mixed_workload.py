"""A mix of request shapes, where recompile limit and bucket change what is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autotuner.bench import Bench, effective_cost
from autotuner.measurement.process_runner import ProcessRunner, RunnerLimits
from autotuner.measurement.runner import Runner
from autotuner.measurement.trial import Failed, Measured
from autotuner.persistence import Store
from autotuner.search.objective import profile
from autotuner.search.space import SearchSpace, search_space
from autotuner.session import TuneRequest, tune
from autotuner.workload import Workload, read_workload
from tests.support.listening import Silent
from tests.support.tiny_model import TINY, save_tiny_model
from toto_core.series import find_series
from toto_core.settings import RuntimeSettings

MIX = """
model = "{model}"

[[requests]]
context_length = 64
prediction_length = 4
num_samples = 32

[[requests]]
context_length = 128
prediction_length = 8
num_samples = 32

[[requests]]
context_length = 256
prediction_length = 4
num_samples = 32
weight = 2.0
"""
EAGER = RuntimeSettings(num_threads=1)
LIMITED = EAGER.replace(compile_mode="default", recompile_limit=2)
EXACT = EAGER.replace(compile_mode="default")
BUCKETED = EAGER.replace(compile_mode="default", context_bucket=256)


def _bench(workload: Workload, folder: Path) -> Bench:
    series = find_series("AMD", None)
    production = profile("production")

    def runner(_: object) -> Runner:
        return ProcessRunner(
            workload=workload,
            close=series.close,
            last_fifth_start=series.last_fifth_start(),
            device="cpu",
            reference=EAGER,
            cost=effective_cost(workload, production),
            limits=RunnerLimits(blocks=8, memory_bytes=4 << 30),
            caches=folder / "caches",
        )

    return Bench(space=SearchSpace.of((EAGER, LIMITED, EXACT, BUCKETED)), make_runner=runner)


def test_recompile_limit_and_bucket_change_the_outcome_and_the_study_finds_it(tmp_path: Path) -> None:
    mix = tmp_path / "mix.toml"
    mix.write_text(MIX.format(model=save_tiny_model(tmp_path / "model")))
    workload = read_workload(mix)
    request = TuneRequest(symbol="AMD", workload=workload, profile=profile("production"), seconds=240.0)
    listener = Silent()
    with Store(str(tmp_path / "autotune.db")) as store:
        document = tune(request, store, listener, _bench(workload, tmp_path))

    outcomes = listener.outcomes
    limited, exact, bucketed = outcomes[LIMITED], outcomes[EXACT], outcomes[BUCKETED]
    assert isinstance(limited, Failed)
    assert limited.kind == "not_compiled"
    assert "recompile limit" in limited.detail
    assert isinstance(exact, Measured)
    assert isinstance(bucketed, Measured)
    # three contexts with two horizons are three graphs; in one bucket only the horizons differ
    assert (exact.report.graphs, bucketed.report.graphs) == (3, 2)
    assert bucketed.cold_start_ms < exact.cold_start_ms
    assert np.isclose(bucketed.accuracy.mae, exact.accuracy.mae, rtol=1e-4)
    assert document["settings"]["compile_mode"] == "default"
    assert document["settings"]["recompile_limit"] != 2
    assert document["trials"]["failed"] == {"not_compiled": 1}


def test_the_space_of_a_mix_offers_limits_and_buckets_and_that_of_one_shape_does_not(tmp_path: Path) -> None:
    mix = tmp_path / "mix.toml"
    mix.write_text(MIX.format(model="toto-mini"))
    facts = {"device": "cpu", "threads": 2, "patch_size": TINY.patch_size}
    mixed = read_workload(mix)
    many = search_space(mixed, mixed.facts(**facts))  # type: ignore[arg-type]
    one = search_space(Workload(), Workload().facts(**facts))  # type: ignore[arg-type]
    assert len({key.context_bucket for key in many.keys}) > 1
    assert len({key.recompile_limit for key in many.keys}) > 1
    assert {key.context_bucket for key in one.keys} == {0}
    assert len({key.recompile_limit for key in one.keys}) == 1
