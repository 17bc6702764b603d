"""Processes that look up all the time while others promote, roll back and pin: errors, latency, staleness."""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click

from autotuner.serving.lookup import lookup
from autotuner.store import Store
from storage.database import open_database
from storage.errors import StorageError
from storage.repository import Repository
from storage.snapshot import read_snapshot
from tests.faults.campaign.counting import quantile, scaled
from tests.faults.campaign.table import Row, Size
from tests.faults.campaign.writing import World, command, new_world
from tests.support.promoted_store import promotion
from toto_core.settings import RuntimeSettings

WRITERS = 4
SYMBOLS = tuple(f"L{number:02}" for number in range(16))
READERS = {"short": 4, "long": 32}
PER_DOUBLING = 8
"""Buckets of the histogram of latencies for a doubling."""
_LOOK_AT_THE_FILE_EVERY = 1000
_PAUSE_S = 0.004
"""Between two rounds over the symbols: 32 readers without one leave no writer a CPU."""
_READ_ON_S = {"short": 0.7, "long": 3.0}
"""How long readers go on when the last change is made, so that they may see it."""
_MOST_PROBLEMS = 10

State = tuple[str, int]
"""What a symbol is served: from what (pin or promotion), and the counter that its settings carry."""


def rows(size: Size) -> Iterator[Row]:
    """One row for the readers and one for how soon they see what was written."""
    seconds = scaled(size, short=3.0, long=600.0)
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder, new_world(Path(folder)) as world:
        begun = time.monotonic()
        first = {symbol: _first_state(world, symbol) for symbol in SYMBOLS}
        start, done = time.monotonic() + 0.5, mmap.mmap(-1, 1)
        reading = [_forked(partial(_read, world.db, start, done)) for _ in range(READERS[size])]
        writing = [
            _forked(partial(_write, world, SYMBOLS[number::WRITERS], number, start, start + seconds))
            for number in range(WRITERS)
        ]
        written = [result() for result in writing]
        time.sleep(_READ_ON_S[size])
        done[0] = 1
        read = [result() for result in reading]
        if not _is_published(world):
            written[0]["problems"].append("the snapshot is not what the ledger says when all is done")
        yield from _judged(first, written, read, time.monotonic() - begun)


def _is_published(world: World) -> bool:
    with open_database(world.db) as database:
        contents = Repository(database).snapshot_contents()
    snapshot = read_snapshot(world.snapshot)
    return (snapshot.entries, snapshot.pins) == contents


def _judged(
    first: dict[str, State],
    written: list[dict[str, Any]],
    read: list[dict[str, Any]],
    took: float,
) -> Iterator[Row]:
    problems = [problem for each in (*written, *read) for problem in each["problems"]]
    unseen = 0
    staleness: list[float] = []
    for symbol in SYMBOLS:
        changes = next(each["changes"][symbol] for each in written if symbol in each["changes"])
        states = [first[symbol], *((source, counter) for _, source, counter in changes)]
        seen = [_places(states, each["seen"][symbol]) for each in read]
        problems += [f"{symbol}: {broken}" for _, broken in seen if broken]
        late, missed = _staleness([at for at, _, _ in changes], states, [places for places, _ in seen])
        staleness += late
        # Who has the last state has seen all, though one that comes back unnoticed looks like the one before.
        unseen += missed if all(tuple(each["seen"][symbol][-1][1:]) != states[-1] for each in read) else 0
    lookups = sum(each["lookups"] for each in read)
    changes_made = sum(len(each) for one in written for each in one["changes"].values())
    histogram = _summed([each["histogram"] for each in read])
    refused = sum(each["refused"] for each in written)
    measured = (
        f"{len(read)} readers, {lookups / took:,.0f} look-ups a second beside {changes_made / took:.1f} "
        f"changes a second; p50 {_at(histogram, 0.5):.1f} us, p99 {_at(histogram, 0.99):.1f} us, "
        f"longest {max(each['longest_us'] for each in read) / 1000:.1f} ms; "
        f"{refused} changes were refused because the store was locked for its busy timeout"
    )
    told = f"{len(problems)} times; first: {problems[0]}" if problems else ""
    yield Row(
        fault="look-ups beside promotions, roll-backs and pins",
        times=lookups,
        held=lookups - len(problems),
        broken=told,
        measured=measured,
        seconds=took,
    )
    yield Row(
        fault="changes that readers were to see, in their order",
        times=changes_made,
        held=changes_made - unseen,
        broken=f"{unseen} were seen by nobody" if unseen else "",
        measured=f"from the writer's return to the first reader: p50 {1e3 * quantile(staleness, 0.5):.2f} ms, "
        f"p99 {1e3 * quantile(staleness, 0.99):.2f} ms, longest {1e3 * max(staleness, default=0.0):.1f} ms",
        seconds=took,
    )


