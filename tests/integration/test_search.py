from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import optuna
import psutil
import pytest

from autotuner.errors import AutotuneError, UsageError
from autotuner.machine.process import Owner
from autotuner.measurement.outcome import Failed, Measured, Outcome
from autotuner.measurement.recorded import ReplayTable, seed_table
from autotuner.measurement.replay import ReplayRunner, TimingNoise
from autotuner.search.profiles import PROFILES, Limits, Profile, seed_profile
from autotuner.search.search import Search, SearchPlan, SearchResult, TrialEvent
from autotuner.search.space import SearchSpace
from autotuner.workload import Workload
from tests.support import study_process
from tests.support.study_tables import SPACE, WORKLOAD, recorded, replay_table
from toto_core.settings import RuntimeSettings

ROOT = Path(__file__).parents[2]
SEED_RESULTS = ROOT / "tests" / "data" / "seed" / "results.csv"
PRODUCTION = PROFILES["production"]
BEST = RuntimeSettings(compile_mode="max-autotune", precision="bf16", num_threads=2)
BF16 = RuntimeSettings(precision="bf16", num_threads=2)


class Recorder:
    """Runs studies over the recorded table and keeps what was measured, in order."""

    def __init__(self, table: ReplayTable | None = None) -> None:
        self.runner = ReplayRunner(table or replay_table(), TimingNoise.none())
        self.events: list[TrialEvent] = []
        self.left_open: list[int] = []

    @property
    def measured(self) -> list[RuntimeSettings]:
        return [event.settings for event in self.events]

    def run(
        self,
        *,
        space: SearchSpace = SPACE,
        workload: Workload = WORKLOAD,
        profile: Profile = PRODUCTION,
        known: Mapping[RuntimeSettings, Outcome] | None = None,
        first: Sequence[RuntimeSettings] = (SPACE.reference,),
        trials: int = 8,
        seconds: float = 1e6,
        seed: int = 1,
        url: str | None = None,
        on_outcome: Callable[[TrialEvent], None] | None = None,
        seconds_for_trial: Callable[[RuntimeSettings, float], float] = lambda _, left: left,
        chance: float = 0.0,
        reserve: Callable[[float | None], float] = lambda _: 0.0,
    ) -> SearchResult:
        return Search(
            runner=self.runner,
            space=space,
            workload=workload,
            profile=profile,
            limits=Limits(),
            known=known or {},
            first=first,
            plan=SearchPlan(trials=trials, seconds=seconds, seed=seed, chance=chance),
            storage_url=url,
            study_name="AMD",
            on_outcome=on_outcome or self.events.append,
            clock=self.runner.clock,
            seconds_for_trial=seconds_for_trial,
            reserve=reserve,
            on_open=lambda left: self.left_open.append(left.configurations),
        ).run()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def trials(url: str) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(url)
    names = optuna.get_all_study_names(storage)
    found = [t for name in names for t in optuna.load_study(study_name=name, storage=storage).trials]
    storage.engine.dispose()
    return found


def measured_by_seed(seed: int) -> list[RuntimeSettings]:
    recorder = Recorder()
    recorder.run(trials=12, seed=seed)
    return recorder.measured


def test_the_first_settings_are_measured_first_and_in_order() -> None:
    recorder = Recorder()
    recorder.run(first=[SPACE.reference, BF16, BEST, BF16])

    assert recorder.measured[:3] == [SPACE.reference, BF16, BEST]


def test_a_study_ends_at_its_number_of_measurements_and_measures_none_twice() -> None:
    recorder = Recorder()
    result = recorder.run(trials=8)

    assert result.ended_because == "trials"
    assert (result.measured, result.failed, result.reused, result.total) == (8, {}, 0, 8)
    assert len(set(recorder.measured)) == len(recorder.measured) == 8
    assert set(result.outcomes) == set(recorder.measured) == {entry.settings for entry in result.ranked}


def test_a_study_ends_when_every_key_is_known_and_finds_the_best() -> None:
    recorder = Recorder()
    result = recorder.run(trials=1_000)

    assert result.ended_because == "exhausted"
    assert result.left_open is None
    assert recorder.left_open == [*range(len(SPACE.keys) - 1, 0, -1)]
    assert set(result.outcomes) == set(SPACE.keys)
    assert result.ranked[0].settings == BEST
    assert [entry.judged.feasible for entry in result.ranked] == sorted(
        (entry.judged.feasible for entry in result.ranked), reverse=True
    )
    frozen_bf16 = [e for e in result.ranked if e.settings.freezing and e.settings.precision == "bf16"]
    assert {entry.judged.feasible for entry in frozen_bf16} == {False}


