"""A simulated machine for the daemon's ticks: its clock, its runs and its calls in production, over a real store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from autotuner.commands.recheck import keep, nothing_measured
from autotuner.daemon.config import Config, DaemonConfig, SymbolConfig
from autotuner.daemon.measuring_child import Tuned
from autotuner.daemon.places import OneByOne
from autotuner.daemon.quiet import parse_quiet
from autotuner.daemon.schedule import parse_zone
from autotuner.daemon.tick import Ticker
from autotuner.environment import Environment, current_environment
from autotuner.figures import Figures
from autotuner.measurement.outcome import Interval
from autotuner.paths import spool_folder
from autotuner.serving.spool import Labels, Note, Quarantine, write_note
from autotuner.serving.telemetry import Counts
from autotuner.store import Promotion, Store
from autotuner.tuning.measuring import prepare
from autotuner.workload import Workload
from storage.records import RunRecord
from tests.support.outcomes import measured, timing
from toto_core.series import PriceSource, find_series
from toto_core.settings import RuntimeSettings

BEGIN = datetime(2026, 5, 4, 0, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SYMBOLS = ("AMD", "AAPL")
RUN_SECONDS = 300.0
RECHECK_TAKES = 15.0
QUIET = ("13:00-20:00 mon-fri",)
SETTINGS = tuple(RuntimeSettings(compile_mode="default", num_threads=n) for n in range(1, 60))


@dataclass(kw_only=True)
class World(OneByOne):
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

    def stopping(self) -> str | None:
        return None

    def tune(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        symbol, because = (arguments[list(arguments).index(name) + 1] for name in ("--symbol", "--because"))
        assert seconds >= RUN_SECONDS
        workload = Workload(model=str(self.model))
        prepared = prepare(symbol, workload, prices=PriceSource(data=str(self.data)), device="cpu")
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
        ratio = Interval(estimate=2.0, low=1.9, high=2.1)
        triggers = tuple(after for before, after in pairwise(arguments) if before == "--trigger")
        self.store.promote(
            Promotion(
                symbol=symbol,
                profile="production",
                workload=workload,
                environment=self.surroundings,
                settings=settings,
                verdict="better",
                reason="simulated",
                figures=Figures(
                    stage="duel", ratio=ratio, p50_ms=1.0, p99_ms=2.0, because=because, triggers=triggers
                ),
                promoted_at=self.clock,
                run_id=run_id,
            )
        )
        return Tuned(document={"promoted": True, "decision": {"verdict": "better", "reason": "simulated"}})

    def recheck(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        symbol = arguments[0]
        here = self.store.fingerprints_like(self.surroundings)
        active = self.store.active_in(symbol, None, here)
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

    def fail(self, active: Promotion, *, processes: int = 2) -> None:
        """What processes leave in which ``active``'s settings fail."""
        about = vars(labels_of(active))
        for number in range(processes):
            note = Quarantine(**about, reason="no compiler", failed_at=self.clock, process=f"p{number}")
            self.leave(note)

    def leave(self, note: Note) -> None:
        write_note(spool_folder(self.store.location), f"note-{uuid.uuid4()}.json", note)


def labels_of(active: Promotion) -> Labels:
    return Labels(
        symbol=active.symbol,
        settings_key=active.settings.key,
        environment_fingerprint=active.environment.fingerprint,
    )


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
    world: World,
    days: float,
    *,
    every: timedelta = 3 * HOUR,
    budget: float = 3600.0,
    latency: dict[str, float] | None = None,
) -> None:
    """Tick ``every`` so often, with telemetry of both symbols."""
    end = world.clock + days * DAY
    while world.clock < end:
        for symbol in SYMBOLS:
            if world.store.active(symbol) is not None:
                world.spool(symbol, milliseconds=(latency or {}).get(symbol, 1.0))
        hour = world.clock
        ticker(world, budget=budget).tick()
        world.clock = max(world.clock, hour + every)
