"""``kill -9`` at random moments of a whole run, its decision and promotion included; then the same command again."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from autotuner.serving.lookup import lookup
from storage.database import open_database
from storage.repository import Repository
from tests.faults.campaign.counting import Tally, scaled, times
from tests.faults.campaign.killing import leftovers
from tests.faults.campaign.running import Command, Place, new_place, tiny_model
from tests.faults.campaign.table import Row, Size
from tests.support.storage_samples import empty_store

TABLE = Path(__file__).parents[2] / "data" / "seed" / "results.csv"
SYMBOLS = ("AMD", "BTCUSD", "ETHUSD")
TEMPORARY = (".*.new*", ".*.held*", "*-journal", "*-wal", "*-shm", "apart-*", "run-*")
_LONGEST_S = 180.0


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A way to run, what it says shortly before it decides, and how long the rest takes at most."""

    fault: str
    arguments: tuple[str, ...]
    forked: bool
    last_words: str
    rest_s: float


def rows(size: Size) -> Iterator[Row]:
    """Runs that answer from recorded measurements, and real ones with processes that measure a tiny model."""
    rng = random.Random(19)
    yield _row(_replayed(), size, rng, seconds=scaled(size, short=60.0, long=240.0), at_most=3)
    if size == "long":  # a short campaign kills real ones with their daemon
        seconds = scaled(size, short=0.0, long=360.0)
        yield _row(_real(tiny_model()), size, rng, seconds=seconds, at_most=1)


def _replayed() -> Kind:
    return Kind(
        fault="run killed, its trials answered from a table",
        arguments=("run", "--json", "--replay", str(TABLE)),
        forked=True,
        last_words="after launch 3",
        rest_s=0.1,
    )


def _real(model: tuple[str, ...]) -> Kind:
    return Kind(
        fault="run killed with the processes that measure for it",
        arguments=("run", "--json", "--profile", "research", "--timeout", "60", *model),
        forked=False,
        last_words="trial 1:",
        rest_s=0.4,
    )


def _row(kind: Kind, size: Size, rng: random.Random, *, seconds: float, at_most: int) -> Row:
    tally, takes = Tally(kind.fault), 0.0
    most = times(size, short=at_most, long=1_000_000)
    end = time.monotonic() + seconds
    while tally.times < most and (tally.times == 0 or time.monotonic() < end):
        with tempfile.TemporaryDirectory(prefix="campaign-") as folder, new_place(Path(folder)) as place:
            place.db.write_bytes(empty_store())
            problems, took = _kill_and_resume(kind, place, rng, takes or 1.0, tally)
            takes = took or takes
            tally.add(problems)
    return tally.row(f"a whole run takes {takes:.1f} s")


def _kill_and_resume(
    kind: Kind, place: Place, rng: random.Random, whole_s: float, tally: Tally
) -> tuple[list[str], float]:
    """What broke, and how long the run took that was let go to its end."""
    symbol = rng.choice(SYMBOLS)
    arguments = (*kind.arguments, "--symbol", symbol, "--db", str(place.db))
    run = Command(place, *arguments, forked=kind.forked)
    if rng.random() < 1 / 3 and run.says(kind.last_words, _LONGEST_S):
        time.sleep(rng.uniform(0.0, kind.rest_s))
    else:
        time.sleep(rng.uniform(0.0, whole_s))
    run.send(signal.SIGKILL)
    code = run.ended(60.0)
    tally.noted[_when(code, place)] += 1
    problems = [f"a process is left: {each}" for each in place.left()]
    problems += _lost(place, run.trials)
    again = Command(place, *arguments, forked=kind.forked)
    if (code := again.ended(_LONGEST_S)) != 0:
        return [*problems, f"the next run fails: {code} {again.said[-200:]}"], 0.0
    took = time.monotonic() - again.begun
    problems += [f"a process is left after the next run: {each}" for each in place.left()]
    problems += _lost(place, run.trials)
    problems += _after_the_next(place, symbol, again.answered)
    return problems, took


def _when(code: int, place: Place) -> str:
    if code == 0:
        return "was done already"
    with closing(sqlite3.connect(place.db)) as connection:
        (promoted,) = connection.execute("SELECT COUNT(*) FROM promotions").fetchone()
    return "killed after its promotion was stored" if promoted else "killed before its promotion was stored"


def _lost(place: Place, told: int) -> Iterator[str]:
    with open_database(place.db) as database:
        yield from (f"the store is damaged: {problem}" for problem in database.check())
        stored = len(Repository(database).measurements(stage="search"))
    if stored < told:
        yield f"lost, though told: {told} trials were told, {stored} are stored"


def _after_the_next(place: Place, symbol: str, answer: str) -> Iterator[str]:
    document = json.loads(answer)
    with open_database(place.db) as database:
        records = Repository(database)
        if records.unfinished_runs():
            yield "a run is unfinished after the next one"
        if records.leases(datetime.now(UTC)):
            yield "a lease is held after the next run"
        if len({run.run_id for run in records.runs()}) != 1 and not records.promotions():
            yield "the run was begun anew instead of resumed"
    found = lookup(symbol, db=str(place.db))
    if found.source != "promotion" or found.settings.to_dict() != document["settings"]:
        yield f"not a valid result: lookup gives {found.settings.label} from {found.source}"
    left = [path.name for path in leftovers(place.folder, patterns=TEMPORARY)]
    left += [f"tmp/{name}" for name in place.temporary_files()]
    if left:
        yield f"left behind: {', '.join(left)[:160]}"
