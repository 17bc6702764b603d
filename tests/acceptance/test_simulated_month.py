"""A month of the daemon's ticks in simulated time, over a real store, spool, price files and model folder."""

from __future__ import annotations

import itertools
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from autotuner.commands.recheck import keep, nothing_measured
from autotuner.daemon import intake
from autotuner.daemon.config import Config, DaemonConfig, SymbolConfig
from autotuner.daemon.measuring_child import Tuned
from autotuner.daemon.quiet import parse_quiet
from autotuner.daemon.schedule import parse_zone
from autotuner.daemon.tick import Ticker
from autotuner.environment import Environment, current_environment
from autotuner.paths import spool_folder
from autotuner.serving.spool import Labels, Note, Quarantine, write_note
from autotuner.serving.telemetry import Counts
from autotuner.store import Promotion, Store
from autotuner.tuning.measuring import prepare
from autotuner.workload import Workload
from storage.records import RunRecord
from tests.support.notes import insert, unreadable
from tests.support.outcomes import measured, timing
from toto_core.model_files import locate
from toto_core.series import find_series
from toto_core.settings import RuntimeSettings

BEGIN = datetime(2026, 5, 4, 0, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SYMBOLS = ("AMD", "AAPL")
RUN_SECONDS = 300.0
RECHECK_TAKES = 15.0
QUIET = ("13:00-20:00 mon-fri",)
SETTINGS = tuple(RuntimeSettings(compile_mode="default", num_threads=n) for n in range(1, 60))


@dataclass(kw_only=True)
class World:
    """The simulated machine: a clock, an environment, and runs that promote another settings each time."""

    store: Store
    data: Path
    model: Path
    clock: datetime = BEGIN
    surroundings: Environment = field(default_factory=current_environment)
    busy: float = 0.1
    log: list[tuple[datetime, str, dict[str, Any]]] = field(default_factory=list)
    settings: Iterator[RuntimeSettings] = field(default_factory=lambda: iter(SETTINGS))
    drifting: set[str] = field(default_factory=set)
    """Symbols whose settings break their drift budget on the prices that are there now."""
    failing: set[str] = field(default_factory=set)
    """Symbols whose rechecks come to nothing."""
    stubborn: set[str] = field(default_factory=set)
    """Symbols for which runs find nothing better."""

    def now(self) -> datetime:
        return self.clock

    def load(self) -> float:
        return self.busy

    def environment(self) -> Environment:
        return self.surroundings

    def stopping(self) -> bool:
        return False

    def tune(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        symbol, because = (arguments[list(arguments).index(name) + 1] for name in ("--symbol", "--because"))
        assert seconds >= RUN_SECONDS
        workload = Workload(model=str(self.model))
        prepared = prepare(symbol, workload, data=self.data, device="cpu")
        subject = replace(prepared.subject, environment=self.surroundings)
        self.store.remember(subject, prepared.series)
        run_id, settings = str(uuid.uuid4()), next(self.settings)
        self.store.records.start_run(
            RunRecord(
                run_id=run_id,
                symbol=symbol,
                workload_signature=workload.signature,
                environment_fingerprint=subject.environment.fingerprint,
                profile="production",
                seed=0,
                started_at=self.clock,
                owner_pid=1,
                owner_started=1.0,
                study_name="simulated",
            )
        )
        self.store.record(subject, run_id, settings, measured(timing(1.0)), "search")
        self.clock += timedelta(seconds=RUN_SECONDS)
        self.store.records.finish_run(run_id, "finished", self.clock)
        if symbol in self.stubborn:
            return Tuned(document={"promoted": False, "decision": {"verdict": "same", "reason": "simulated"}})
        ratio = {"estimate": 2.0, "low": 1.9, "high": 2.1}
        self.store.promote(
            Promotion(
                symbol=symbol,
                profile="production",
                workload=workload,
                environment=self.surroundings,
                settings=settings,
                verdict="better",
                reason="simulated",
                evidence={"stage": "duel", "ratio": ratio, "p50_ms": 1.0, "p99_ms": 2.0, "because": because},
                promoted_at=self.clock,
                run_id=run_id,
            )
        )
        return Tuned(document={"promoted": True, "decision": {"verdict": "better", "reason": "simulated"}})

    def recheck(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        symbol = arguments[0]
        active = self.store.active(symbol)
        assert active is not None
        begun, self.clock = self.clock, self.clock + timedelta(seconds=RECHECK_TAKES)
        if symbol in self.failing:
            return Tuned(document=None, cause="out of memory")
        found = replace(
            nothing_measured(active, "", begun, self.clock),
            series_digest=find_series(symbol, self.data).digest,
            broken=("drift 2% above 1%",) if symbol in self.drifting else (),
            drift=0.02 if symbol in self.drifting else 0.001,
            quantile_shift=0.0,
            drift_budget=0.01,
            failed=None,
        )
        keep(self.store, found)
        return Tuned(document={"symbol": symbol, "kept": found.kept})

    def note(self, event: str, **fields: Any) -> None:
        self.log.append((self.clock, event, fields))

    def spool(self, symbol: str, *, milliseconds: float = 1.0, calls: int = 100, recompiles: int = 0) -> None:
        """What a process that runs the symbol's active settings leaves in an hour."""
        active = self.store.active(symbol)
        assert active is not None
        counted = Counts(begun=self.clock - HOUR / 2, recompiles=recompiles)
        for _ in range(calls):
            counted.count(milliseconds, (512, 8, 256))
        self.leave(counted.window(labels_of(active), self.clock))

    def fail(self, active: Promotion) -> None:
        """What a process leaves in which ``active``'s settings fail."""
        self.leave(Quarantine(**vars(labels_of(active)), reason="no compiler", failed_at=self.clock))

    def leave(self, note: Note) -> None:
        write_note(spool_folder(self.store.location), f"note-{uuid.uuid4()}.json", note)


def labels_of(active: Promotion) -> Labels:
    return Labels(
        symbol=active.symbol,
        settings_key=active.settings.key,
        environment_fingerprint=active.environment.fingerprint,
    )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    data, model = tmp_path / "prices", tmp_path / "model"
    data.mkdir()
    shutil.copytree(locate("toto-mini"), model)
    for symbol in SYMBOLS:
        write_prices(data, symbol, 1500)
    with Store(str(tmp_path / "autotune.db")) as store:
        yield World(store=store, data=data, model=model)


def write_prices(folder: Path, symbol: str, points: int) -> None:
    series = find_series(symbol, None)
    rows = zip(series.timestamps[:points], series.close[:points], strict=True)
    lines = [f"{stamp}Z,{close}" for stamp, close in rows]
    (folder / f"{symbol}.csv").write_text("\n".join(["timestamp,close", *lines]))


def ticker(world: World, *, budget: float = 3600.0) -> Ticker:
    daemon = DaemonConfig(
        quiet=QUIET, run_seconds=RUN_SECONDS, budget_seconds_per_day=budget, load_ceiling=0.8, max_age_days=7
    )
    config = Config(daemon=daemon, defaults=SymbolConfig(data=world.data, profile="production"))
    zone = parse_zone("UTC")
    return Ticker(
        store=world.store,
        config=config,
        symbols=SYMBOLS,
        quiet=tuple(parse_quiet(text, zone) for text in QUIET),
        machine=world,
        log=world.note,
    )


def tuned(world: World) -> list[tuple[float, str, str]]:
    """When (in days), which symbol and why, for every run."""
    return [
        ((at - BEGIN) / DAY, fields["symbol"], fields["reason"])
        for at, event, fields in world.log
        if event == "tuning"
    ]


def rechecked(world: World) -> list[str]:
    return [fields["symbol"] for _, event, fields in world.log if event == "rechecked"]


def pass_time(
    world: World, days: float, *, budget: float = 3600.0, latency: dict[str, float] | None = None
) -> None:
    """Tick every two hours, with telemetry of both symbols."""
    end = world.clock + days * DAY
    while world.clock < end:
        for symbol in SYMBOLS:
            if world.store.active(symbol) is not None:
                world.spool(symbol, milliseconds=(latency or {}).get(symbol, 1.0))
        hour = world.clock
        ticker(world, budget=budget).tick()
        world.clock = max(world.clock, hour + 2 * HOUR)


def test_a_month_in_which_every_trigger_fires_for_its_reason_and_no_other(world: World) -> None:
    pass_time(world, 3)
    assert [(symbol, why) for _, symbol, why in tuned(world)] == [
        ("AAPL", "never tuned"),
        ("AMD", "never tuned"),
    ]

    world.log.clear()
    world.surroundings = replace(world.surroundings, torch="2.14.0")
    pass_time(world, 1)
    assert sorted(symbol for _, symbol, _ in tuned(world)) == ["AAPL", "AMD"]
    assert all("torch: " in why for *_, why in tuned(world))

    world.log.clear()
    pass_time(world, 2)
    pass_time(
        world, 0.5, latency={"AMD": 3.0}
    )  # long after its promotion: a reason to tune, not to roll back
    assert [(symbol, why.split(" of ")[0]) for _, symbol, why in tuned(world)] == [("AMD", "live p50")]

    world.log.clear()
    pass_time(world, 2)
    assert tuned(world) == []
    write_prices(world.data, "AAPL", 2100)
    pass_time(world, 0.25)
    assert [(symbol, why) for _, symbol, why in tuned(world)] == [
        ("AAPL", "the series grew past 2,048 points (from 1,024)")
    ]

    world.log.clear()
    pass_time(world, 2)
    world.spool("AMD", recompiles=2)
    pass_time(world, 0.25)
    assert [symbol for _, symbol, _ in tuned(world)] == ["AMD"]
    assert "2 recompiles" in tuned(world)[0][2]

    world.log.clear()
    pass_time(world, 2)
    (world.model / "config.json").write_text((world.model / "config.json").read_text() + "\n")
    pass_time(world, 1)
    assert {symbol for _, symbol, _ in tuned(world)} == set(SYMBOLS)
    assert all("the model changed" in why for *_, why in tuned(world))

    world.log.clear()
    write_prices(world.data, "AMD", 1550)
    pass_time(world, 1)
    assert rechecked(world) == ["AMD"]
    assert tuned(world) == []
    write_prices(world.data, "AMD", 1600)
    world.drifting.add("AMD")
    pass_time(world, 2)
    assert [(symbol, why) for _, symbol, why in tuned(world)] == [
        ("AMD", "on fresh prices: drift 2% above 1%")
    ]
    assert [fields["symbol"] for _, event, fields in world.log if event == "rolled_back"] == ["AMD"]
    assert rechecked(world) == ["AMD", "AMD"]

    world.log.clear()
    world.drifting.clear()
    pass_time(world, 2)
    for _ in range(40):
        active = world.store.active("AAPL")
        assert active is not None
        world.leave(strange_counts(world.clock).window(labels_of(active), world.clock))
    pass_time(world, 0.25)
    assert [symbol for _, symbol, _ in tuned(world)] == ["AAPL"]
    assert "most of them 256/64/16" in tuned(world)[0][2]

    world.log.clear()
    pass_time(world, 12)
    assert {(symbol, why) for _, symbol, why in tuned(world)} == {
        (symbol, "last tuned 7 days ago") for symbol in SYMBOLS
    }
    assert (world.clock - BEGIN) > 28 * DAY


def strange_counts(clock: datetime) -> Counts:
    counts = Counts(begun=clock - HOUR / 2)
    for _ in range(100):
        counts.count(1.0, (256, 64, 16))
    return counts


def test_settings_that_fail_in_production_are_taken_back_at_once(world: World) -> None:
    pass_time(world, 2)
    active = world.store.active("AMD")
    assert active is not None
    world.fail(active)
    world.log.clear()
    pass_time(world, 0.1)

    (rolled_back,) = [fields for _, event, fields in world.log if event == "rolled_back"]
    assert (rolled_back["symbol"], "no compiler" in rolled_back["reason"]) == ("AMD", True)
    now = world.store.active("AMD")
    assert now is None or now.settings != active.settings


def test_a_new_promotion_that_is_slow_in_production_is_rolled_back_to_the_one_before(world: World) -> None:
    pass_time(world, 2)
    first = world.store.active("AMD")
    world.surroundings = replace(world.surroundings, driver="new")
    pass_time(world, 0.3)
    world.surroundings = current_environment()
    second = world.store.active("AMD")
    assert first is not None
    assert second is not None
    assert second.settings != first.settings
    world.log.clear()
    pass_time(world, 0.3, latency={"AMD": 5.0})

    assert "AMD" in [fields["symbol"] for _, event, fields in world.log if event == "rolled_back"]


def test_quiet_windows_budgets_and_rests_hold_over_a_week_of_trouble(world: World) -> None:
    budget = 2 * RUN_SECONDS
    for day in range(7):
        world.surroundings = replace(world.surroundings, torch=f"2.{day}")
        pass_time(world, 1, budget=budget)
    runs = world.store.records.runs()
    zone = parse_zone("UTC")
    quiet = [parse_quiet(text, zone) for text in QUIET]

    assert len(runs) > 7
    assert not [run for run in runs if any(window.holds(run.started_at) for window in quiet)]
    for run in runs:
        day_before = [r for r in runs if run.started_at - DAY < r.started_at <= run.started_at]
        assert len(day_before) * RUN_SECONDS <= budget
    for symbol in SYMBOLS:
        starts = [run.started_at for run in runs if run.symbol == symbol]
        assert all(late - early >= timedelta(hours=6) for early, late in itertools.pairwise(starts))


def test_what_tuning_does_not_cure_is_tried_ever_more_rarely(world: World) -> None:
    pass_time(world, 2)
    world.stubborn.add("AMD")
    world.log.clear()
    pass_time(world, 6, latency={"AMD": 3.0})
    times = [day for day, symbol, _ in tuned(world) if symbol == "AMD"]
    rests = [late - early for early, late in itertools.pairwise(times)]

    assert len(times) == 4
    assert all(rest >= least for rest, least in zip(rests, (0.5, 1.0, 2.0), strict=True))


def test_a_promotion_that_runs_keep_confirming_is_not_tuned_every_day_for_its_age(world: World) -> None:
    pass_time(world, 2)
    world.stubborn.update(SYMBOLS)
    world.log.clear()
    pass_time(world, 14)

    assert 2 <= len([symbol for _, symbol, _ in tuned(world) if symbol == "AMD"]) <= 3


def test_nothing_is_measured_while_others_keep_the_machine_busy(world: World) -> None:
    world.busy = 1000.0
    pass_time(world, 2)

    assert tuned(world) == []
    assert [event for _, event, _ in world.log].count("held") > 5
    world.busy = 0.1
    pass_time(world, 0.5)
    assert {symbol for _, symbol, _ in tuned(world)} == set(SYMBOLS)


def test_rechecks_keep_to_quiet_windows_and_their_interval_and_can_be_switched_off(world: World) -> None:
    pass_time(world, 2)
    for day in range(5):
        write_prices(world.data, "AMD", 1510 + 10 * day)
        pass_time(world, 1)
    times = [at for at, event, _ in world.log if event == "rechecked"]
    quiet = [parse_quiet(text, parse_zone("UTC")) for text in QUIET]

    assert 4 <= len(times) <= 5
    assert not [at for at in times if any(window.holds(at) for window in quiet)]
    assert all(late - early >= DAY for early, late in itertools.pairwise(times))

    off = ticker(world)
    daemon = off.config.daemon.model_copy(update={"recheck_hours": 0.0})
    write_prices(world.data, "AMD", 1700)
    world.clock += 3 * DAY
    replace(off, config=off.config.model_copy(update={"daemon": daemon})).tick()
    assert len(rechecked(world)) == len(times)


def test_a_recheck_that_fails_is_not_tried_again_at_every_tick_and_takes_nothing_back(world: World) -> None:
    pass_time(world, 2)
    before = world.store.active("AMD")
    write_prices(world.data, "AMD", 1550)
    world.failing.add("AMD")
    world.log.clear()
    pass_time(world, 2)

    assert 2 <= [event for _, event, _ in world.log].count("failed") <= 3
    assert world.store.active("AMD") == before


def test_a_daily_tick_rechecks_daily(world: World) -> None:
    pass_time(world, 1)
    for day in range(4):
        write_prices(world.data, "AMD", 1510 + 10 * day)
        world.clock = BEGIN + (2 + day) * DAY + timedelta(hours=3, minutes=17, seconds=30 - 10 * day)
        ticker(world).tick()

    assert rechecked(world) == ["AMD"] * 4


def test_what_is_unsafe_does_not_come_back_by_the_line_of_its_trial(world: World) -> None:
    pass_time(world, 2)
    trial = world.store.active("AMD")
    assert trial is not None
    world.store.promote(replace(trial, id=None, run_id=None, kind="select", verdict="confirmed"))
    world.fail(trial)
    world.busy = 1000.0
    ticker(world).tick()

    assert world.store.active("AMD") is None


def test_a_tick_goes_through_whatever_is_stored_as_telemetry_or_lies_in_the_spool(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_said", set())
    pass_time(world, 2)
    active = world.store.active("AMD")
    assert active is not None
    bad = unreadable(vars(labels_of(active)))
    for number, payload in enumerate(bad.values()):
        insert(world.store.location, payload, symbol="AMD", settings_key=active.settings.key, at=world.clock)
        (spool_folder(world.store.location) / f"bad-{number}.json").write_text(payload)
    world.log.clear()
    first, second = ticker(world).tick(), ticker(world).tick()
    events = [event for _, event, _ in world.log]

    assert (first.intake.refused, second.intake.refused) == (len(bad), 0)
    assert events.count("refused") == events.count("skipped") == len(bad)
    assert {fields["symbol"] for _, event, fields in world.log if event == "skipped"} == {"AMD"}
    assert not {"unreadable", "rolled_back"} & set(events)
    assert world.store.active("AMD") == active
    write_prices(world.data, "AMD", 1600)
    world.drifting.add("AMD")
    pass_time(world, 2)
    assert "AMD" in rechecked(world)