def test_a_study_ends_when_no_other_settings_are_likely_to_win() -> None:
    slower = {
        key: dataclasses.replace(entry, latency_ms=(80.0 if key == SPACE.reference else 400.0,), drift=0.0)
        for key, entry in replay_table().entries.items()
    }
    recorder = Recorder(ReplayTable(entries=slower, reference=SPACE.reference))
    result = recorder.run(trials=1_000, chance=0.05)

    assert result.ended_because == "settled"
    assert result.ranked[0].settings == SPACE.reference
    assert 2 < result.measured < len(SPACE.keys) / 2


def test_a_study_ends_when_its_time_is_over() -> None:
    first = (SPACE.reference, BF16, BEST, SPACE.canonical(RuntimeSettings(compile_mode="default")))
    result = Recorder().run(first=first, seconds=35.0)

    assert result.ended_because == "seconds"
    assert result.measured == 3
    assert result.failed == {"timeout": 1}  # the fourth had 5 of its 10 seconds left


def test_a_trial_that_would_not_fit_into_the_time_left_is_not_begun() -> None:
    result = Recorder().run(first=(SPACE.reference, BF16, BEST), seconds=35.0)

    assert result.ended_because == "seconds"
    assert (result.measured, result.failed) == (3, {})
    assert result.left_open is not None
    assert result.left_open.configurations == len(SPACE.keys) - 3
    assert result.left_open.seconds > 0.0


def test_what_is_to_be_left_at_the_end_is_known_once_a_trial_told_what_a_start_takes() -> None:
    asked: list[float | None] = []

    def reserve(shortest: float | None) -> float:
        asked.append(shortest)
        return 30.0 if shortest is None else 3 * shortest

    first = (SPACE.reference, BF16, BEST, SPACE.canonical(RuntimeSettings(compile_mode="default")))
    result = Recorder().run(first=first, seconds=65.0, reserve=reserve)

    assert asked[0] is None
    assert set(asked) == {None, 10.0}
    assert (result.measured, result.ended_because) == (3, "seconds")


def test_a_study_without_time_or_trials_measures_nothing() -> None:
    assert Recorder().run(seconds=0.0).ended_because == "seconds"
    assert Recorder().run(trials=0).ended_because == "trials"


def test_a_trial_gets_the_seconds_it_is_allotted_and_no_more_than_are_left() -> None:
    asked: list[tuple[RuntimeSettings, float]] = []
    given: list[float] = []

    class Watching(ReplayRunner):
        def measure(
            self, settings: RuntimeSettings, *, seconds: float, beat: float | None = None, again: bool = False
        ) -> Outcome:
            given.append(seconds)
            return super().measure(settings, seconds=seconds)

    def allot(settings: RuntimeSettings, left: float) -> float:
        asked.append((settings, left))
        return 80.0

    recorder = Recorder()
    recorder.runner = Watching(replay_table(), TimingNoise.none())
    recorder.run(seconds=95.0, trials=3, seconds_for_trial=allot)

    assert [left for _, left in asked] == [95.0, 85.0, 75.0]
    assert given == [80.0, 80.0, 75.0]
    assert asked[0][0] == SPACE.reference


def test_a_trial_that_is_allotted_no_time_ends_the_study(url: str) -> None:
    recorder = Recorder()
    result = recorder.run(url=url, seconds_for_trial=lambda _, left: left - 1e6 + 15.0)

    assert result.ended_because == "seconds"
    assert [event.seconds for event in recorder.events] == [10.0, 5.0]
    assert {trial.state.name for trial in trials(url)} == {"COMPLETE", "FAIL"}


def test_the_same_seed_gives_the_same_sequence() -> None:
    assert measured_by_seed(1) == measured_by_seed(1)
    assert measured_by_seed(1) != measured_by_seed(2)


def test_the_sequence_is_the_same_in_memory_and_on_disk(url: str) -> None:
    recorder = Recorder()
    recorder.run(trials=6, seed=1, url=url)

    assert recorder.measured == measured_by_seed(1)[:6]


def test_known_outcomes_are_not_measured_again_and_count_as_reused() -> None:
    earlier = Recorder()
    known = earlier.run(trials=6).outcomes
    recorder = Recorder()
    result = recorder.run(known=known, trials=1_000)

    assert not set(recorder.measured) & set(known)
    assert (result.reused, result.measured) == (6, len(SPACE.keys) - 6)
    assert result.total == len(SPACE.keys)


