"""The sampler in plain Optuna studies, without any of this project's own search around it."""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from autotuner.search.gain_model import Tried
from autotuner.search.sampler import GainPerSecondSampler, distributions
from autotuner.search.space import SearchSpace, search_space
from autotuner.workload import Workload
from tests.support.study_tables import SPACE, recorded
from toto_core.settings import RuntimeSettings

GRIDS = Path(__file__).parents[2] / "benchmarks" / "results"
REFERENCE_MS = recorded(SPACE.reference).latency_ms[0]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def asked(trial: optuna.Trial, space: SearchSpace = SPACE) -> RuntimeSettings:
    """What an objective of one's own would do: suggest every parameter."""
    values: dict[str, Any] = {
        name: trial.suggest_categorical(name, choices) for name, choices in space.sampled.items()
    }
    key = space.key_of(values)
    assert key is not None
    return key


def objective(trial: optuna.Trial) -> float:
    entry = recorded(asked(trial))
    trial.set_constraint("drift", entry.drift - 0.01)
    trial.set_user_attr("seconds", entry.cost_s)
    return entry.latency_ms[0] / REFERENCE_MS


def tried(study: optuna.Study) -> list[RuntimeSettings | None]:
    return [SPACE.key_of(trial.params) for trial in study.trials]


def optimized(trials: int, seed: int = 0) -> optuna.Study:
    study = optuna.create_study(sampler=GainPerSecondSampler(SPACE, seed=seed))
    study.optimize(objective, n_trials=trials)
    return study


def test_a_plain_study_finds_the_best_and_tries_no_key_twice() -> None:
    found = tried(optimized(10))

    assert len(set(found)) == 10
    assert RuntimeSettings(compile_mode="max-autotune", precision="bf16", num_threads=2) in found


def test_a_study_that_asks_and_tells_gets_the_same_proposals() -> None:
    study = optuna.create_study(sampler=GainPerSecondSampler(SPACE, seed=0))
    for _ in range(10):
        trial = study.ask(distributions(SPACE))
        study.tell(trial, objective(trial))

    assert tried(study) == tried(optimized(10))


def test_every_key_is_tried_in_the_end_and_the_study_may_go_on() -> None:
    found = tried(optimized(2 * len(SPACE.keys)))

    assert set(found) == set(SPACE.keys)


def test_a_study_in_a_file_goes_on_as_if_it_had_not_ended(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    for trials in (4, 6):
        study = optuna.create_study(
            storage=url,
            study_name="plain",
            load_if_exists=True,
            sampler=GainPerSecondSampler(SPACE, seed=0),
        )
        study.optimize(objective, n_trials=trials)

    assert tried(study) == tried(optimized(10))


def test_tpe_draws_by_the_seed_until_it_is_reseeded() -> None:
    def drawn(*, reseed: bool) -> list[dict[str, Any]]:
        sampler = GainPerSecondSampler(SPACE, seed=5)
        if reseed:
            sampler.reseed_rng()
        study = optuna.create_study(sampler=sampler)
        return [study.ask(distributions(SPACE)).params for _ in range(8)]  # nothing is told: TPE's turn stays

    assert drawn(reseed=False) == drawn(reseed=False)
    assert drawn(reseed=False) != drawn(reseed=True)


def test_what_failed_is_not_proposed_again() -> None:
    def failing(trial: optuna.Trial) -> float:
        if asked(trial).compiled:
            raise RuntimeError("no compiler")
        return objective(trial)

    study = optuna.create_study(sampler=GainPerSecondSampler(SPACE, seed=0))
    study.optimize(failing, n_trials=10, catch=RuntimeError)

    assert len(set(tried(study))) == 10
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "FAIL"}


def test_what_is_known_elsewhere_is_not_proposed() -> None:
    known = {key: Tried(score=1.0) for key in SPACE.keys[:-9]}
    study = optuna.create_study(sampler=GainPerSecondSampler(SPACE, seed=0, known=known))
    study.enqueue_trial(SPACE.values_of(SPACE.keys[-1]))
    study.optimize(objective, n_trials=9)

    assert set(tried(study)) == set(SPACE.keys[-9:])


