"""A second symbol of the same workload signature takes over what the first one's duel proved, or searches itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotuner.measurement.recorded import Recorded, ReplayTable
from autotuner.measurement.replay import BESIDE, ReplayRunner, TimingNoise
from autotuner.report.run_view import run_lines
from autotuner.search.profiles import profile
from autotuner.store import Store
from autotuner.tuning.measuring import MeasuringPlan
from autotuner.tuning.request import TuneRequest
from autotuner.tuning.run import tune
from tests.support.study_tables import SPACE, WORKLOAD, replay_table
from toto_core.settings import RuntimeSettings

COMPILING, AGAIN = 30.0, 6.0


class Quiet:
    """A listener that hears nothing."""

    def begin(self, *_: Any) -> None: ...

    def say(self, line: str) -> None: ...

    def trial(self, event: Any) -> None: ...

    def still_open(self, left_open: object) -> None: ...

    def looked(self, look: object) -> None: ...


def table() -> ReplayTable:
    entries = {
        key: replace(entry, cost_s=COMPILING if key.compiled else AGAIN, again_s=AGAIN, start_ms=9000.0)
        for key, entry in replay_table().entries.items()
    }
    return ReplayTable(entries=entries, reference=SPACE.reference)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(str(tmp_path / "autotune.db")) as opened:
        yield opened


def run(
    store: Store, symbol: str, recorded: ReplayTable, *, cpus: int = 1, **changes: Any
) -> tuple[dict[str, Any], float]:
    """The document of one run, and the simulated seconds it took."""
    runner = ReplayRunner(recorded, TimingNoise(seed=len(symbol)), cpus=cpus)
    plan = MeasuringPlan(
        space=SPACE,
        make_runner=lambda _: runner,
        clock=runner.clock,
        holds=lambda settings: settings.compiled,
    )
    request = TuneRequest(symbol=symbol, workload=WORKLOAD, profile=profile("production"), seconds=600.0)
    document = tune(replace(request, **changes), store, Quiet(), plan)
    return document, runner.seconds_spent


def test_the_second_symbol_costs_a_fraction_and_names_whose_proof_it_rests_on(store: Store) -> None:
    first, first_seconds = run(store, "AMD", table())
    second, second_seconds = run(store, "AAPL", table())

    assert second["settings"] == first["settings"]
    assert RuntimeSettings.from_dict(second["settings"]).compiled
    assert second_seconds <= 0.15 * first_seconds
    assert (second["stage"], second["trials"]["ended_because"]) == ("shared", "shared")
    assert second["shared_from"]["symbol"] == "AMD"
    assert second["cold_start_ms"] == first["cold_start_ms"]
    assert "agrees with the duel of AMD" in "\n".join(run_lines(second))
    active = store.active("AAPL")
    assert active is not None
    assert active.settings == RuntimeSettings.from_dict(first["settings"])


def test_where_the_spot_check_disagrees_the_symbol_is_searched_for_itself(store: Store) -> None:
    first, _ = run(store, "AMD", table())
    won = RuntimeSettings.from_dict(first["settings"])
    slow = {
        key: replace(entry, latency_ms=(300.0,)) if key == won else entry
        for key, entry in table().entries.items()
    }
    second, _ = run(store, "AAPL", ReplayTable(entries=slow, reference=SPACE.reference))

    assert second["stage"] == "duel"
    assert second["settings"] != first["settings"]


def test_where_the_forecasts_of_the_other_symbol_drift_it_is_searched_for_itself(store: Store) -> None:
    first, _ = run(store, "AMD", table())
    won = RuntimeSettings.from_dict(first["settings"])
    drifting: dict[RuntimeSettings, Recorded] = {
        key: replace(entry, drift=0.5) if key == won else entry for key, entry in table().entries.items()
    }
    second, _ = run(store, "AAPL", ReplayTable(entries=drifting, reference=SPACE.reference))

    assert second["stage"] == "duel"
    assert RuntimeSettings.from_dict(second["settings"]) != won


@pytest.mark.parametrize("changes", [{"share": False}, {"reuse": False}, {"profile": profile("accuracy")}])
def test_nothing_is_taken_over_unasked_or_from_another_profile(store: Store, changes: dict[str, Any]) -> None:
    run(store, "AMD", table())
    second, _ = run(store, "AAPL", table(), **changes)

    assert second["stage"] == "duel"


def test_trials_whose_compilation_is_at_hand_do_not_compile_again(store: Store) -> None:
    first, first_seconds = run(store, "AMD", table())
    again, again_seconds = run(store, "AMD", table(), reuse=False, share=False)

    assert again_seconds < 0.75 * first_seconds
    assert again["cold_start_ms"] == first["cold_start_ms"] == 9000.0


def test_the_cold_start_of_what_is_promoted_is_measured_alone_where_time_is_left(store: Store) -> None:
    enough, _ = run(store, "AMD", table(), cpus=2, seconds=2000.0)
    little, _ = run(store, "AAPL", table(), cpus=2, seconds=0.1 * COMPILING * len(SPACE.keys), share=False)

    assert (enough["cold_start_ms"], enough.get("built_beside")) == (1000.0 * (COMPILING - AGAIN), None)
    assert little["built_beside"] == 1
    assert little["cold_start_ms"] == pytest.approx(1000.0 * BESIDE * (COMPILING - AGAIN))
    assert "(compiled beside 1 other)" in "\n".join(run_lines(little))


class Interrupted(ReplayRunner):
    """A runner that fails, or is interrupted, when a cold start is measured alone."""

    error: BaseException = OSError("No space left on device")

    def build(self, wanted: Any, *, seconds: float, apart: bool = False) -> Any:
        if apart:
            raise self.error
        return super().build(wanted, seconds=seconds)


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()], ids=repr)
def test_whatever_happens_to_the_cold_start_alone_the_verdict_is_stored(
    store: Store, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Interrupted, "error", error)
    monkeypatch.setattr(f"{__name__}.ReplayRunner", Interrupted)
    interrupted = isinstance(error, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt) if interrupted else nullcontext():
        run(store, "AMD", table(), cpus=2, seconds=2000.0)

    active = store.active("AMD")
    assert active is not None
    assert active.figures.built_beside == 1
    assert [each.status for each in store.records.runs()] == ["interrupted" if interrupted else "finished"]


def test_a_symbol_that_takes_over_compiles_nothing_for_its_cold_start(store: Store) -> None:
    first, _ = run(store, "AMD", table(), cpus=2, seconds=2000.0)
    second, seconds = run(store, "AAPL", table(), cpus=2, seconds=2000.0)

    assert second["stage"] == "shared"
    assert seconds < COMPILING
    assert (second["cold_start_ms"], second.get("built_beside")) == (first["cold_start_ms"], None)


def test_a_champion_that_breaks_a_limit_goes_even_if_nothing_is_faster(store: Store) -> None:
    first, _ = run(store, "AMD", table())
    won = RuntimeSettings.from_dict(first["settings"])
    drifting: dict[RuntimeSettings, Recorded] = {
        key: replace(entry, drift=0.5) if key == won else entry for key, entry in table().entries.items()
    }
    second, _ = run(store, "AMD", ReplayTable(entries=drifting, reference=SPACE.reference), reuse=False)

    assert second["promoted"]
    assert RuntimeSettings.from_dict(second["settings"]) != won
    assert second["decision"]["reason"].startswith(f"The champion {won.label} breaks a limit (drift of 50")
    active = store.active("AMD")
    assert active is not None
    assert active.settings != won