def test_known_settings_are_recognised_by_their_canonical_form() -> None:
    outcome = Recorder().runner.measure(SPACE.reference, seconds=100.0)
    result = Recorder().run(known={RuntimeSettings(): outcome}, trials=1_000)

    assert result.reused == 1
    assert RuntimeSettings() not in result.outcomes


def test_what_is_known_teaches_the_sampler(url: str) -> None:
    known = Recorder().run(trials=1_000).outcomes
    Recorder().run(known=known, url=url)
    Recorder().run(known=known, url=url)
    told = trials(url)

    assert len(told) == len(SPACE.keys)
    assert {trial.state.name for trial in told} == {"COMPLETE"}
    assert any(trial.constraints["drift"] > 0 for trial in told)


def test_repeated_proposals_give_way_to_the_most_promising_unknown_key(url: str) -> None:
    known = Recorder().run(first=[BEST], trials=1, url=url).outcomes
    (name,) = optuna.get_all_study_names(url)
    study = optuna.load_study(study_name=name, storage=url)
    for _ in range(10):
        study.enqueue_trial(SPACE.values_of(BEST), user_attrs={"owner": Owner.current().to_dict()})
    recorder = Recorder()
    recorder.run(first=[], trials=2, url=url, known=known)

    assert len(set(recorder.measured)) == 2
    assert BEST not in recorder.measured


def test_settings_outside_the_space_are_measured_too() -> None:
    outside = RuntimeSettings(compile_mode="default", num_threads=7)
    entries = dict(replay_table().entries) | {outside: recorded(outside)}
    recorder = Recorder(ReplayTable(entries=entries, reference=SPACE.reference))
    result = recorder.run(first=[SPACE.reference, outside], trials=1_000)

    assert recorder.measured[1] == outside
    assert set(result.outcomes) == {*SPACE.keys, outside}


def test_failed_outcomes_are_failed_trials_without_a_value(url: str) -> None:
    broken = [key for key in SPACE.keys if key.compile_mode == "default"][:3]
    failure = Failed(kind="compile_error", detail="no compiler")
    entries = {
        key: dataclasses.replace(entry, failure=failure if key in broken else None)
        for key, entry in replay_table().entries.items()
    }
    recorder = Recorder(ReplayTable(entries=entries, reference=SPACE.reference))
    result = recorder.run(first=[SPACE.reference, *broken], trials=4, url=url)
    complete, *failed = trials(url)

    assert (result.measured, result.failed) == (1, {"compile_error": 3})
    assert {entry.settings for entry in result.ranked[1:]} == set(broken)
    assert complete.state.name == "COMPLETE"
    assert [(trial.state.name, trial.value) for trial in failed] == [("FAIL", None)] * 3
    assert {trial.user_attrs["ended"] for trial in failed} == {"compile_error: no compiler"}


def test_failures_do_not_keep_a_study_from_its_end() -> None:
    broken = {key for key in SPACE.keys if key.compiled}
    entries = {
        key: dataclasses.replace(entry, failure=Failed(kind="crashed") if key in broken else None)
        for key, entry in replay_table().entries.items()
    }
    result = Recorder(ReplayTable(entries=entries, reference=SPACE.reference)).run(trials=1_000)

    assert result.ended_because == "exhausted"
    assert result.failed == {"crashed": len(broken)}
    assert result.measured == len(SPACE.keys) - len(broken)


def test_infeasible_outcomes_are_told_with_their_constraints(url: str) -> None:
    frozen = RuntimeSettings(compile_mode="default", precision="bf16", freezing=True, num_threads=2)
    Recorder().run(first=[frozen, SPACE.reference], trials=2, url=url)
    infeasible, feasible = trials(url)

    assert infeasible.constraints["drift"] == pytest.approx(3.0)
    assert feasible.constraints == {"drift": -1.0, "quantile_shift": -1.0}
    assert feasible.value == pytest.approx(1.0)


def test_a_runner_that_raises_costs_one_trial_and_not_the_study() -> None:
    class Faulty(ReplayRunner):
        def measure(
            self, settings: RuntimeSettings, *, seconds: float, beat: float | None = None, again: bool = False
        ) -> Outcome:
            if settings == BF16:
                raise OSError("pipe\nbroken")
            return super().measure(settings, seconds=seconds)

    recorder = Recorder()
    recorder.runner = Faulty(replay_table(), TimingNoise.none())
    result = recorder.run(first=[SPACE.reference, BF16], trials=5)

    assert result.failed == {"crashed": 1}
    assert result.outcomes[BF16] == Failed(kind="crashed", detail="the runner raised OSError: pipe broken")
    assert result.measured == 4


