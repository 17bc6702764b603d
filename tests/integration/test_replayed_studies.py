"""Whole studies with their duels over recorded tables with noise; benchmarks/search.py runs a thousand of each."""

from __future__ import annotations

from dataclasses import replace

from autotuner.commands.replay import Replayed, replayed_decision
from autotuner.measurement.recorded import ReplayTable
from autotuner.measurement.replay import TimingNoise
from autotuner.search.profiles import profile
from autotuner.workload import Workload
from tests.support.study_tables import SPACE, WORKLOAD, replay_table
from toto_core.settings import RuntimeSettings

TABLE = replay_table()
STUDIES = 8


def replayed(
    table: ReplayTable,
    seed: int,
    champion: RuntimeSettings | None = None,
    *,
    workload: Workload = WORKLOAD,
) -> Replayed:
    return replayed_decision(
        table,
        TimingNoise(seed=seed),
        space=SPACE,
        workload=workload,
        profile=profile("production"),
        seconds=900.0,
        seed=seed,
        champion=champion,
    )


def true_ms(settings: RuntimeSettings) -> float:
    return TABLE.entries[settings].latency_ms[0]


def best_ms() -> float:
    return min(entry.latency_ms[0] for entry in TABLE.entries.values() if entry.drift <= 0.01)


def test_what_is_promoted_is_within_five_percent_of_the_best() -> None:
    for seed in range(STUDIES):
        decision = replayed(TABLE, seed).decision
        assert decision.promoted
        assert true_ms(decision.settings) <= 1.05 * best_ms(), decision.reason


def test_among_equals_no_challenger_replaces_the_champion() -> None:
    flat = ReplayTable(
        entries={key: replace(entry, latency_ms=(50.0,), drift=0.0) for key, entry in TABLE.entries.items()},
        reference=TABLE.reference,
    )
    champion = next(key for key in SPACE.keys if key.compiled)
    for seed in range(STUDIES):
        decision = replayed(flat, seed, champion).decision
        assert not decision.promoted, decision.reason
        assert decision.settings == champion


def test_what_is_worse_than_the_champion_does_not_replace_it() -> None:
    champion = min((key for key in SPACE.keys if TABLE.entries[key].drift <= 0.01), key=true_ms)
    for seed in range(STUDIES):
        assert not replayed(TABLE, seed, champion).decision.promoted


def test_a_process_of_few_calls_runs_eager_and_one_of_many_compiled() -> None:
    slow_start = ReplayTable(
        entries={
            key: replace(entry, start_ms=60_000.0 if key.compiled else 0.0)
            for key, entry in TABLE.entries.items()
        },
        reference=TABLE.reference,
    )
    # Eager saves at best 80 - 48 ms a call to bf16; compiled at best 51 ms, paid back after about 2,700 calls.
    few, many = (
        replayed(slow_start, 0, workload=replace(WORKLOAD, calls_per_process=calls)).decision.settings
        for calls in (300, 1_000_000)
    )

    assert not few.compiled
    assert many.compiled