def _places(states: Sequence[State], seen: Sequence[Sequence[Any]]) -> tuple[list[tuple[float, int]], str]:
    """When a reader had which place of ``states``, and why it cannot have gone through them in their order."""
    places: list[tuple[float, int]] = []
    place = 0
    for at, source, counter in seen:
        state = (source, counter)
        ahead = next((number for number in range(place, len(states)) if states[number] == state), None)
        if ahead is None:
            return places, f"{'went back to' if state in states else 'is neither old nor new:'} {state}"
        place = ahead
        places.append((at, place))
    return places, ""


def _staleness(
    returned: Sequence[float], states: Sequence[State], readers: Sequence[Sequence[tuple[float, int]]]
) -> tuple[list[float], int]:
    """Seconds until the first reader had each change or a later one, and how many nobody ever had.

    A promotion of a symbol that is pinned changes nothing that is served, and so cannot be seen to arrive.
    """
    late, missed = [], 0
    arrivals = sorted((at, place) for places in readers for at, place in places)
    arrival = 0
    highest = 0
    for number, at in enumerate(returned, start=1):
        while highest < number and arrival < len(arrivals):
            highest = max(highest, arrivals[arrival][1])
            arrival += 1
        if highest < number:
            missed += 1
        elif states[number] != states[number - 1]:
            late.append(max(0.0, arrivals[arrival - 1][0] - at))
    return late, missed


def _first_state(world: World, symbol: str) -> State:
    with Store(str(world.db)) as store:
        store.promote(promotion(symbol, _settings(1)))
    return ("promotion", 1)


def _settings(counter: int) -> RuntimeSettings:
    return RuntimeSettings(compile_mode="default", recompile_limit=counter)


@dataclass
class _Served:
    """What one symbol was promoted to and pinned to, as its only writer knows it."""

    promoted: list[int] = field(default_factory=lambda: [1])
    pinned: int | None = None
    counter: int = 1

    @property
    def state(self) -> State:
        return ("promotion", self.promoted[-1]) if self.pinned is None else ("pin", self.pinned)


def _write(world: World, symbols: Sequence[str], seed: int, start: float, end: float) -> dict[str, Any]:
    rng, problems, refused = random.Random(seed), list[str](), 0
    served = {symbol: _Served() for symbol in symbols}
    changes: dict[str, list[tuple[float, str, int]]] = {symbol: [] for symbol in symbols}
    time.sleep(max(0.0, start - time.monotonic()))
    with Store(str(world.db)) as store:
        while time.monotonic() < end:
            symbol = rng.choice(symbols)
            try:
                _change(world, store, symbol, served[symbol], rng)
            except (StorageError, click.ClickException) as error:
                if "locked by another process" not in str(error):
                    problems.append(f"a writer failed: {error}")
                refused += 1
                served[symbol] = _as_stored(store, symbol, served[symbol].counter)
            changes[symbol].append((time.monotonic(), *served[symbol].state))
    return {"changes": changes, "problems": problems, "refused": refused}