def test_an_outcome_is_handed_over_before_the_study_is_told(url: str) -> None:
    states: list[str] = []
    recorder = Recorder()
    recorder.run(trials=2, url=url, on_outcome=lambda _: states.append(trials(url)[-1].state.name))

    assert states == ["RUNNING", "RUNNING"]


def test_an_interrupted_study_is_left_resumable(url: str) -> None:
    class Interrupted(ReplayRunner):
        def measure(
            self, settings: RuntimeSettings, *, seconds: float, beat: float | None = None, again: bool = False
        ) -> Outcome:
            if settings == BF16:
                raise KeyboardInterrupt
            return super().measure(settings, seconds=seconds)

    recorder = Recorder()
    recorder.runner = Interrupted(replay_table(), TimingNoise.none())
    with pytest.raises(KeyboardInterrupt):
        recorder.run(first=[SPACE.reference, BF16], url=url)
    complete, failed = trials(url)
    assert (complete.state.name, failed.state.name) == ("COMPLETE", "FAIL")
    assert failed.user_attrs["interrupted"] is True
    assert failed.user_attrs["ended"] == "interrupted by KeyboardInterrupt"

    again = Recorder()
    known = {event.settings: event.outcome for event in recorder.events}
    result = again.run(first=[SPACE.reference, BF16], known=known, url=url)
    assert again.measured[0] == BF16
    assert result.reused == 1


def test_an_outcome_that_cannot_be_stored_ends_the_study(url: str) -> None:
    def full(_: TrialEvent) -> None:
        raise AutotuneError("the disk is full")

    with pytest.raises(AutotuneError, match="the disk is full"):
        Recorder().run(url=url, on_outcome=full)
    assert [trial.state.name for trial in trials(url)] == ["FAIL"]


def test_the_same_study_goes_on_where_it_ended(url: str) -> None:
    first = Recorder()
    known = first.run(trials=3, url=url).outcomes
    second = Recorder()
    result = second.run(trials=3, url=url, known=known)

    assert list(result.outcomes) == [*first.measured, *second.measured]
    assert len(result.outcomes) == 6
    assert len(optuna.get_all_study_names(url)) == 1


def test_another_profile_measures_nothing_again_and_misleads_no_sampler(url: str) -> None:
    known = Recorder().run(trials=3, url=url).outcomes
    other = Recorder()
    other.run(profile=PROFILES["accuracy"], known=known, trials=2, url=url)

    assert len(other.measured) == 2
    assert not set(other.measured) & set(known)
    assert len(optuna.get_all_study_names(url)) == 2


def test_research_measures_the_reference_alone() -> None:
    recorder = Recorder()
    result = recorder.run(profile=PROFILES["research"], first=[BF16, BEST])

    assert recorder.measured == [SPACE.reference]
    assert result.ended_because == "exhausted"
    assert result.ranked[0].settings == SPACE.reference
    assert result.ranked[0].judged.feasible


def test_a_killed_study_loses_nothing_that_was_handed_over(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.study_process", str(tmp_path), "4"], cwd=ROOT
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "stuck").exists():
            assert process.poll() is None, "the study ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    before = study_process.stored(tmp_path)
    assert len(before) == 3
    assert [trial.state.name for trial in trials(url)].count("RUNNING") == 1

    result = study_process.run(tmp_path, ReplayRunner(replay_table(), TimingNoise.none()))

    assert result.reused == 3
    assert result.measured == 4
    assert len(result.outcomes) == 7
    after = trials(url)
    assert {trial.state.name for trial in after} == {"COMPLETE", "FAIL"}
    assert [t.user_attrs["ended"] for t in after if t.state.name == "FAIL"] == ["its process is gone"]


