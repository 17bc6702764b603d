"""``kill -9`` of the real daemon at random moments, with notes arriving and symbols due; then the next tick."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sqlite3
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autotuner.environment import current_environment
from autotuner.figures import Figures
from autotuner.paths import snapshot_path, spool_folder
from autotuner.serving.spool import Labels, write_note
from autotuner.serving.telemetry import Counts
from autotuner.store import Store
from autotuner.workload import RequestShape, Workload
from storage.database import open_database
from storage.errors import SnapshotError
from storage.repository import Repository
from storage.snapshot import read_snapshot
from tests.faults.campaign.counting import Tally, times
from tests.faults.campaign.killing import leftovers
from tests.faults.campaign.running import Command, Place, new_place, tiny_model
from tests.faults.campaign.table import Row, Size
from tests.support.promoted_store import promotion
from toto_core.settings import RuntimeSettings

SYMBOLS = ("AMD", "BTCUSD")
BUSY = """
[daemon]
schedule = "* * * * * *"
jitter_seconds = 0
load_ceiling = 64
cool_down_hours = 0
run_seconds = 60
budget_seconds_per_day = 100000000
recheck_hours = 0
max_age_days = 0.00001
http = ""
threads = 1
nice = 0
[defaults]
profile = "research"
model = "{model}"
context_length = 64
prediction_length = 4
num_samples = 8
[symbols.AMD]
[symbols.BTCUSD]
"""
"""A tick a second, and every symbol is due at each: a run takes as long as one measurement."""
CALM = BUSY.replace("cool_down_hours = 0", "cool_down_hours = 24").replace("0.00001", "1000")
"""Nothing is due that ever ran."""
TEMPORARY = (".*.new*", ".*.held*", "*-journal", "*-wal", "*-shm", "apart-*", "run-*")
_NOTES_EVERY_S = 0.02
_LONGEST_S = 240.0
_MOMENTS_S = {"short": (0.5, 2.0), "long": (2.5, 2.5, 2.5, 8.0)}
"""A life lasts up to one of these: most are short, so that intake, start and take-over are hit; some see a run."""


def rows(size: Size) -> Iterator[Row]:
    """One row: the kills, and at the end a daemon that is let go on."""
    kills, rng = times(size, short=3, long=200), random.Random(21)
    tally = Tally("daemon killed, with notes arriving and symbols due")
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder, new_place(Path(folder)) as place:
        world = DaemonWorld(place)
        world.settle(by_runs=size == "long")
        for _ in range(kills):
            problems = world.live(rng, _MOMENTS_S[size])
            problems += world.after()
            tally.add(problems)
        tally.noted.update(world.noted())
        yield tally.row(f"{len(world.acknowledged)} notes")
        if size == "long":
            ended = Tally("the daemon after all those, let go to the end of a tick")
            ended.add(world.to_the_end())
            yield ended.row()


class DaemonWorld:
    """A place with configuration and prices, and what was left in its spool so far."""

    def __init__(self, place: Place) -> None:
        self.place = place
        (_, self._model, *_) = tiny_model()
        for name, text in (("busy", BUSY), ("calm", CALM)):
            (place.folder / f"{name}.toml").write_text(text.replace("{model}", self._model))
        self.acknowledged: set[str] = set()
        self._twice: set[str] = set()
        self._runs_begun = 0

    @property
    def spool(self) -> Path:
        """Where notes wait."""
        return spool_folder(str(self.place.db))

    def daemon(self, name: str, *more: str, forked: bool = False) -> Command:
        """Start the daemon on the ``busy`` or the ``calm`` configuration."""
        config = ("--config", str(self.place.folder / f"{name}.toml"), "--db", str(self.place.db))
        return Command(self.place, "daemon", *config, *more, forked=forked)

    def settle(self, *, by_runs: bool = True) -> None:
        """Tune every symbol once, or only have the ledger say so, which is quicker."""
        if not by_runs:
            shape = RequestShape(context_length=64, prediction_length=4, num_samples=8)
            about: dict[str, Any] = {
                "workload": Workload(model=self._model, shapes=(shape,)),
                "figures": Figures(),
            }
            with Store(str(self.place.db)) as store:
                for symbol in SYMBOLS:
                    chosen = RuntimeSettings(num_threads=1)
                    store.promote(replace(promotion(symbol, chosen, profile="research"), **about))
            return
        once = self.daemon("busy", "--once")
        assert once.ended(_LONGEST_S) == 0, once.said
        assert events(once).count("tuned") == len(SYMBOLS), once.said

    def live(self, rng: random.Random, moments_s: Sequence[float]) -> list[str]:
        """Start it, leave notes as it goes, and kill it at some moment after it has begun."""
        daemon = self.daemon("busy")
        if not daemon.says('"started"', _LONGEST_S):
            daemon.ended(0.0)
            return [f"the daemon does not start: {daemon.said[-200:]}"]
        end = time.monotonic() + rng.uniform(0.0, rng.choice(moments_s))
        while time.monotonic() < end:
            self.leave_note()
            time.sleep(_NOTES_EVERY_S)
        daemon.send(signal.SIGKILL)
        daemon.ended(60.0)
        self._runs_begun += events(daemon).count("tuning")
        failed = [line for line in daemon.said.splitlines() if "Traceback" in line or "_failed" in line]
        return [f"the daemon failed: {line[:200]}" for line in failed]

    def leave_note(self) -> None:
        """One that is acknowledged once it is written."""
        word = uuid.uuid4().hex
        counts = Counts(begun=datetime.now(UTC))
        counts.count(1.25, (64, 4, 8))
        labels = Labels(
            symbol=SYMBOLS[0],
            settings_key=RuntimeSettings().key,
            environment_fingerprint=current_environment().fingerprint,
            source=word,
        )
        write_note(self.spool, f"telemetry-{word}.json", counts.window(labels, datetime.now(UTC)))
        self.acknowledged.add(word)

    def after(self) -> list[str]:
        """What broke, directly after the kill and after one more tick in which nothing is due."""
        problems = [f"a process is left: {each}" for each in self.place.left()]
        problems += [*self.lost(), *self._ledger(mended=False)]
        once = self.daemon("calm", "--once", forked=True)
        code = once.ended(_LONGEST_S)
        if code != 0 or "tick" not in events(once) or "tick_failed" in events(once):
            problems.append(f"the next tick fails: {code} {once.said[-200:]}")
        if waiting := list(self.spool.glob("*.json")):
            problems.append(f"the next tick leaves notes: {len(waiting)}")
        problems += [*self.lost(), *self._ledger(mended=True)]
        left = leftovers(self.place.folder, patterns=TEMPORARY)
        left += list(self.place.temporary.iterdir())
        if left:
            problems.append(f"left behind: {', '.join(path.name for path in left)[:160]}")
        return problems

    def to_the_end(self) -> list[str]:
        """What broke once a daemon with every symbol due was let go on."""
        once = self.daemon("busy", "--once")
        code = once.ended(_LONGEST_S)
        problems = [] if code == 0 else [f"the daemon fails: {code} {once.said[-200:]}"]
        if events(once).count("tuned") != len(SYMBOLS):
            problems.append(f"not every symbol was tuned: {once.said[-300:]}")
        with open_database(self.place.db) as database:
            records = Repository(database)
            if records.unfinished_runs():
                problems.append("a run is unfinished")
            if records.leases(datetime.now(UTC)):
                problems.append("a lease is held")
        return problems

    def lost(self) -> Iterator[str]:
        """Notes that are neither in the spool nor in the store, or twice in the store."""
        in_store = Counter(self._stored())
        if twice := {note for note, count in in_store.items() if count > 1} - self._twice:
            self._twice |= twice  # told once
            yield f"a note stored twice: {sorted(twice)[:3]}"
        waiting = {path.stem.removeprefix("telemetry-") for path in self.spool.glob("*.json")}
        if lost := self.acknowledged - waiting - set(in_store):
            self.acknowledged -= lost  # told once
            yield f"lost, though acknowledged: {len(lost)} notes"

    def noted(self) -> dict[str, int]:
        """What is no fault, but worth knowing."""
        return {"a run was under way or done": self._runs_begun} if self._runs_begun else {}

    def _stored(self) -> list[str]:
        with closing(sqlite3.connect(self.place.db)) as connection:
            rows = connection.execute("SELECT json_extract(payload_json, '$.source') FROM telemetry")
            return [str(row[0]) for row in rows]

    def _ledger(self, *, mended: bool) -> Iterator[str]:
        """What is wrong with the store; ``mended`` says whether the snapshot must be that of the ledger by now."""
        with open_database(self.place.db) as database:
            yield from (f"the store is damaged: {problem}" for problem in database.check())
            contents = Repository(database).snapshot_contents()
        try:
            snapshot = read_snapshot(snapshot_path(str(self.place.db)))
        except SnapshotError as error:
            yield f"the snapshot cannot be read: {error}"
            return
        if mended and (snapshot.entries, snapshot.pins) != contents:
            yield "the snapshot is not what the ledger says after the next tick"


def events(command: Command) -> list[str]:
    """What a daemon logged, in its order."""
    found = []
    for line in command.said.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found.append(str(json.loads(line)["event"]))
    return found