def _as_stored(store: Store, symbol: str, counter: int) -> _Served:
    """What holds once a change was refused, published: it may have been stored for all that."""
    while True:
        with contextlib.suppress(StorageError):
            store.publish()
            lines = store.records.promotions(symbol)
            held = [_counter(line.settings_json) for line in lines if line.rolled_back_at is None]
            pins = [_counter(pin.settings_json) for pin in store.records.pins() if pin.symbol == symbol]
            return _Served(promoted=held, pinned=pins[0] if pins else None, counter=counter)


def _counter(settings_json: str) -> int:
    return RuntimeSettings.from_json(settings_json).recompile_limit


def _change(world: World, store: Store, symbol: str, served: _Served, rng: random.Random) -> None:
    what = rng.choice(("promote", "promote", "rollback", "pin", "unpin"))
    if what == "rollback" and len(served.promoted) > 1:
        command("rollback", symbol, db=world.db)
        served.promoted.pop()
    elif what == "unpin" and served.pinned is not None:
        command("unpin", symbol, db=world.db)
        served.pinned = None
    elif what == "pin":
        served.counter += 1
        store.pin(symbol, _settings(served.counter), "under load")
        served.pinned = served.counter
    else:
        served.counter += 1
        store.promote(promotion(symbol, _settings(served.counter)))
        served.promoted.append(served.counter)


def _read(db: Path, start: float, done: mmap.mmap) -> dict[str, Any]:
    place, snapshot = str(db), db.with_name("autotune.snapshot.db")
    seen: dict[str, list[tuple[float, str, int]]] = {symbol: [] for symbol in SYMBOLS}
    histogram, problems = [0] * (40 * PER_DOUBLING), list[str]()
    lookups, longest, written_at = 0, 0, None
    time.sleep(max(0.0, start - time.monotonic()))
    while not done[0] and len(problems) < _MOST_PROBLEMS:
        for symbol in SYMBOLS:
            begun = time.perf_counter_ns()
            try:
                found = lookup(symbol, db=place)
            except Exception as error:
                problems.append(f"a look-up raised: {type(error).__name__}: {error}")
                continue
            took = time.perf_counter_ns() - begun
            lookups, longest = lookups + 1, max(longest, took)
            histogram[int(math.log2(max(1, took)) * PER_DOUBLING)] += 1
            state = (found.source, found.settings.recompile_limit)
            if not seen[symbol] or seen[symbol][-1][1:] != state:
                seen[symbol].append((time.monotonic(), *state))
        time.sleep(_PAUSE_S)
        if lookups % _LOOK_AT_THE_FILE_EVERY < len(SYMBOLS):
            at = read_snapshot(snapshot).written_at
            if written_at is not None and at < written_at:
                problems.append(f"the snapshot went back from {written_at} to {at}")
            written_at = at
    return {
        "seen": seen,
        "histogram": histogram,
        "problems": problems,
        "lookups": lookups,
        "longest_us": longest / 1000,
    }


def _forked(work: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Begin work in a fork; what is returned waits for it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            answer = work()
        except BaseException as error:
            answer = {"problems": [f"{type(error).__name__}: {error}"]}
        with os.fdopen(writing, "w") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writing)

    def result() -> dict[str, Any]:
        with os.fdopen(reading) as pipe:
            answer: dict[str, Any] = json.load(pipe)
        os.waitpid(pid, 0)
        return answer

    return result


def _summed(histograms: Sequence[Sequence[int]]) -> list[int]:
    return [sum(counts) for counts in zip(*histograms, strict=True)]


def _at(histogram: Sequence[int], share: float) -> float:
    """The upper end of the bucket in which the quantile lies, microseconds."""
    wanted, seen = share * sum(histogram), 0
    for place, count in enumerate(histogram):
        seen += count
        if seen >= wanted:
            return float(2 ** ((place + 1) / PER_DOUBLING)) / 1000
    return 0.0