def test_only_trials_of_dead_processes_are_ended(url: str) -> None:
    mine = Owner.current()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    owners = {
        "alive": mine.to_dict(),
        "dead": dataclasses.replace(mine, pid=dead.pid).to_dict(),
        "another process with the same id": dataclasses.replace(mine, started=mine.started - 60).to_dict(),
        "another machine": dataclasses.replace(mine, host="elsewhere").to_dict(),
        "nonsense": {"pid": "x"},
        "none": None,
    }
    storage = optuna.storages.RDBStorage(url)
    study = optuna.create_study(storage=storage, study_name="AMD / earlier")
    for owner in owners.values():
        study.ask().set_user_attr("owner", owner)
    study.enqueue_trial({"x": 1}, user_attrs={"owner": owners["dead"]})
    unrelated = optuna.create_study(storage=storage, study_name="AMDX / earlier")
    unrelated.ask().set_user_attr("owner", owners["dead"])

    Recorder().run(url=url, trials=1)
    states = dict(zip((*owners, "queued by the dead"), (t.state.name for t in study.trials), strict=True))
    left = {trial.state.name for trial in unrelated.trials}
    storage.engine.dispose()

    assert states == {
        "alive": "RUNNING",
        "dead": "FAIL",
        "another process with the same id": "FAIL",
        "another machine": "RUNNING",
        "nonsense": "FAIL",
        "none": "FAIL",
        "queued by the dead": "FAIL",
    }
    assert left == {"RUNNING"}


def test_trials_of_another_machine_are_ended_after_a_day(url: str, tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(Owner.current(), host="elsewhere")
    storage = optuna.storages.RDBStorage(url)
    study = optuna.create_study(storage=storage, study_name="AMD / earlier")
    study.ask().set_user_attr("owner", elsewhere.to_dict())
    started = datetime.now() - timedelta(days=1, minutes=1)
    with contextlib.closing(sqlite3.connect(tmp_path / "studies.db")) as database, database:
        database.execute("UPDATE trials SET datetime_start = ?", (started.isoformat(" "),))

    Recorder().run(url=url, trials=1)
    states = [trial.state.name for trial in study.trials]
    storage.engine.dispose()

    assert states == ["FAIL"]


def test_a_process_that_was_killed_but_not_waited_for_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started = psutil.Process(child.pid).create_time()
    owner = dataclasses.replace(Owner.current(), pid=child.pid, started=started)
    assert owner.is_alive() is True
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)

    assert owner.is_alive() is False
    child.wait()


def test_a_damaged_study_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "studies.db").write_bytes(b"this is no database" * 100)

    with pytest.raises(
        AutotuneError, match=r"study AMD / .*: its database failed: .*not a database"
    ) as caught:
        Recorder().run(url=f"sqlite:///{tmp_path / 'studies.db'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["nonsense", "nothing://here", "mysql+nodriver://localhost/studies"])
def test_a_study_database_that_cannot_be_reached_is_one_clear_line(wrong: str) -> None:
    with pytest.raises(AutotuneError, match="its database failed: ") as caught:
        Recorder().run(url=wrong)
    assert "\n" not in str(caught.value)


def test_a_study_database_that_fails_under_way_keeps_what_was_handed_over(url: str, tmp_path: Path) -> None:
    recorder = Recorder()

    def store(event: TrialEvent) -> None:
        recorder.events.append(event)
        (tmp_path / "studies.db").write_bytes(b"")

    with pytest.raises(AutotuneError, match="its database failed"):
        recorder.run(url=url, on_outcome=store)
    assert recorder.measured == [SPACE.reference]


def test_the_search_leaves_the_verbosity_of_optuna_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    Recorder().run(trials=3)

    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "wrong", [{"trials": -1}, {"seconds": -1.0}, {"seconds": float("nan")}, {"repeats": 0}]
)
def test_an_impossible_plan_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="search: "):
        dataclasses.replace(SearchPlan(trials=1, seconds=1.0, seed=1), **wrong)  # type: ignore[arg-type]


SEED_CHOICES = [
    ("production", "BTCUSD", "max-autotune"),
    ("production", "ETHUSD", "reduce-overhead"),
    ("production", "AAPL", "reduce-overhead"),
    ("production", "GOOGL", "reduce-overhead"),
    ("production", "AMD", "max-autotune"),
    ("accuracy", "BTCUSD", "default"),
    ("accuracy", "ETHUSD", "default"),
    ("accuracy", "AAPL", "default"),
    ("accuracy", "GOOGL", "default"),
    ("accuracy", "AMD", "eager"),
]


@pytest.mark.parametrize(("name", "symbol", "expected"), SEED_CHOICES)
def test_the_recorded_comparison_gives_the_known_choices(name: str, symbol: str, expected: str) -> None:
    table = seed_table(SEED_RESULTS, symbol)
    result = Recorder(table).run(
        space=SearchSpace.of(table.entries),
        profile=seed_profile(PROFILES[name]),
        first=[RuntimeSettings()],
        trials=20,
    )

    assert result.ended_because == "exhausted"
    assert result.ranked[0].settings.compile_mode == expected
    assert all(isinstance(outcome, Measured) for outcome in result.outcomes.values())
