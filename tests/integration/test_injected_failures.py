"""Whole runs in which the fastest settings fail in every way there is: none ends the run, none wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotuner.commands.explain import explain
from autotuner.measurement.outcome import FAILURE_KINDS, Failed
from autotuner.measurement.process_runner import ProcessRunner
from autotuner.measurement.recorded import Recorded, ReplayTable
from autotuner.measurement.replay import ReplayRunner, TimingNoise
from autotuner.measurement.runner import Runner
from autotuner.search.profiles import profile
from autotuner.search.space import SearchSpace
from autotuner.store import Store
from autotuner.tuning.measuring import MeasuringPlan
from autotuner.tuning.request import TuneRequest
from autotuner.tuning.run import tune
from autotuner.workload import Workload
from tests.support.faulty_children import (
    EAT_MEMORY,
    HANG,
    NO_COMPILER,
    SEGFAULT,
    SHIFTED_FORECAST,
    by_recompile_limit,
    children_that,
)
from tests.support.process_runners import EAGER, process_runner
from toto_core.settings import RuntimeSettings

SYMBOLS = ("AAPL", "AMD", "BTCUSD", "ETHUSD", "GOOGL")
BF16 = EAGER.replace(precision="bf16")


class Quiet:
    """A listener that hears nothing."""

    def begin(self, *_: Any) -> None: ...

    def say(self, line: str) -> None: ...

    def trial(self, event: Any) -> None: ...

    def still_open(self, left_open: object) -> None: ...

    def looked(self, look: object) -> None: ...


def run_and_explain(
    symbol: str, keys: tuple[RuntimeSettings, ...], runner: Runner, folder: Path, *, seconds: float
) -> tuple[RuntimeSettings, Mapping[str, Any]]:
    """What a run promoted, and its explanation by settings label of what was ruled out."""
    plan = MeasuringPlan(space=SearchSpace.of(keys), make_runner=lambda _: runner)
    if isinstance(runner, ReplayRunner):
        plan = replace(plan, clock=runner.clock)
    request = TuneRequest(
        symbol=symbol, workload=Workload(), profile=profile("production"), seconds=seconds, chance=0.0
    )
    with Store(str(folder / "autotune.db")) as store:
        document = tune(request, store, Quiet(), plan)
        promotion = store.active(symbol)
        assert promotion is not None
        explained = explain(store, promotion, request.profile)
    assert document["settings"] == promotion.settings.to_dict()
    ruled_out = {
        RuntimeSettings.from_dict(entry["settings"]).label: entry for entry in explained["ruled_out"]
    }
    return promotion.settings, ruled_out


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_recorded_failures_never_end_a_run_never_win_and_are_named(symbol: str, tmp_path: Path) -> None:
    fast = Recorded(latency_ms=(1.0,), sigma_ms=(0.0,), cost_s=1.0)
    entries = {
        EAGER: replace(fast, latency_ms=(10.0,)),
        BF16: replace(fast, latency_ms=(8.0,)),
        EAGER.replace(recompile_limit=3): replace(fast, drift=0.4, quantile_shift=1.0),
    }
    for number, kind in enumerate(FAILURE_KINDS):
        failing = RuntimeSettings(compile_mode="default", recompile_limit=20 + number)
        entries[failing] = replace(fast, failure=Failed(kind=kind, detail=f"injected {kind}"))
    runner = ReplayRunner(ReplayTable(entries=entries, reference=EAGER), TimingNoise.none())
    chosen, ruled_out = run_and_explain(symbol, tuple(entries), runner, tmp_path, seconds=300.0)

    assert chosen == BF16
    assert {entry["kind"] for entry in ruled_out.values()} == {*FAILURE_KINDS, "limit"}
    assert len(ruled_out) == len(FAILURE_KINDS) + 1
    for entry in ruled_out.values():
        assert entry["kind"] == "limit" or f"injected {entry['kind']}" in entry["reasons"][0]


@pytest.mark.exhaustive
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_real_failures_never_end_a_run_never_win_and_are_named(
    symbol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {
        EAGER.replace(recompile_limit=3): ("timeout", HANG),
        EAGER.replace(recompile_limit=4): ("crashed", SEGFAULT),
        EAGER.replace(recompile_limit=5): ("out_of_memory", EAT_MEMORY),
        EAGER.replace(recompile_limit=6): ("limit", SHIFTED_FORECAST),
        EAGER.replace(compile_mode="default", recompile_limit=7): ("compile_error", NO_COMPILER),
    }
    actions = by_recompile_limit({key.recompile_limit: action for key, (_, action) in kinds.items()})
    children_that(actions, folder=tmp_path / "site", monkeypatch=monkeypatch, when="True")
    runner: ProcessRunner = process_runner(tmp_path, symbol=symbol, memory_bytes=2 << 30)
    chosen, ruled_out = run_and_explain(symbol, (EAGER, BF16, *kinds), runner, tmp_path, seconds=220.0)

    assert chosen in (EAGER, BF16)
    for key, (kind, _) in kinds.items():
        assert ruled_out[key.label]["kind"] == kind, ruled_out