def test_only_what_fits_into_the_seconds_left_is_proposed() -> None:
    study = optuna.create_study(sampler=GainPerSecondSampler(SPACE, seed=0, seconds_left=lambda: 11.0))
    study.enqueue_trial(SPACE.values_of(SPACE.reference))
    study.optimize(objective, n_trials=4)

    assert not any(key.compiled for key in tried(study) if key)


def test_a_repeat_counts_as_no_news_and_keeps_what_the_first_trial_took() -> None:
    sampler = GainPerSecondSampler(SPACE, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=1)
    before = sampler.outlooks(study)
    study.enqueue_trial(study.trials[0].params)
    again = study.ask(distributions(SPACE))
    study.tell(again, study.trials[0].value)

    assert sampler.outlooks(study) == before


def test_what_a_trial_may_cost_depends_on_the_device() -> None:
    workload = Workload()
    space = search_space(workload, workload.facts(device="cuda", threads=2, patch_size=64))
    sampler = GainPerSecondSampler(space, seed=0)
    found = sampler.outlooks(optuna.create_study(sampler=sampler))

    seconds = {each.settings.compile_mode: each.seconds for each in found}
    assert seconds["default"] < seconds["reduce-overhead"] < seconds["max-autotune"]


def test_a_study_that_maximises_is_refused() -> None:
    study = optuna.create_study(direction="maximize", sampler=GainPerSecondSampler(SPACE))

    with pytest.raises(ValueError, match="minimise one value"):
        study.ask(distributions(SPACE))


@functools.cache
def grid(name: str) -> tuple[SearchSpace, dict[RuntimeSettings, Any]]:
    document = json.loads((GRIDS / f"grid-{name}-AMD.json").read_text(encoding="utf-8"))
    workload = Workload.from_dict(document["workload"])
    space = search_space(workload, workload.facts(device="cpu", threads=2, patch_size=64))
    return space, {RuntimeSettings.from_dict(entry["settings"]): entry for entry in document["entries"]}


def near_the_best(entry: dict[str, Any], entries: dict[RuntimeSettings, Any]) -> bool:
    usable = [each for each in entries.values() if "ratio" in each and each["drift"] <= 0.01]
    fastest = max(each["ratio"]["estimate"] for each in usable)
    return entry in usable and bool(entry["ratio"]["estimate"] >= fastest / 1.05)


def seconds_until_near(entries: dict[RuntimeSettings, Any], order: Iterable[RuntimeSettings]) -> float:
    """Recorded seconds until something within 5 % of the fastest was measured."""
    spent = 0.0
    for key in order:
        spent += float(entries[key]["cost_s"])
        if near_the_best(entries[key], entries):
            return spent
    raise AssertionError("the best was never measured")


def proposed(name: str, seed: int) -> Iterator[RuntimeSettings]:
    space, entries = grid(name)
    study = optuna.create_study(sampler=GainPerSecondSampler(space, seed=seed))
    study.enqueue_trial(space.values_of(space.reference))
    while True:
        trial = study.ask(distributions(space))
        key = asked(trial, space)
        yield key
        entry = entries[key]
        trial.set_user_attr("seconds", entry["cost_s"])
        trial.set_constraint("drift", entry["drift"] - 0.01)
        study.tell(trial, 1 / entry["ratio"]["estimate"])


@pytest.mark.parametrize("name", ["toto-mini", "big"])
def test_it_finds_the_best_of_a_recorded_grid_in_half_the_time_of_random_order(name: str) -> None:
    space, entries = grid(name)
    shuffled = (np.random.default_rng(seed).permutation(len(space.keys)) for seed in range(200))
    ours = [seconds_until_near(entries, proposed(name, seed)) for seed in range(3)]
    random = [seconds_until_near(entries, (space.keys[index] for index in order)) for order in shuffled]

    assert statistics.median(ours) < statistics.median(random) / 2
