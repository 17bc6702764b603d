"""Stores for targets: a full one, copied for each input, and what must go well whatever was done to it."""

from __future__ import annotations

import functools
import gc
import json
import shutil
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from autotuner.daemon.config import Config, DaemonConfig
from autotuner.daemon.measuring_child import Tuned
from autotuner.daemon.places import OneByOne
from autotuner.daemon.tick import Ticker
from autotuner.daemon.ticked import Ticked
from autotuner.environment import Environment, current_environment
from autotuner.paths import snapshot_path
from autotuner.record_mapping import telemetry_record
from autotuner.serving.lookup import lookup
from autotuner.store import Store
from tests.faults.fuzzing import scratch
from tests.faults.fuzzing.target import Violation
from tests.faults.fuzzing.verdicts import check, check_line
from tests.support.promoted_store import EAGER, FAST, NOW, STEADY, measure, outcomes, promotion
from tests.support.seen_store import quarantine, window

LOOKUP_SECONDS = 0.05
_MOST_LOGGED = 30_000
SYMBOLS = ("AMD", "MSFT")
"""Both are promoted; inputs are about the first, and the second must not suffer."""


def fresh(name: str) -> Path:
    """A copy of the full store, with its snapshot, in a folder of that name; what lay there is gone."""
    folder = scratch.empty_folder(name)
    template = _template()
    shutil.copyfile(template, folder / template.name)
    snapshot = snapshot_path(str(template))
    shutil.copyfile(snapshot, folder / snapshot.name)
    return folder / template.name


@functools.cache
def _template() -> Path:
    path = scratch.empty_folder("template") / "autotune.db"
    measure(path, outcomes())
    with Store(str(path)) as store:
        store.promote(promotion("MSFT", STEADY))
        store.promote(promotion("AMD", STEADY, minutes=-60))
        store.records.roll_back("AMD", "it was slow", NOW - timedelta(minutes=30))
        store.promote(promotion())
        store.pin("MSFT", EAGER, "earnings week")
        store.remember_selftest(current_environment(), {"false_winner_rate": 0.0}, at=NOW)
        now = datetime.now(UTC)
        for note in (
            window("AMD", FAST, NOW + timedelta(minutes=5)),
            window("AMD", FAST, now - timedelta(minutes=2)),
            quarantine("AMD", STEADY, NOW + timedelta(minutes=7), "no compiler"),
        ):
            store.records.add_telemetry(telemetry_record(note))
    with closing(sqlite3.connect(path)) as connection:  # all of it in the one file
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@dataclass
class Still(OneByOne):
    """A machine on which nothing is measured; ``events`` is what the tick said."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def load(self) -> float:
        return 0.0

    def environment(self) -> Environment:
        return current_environment()

    def tune(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        check(
            all(isinstance(each, str) and "\0" not in each for each in arguments), "no command line holds it"
        )
        return Tuned(document=None, cause="nothing is measured here")

    def recheck(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        return Tuned(document=None, cause="nothing is measured here")

    def stopping(self) -> str | None:
        return None

    def note(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))


def ticked(store: Store) -> tuple[Ticked, Still]:
    """One real tick over both symbols, and what it said."""
    machine = Still()
    config = Config(daemon=DaemonConfig(quiet=(), recheck_hours=0, cool_down_hours=0))
    tick = Ticker(
        store=store, config=config, symbols=SYMBOLS, quiet=(), machine=machine, log=machine.note
    ).tick()
    check_line(str(tick), "the summary of a tick")
    for event, fields in machine.events:  # a log is JSON, in which nothing steers a terminal
        check(
            len(json.dumps(fields, default=str)) < _MOST_LOGGED, f"the event {event} is too long to be read"
        )
    return tick, machine


def looked_up(path: Path, *symbols: str) -> float:
    """Ask for settings as production does; the longest that one took, in processor seconds. Raises ``Violation``."""
    worst = 0.0
    for symbol in symbols or SYMBOLS:
        gc.disable()  # going over everything that this process has imported takes 40 ms by itself
        try:
            began = time.process_time()
            found = lookup(symbol, db=str(path))
            took = time.process_time() - began
        finally:
            gc.enable()
        worst = max(worst, took)
        if took > LOOKUP_SECONDS:
            raise Violation(f"looking up {symbol} took {1000 * took:.0f} ms of processor time")
        for reason in found.reasons:
            check_line(reason, "a reason of lookup")
        check(found.settings.key != "", "there are settings")
    return worst


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
