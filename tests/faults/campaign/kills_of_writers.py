"""``kill -9`` at random moments of every operation that writes, by the thousand, and what holds after each."""

from __future__ import annotations

import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from autotuner.store import Store
from tests.faults.campaign.after_a_writer import Witness
from tests.faults.campaign.counting import Tally, quantile, times
from tests.faults.campaign.killing import Life, Tell, victim
from tests.faults.campaign.table import Row, Size
from tests.faults.campaign.writing import KINDS, World, Writer, new_world

WORDS = {
    "trial": "a trial",
    "promotion": "a promotion, its snapshot and artifacts",
    "rollback": "a roll-back",
    "pin": "a pin",
    "unpin": "an unpin",
    "import": "an import",
    "note": "a note for the spool",
    "intake": "the intake of notes",
    "backup": "a backup",
    "export": "an export",
    "migration": "the migration of a 0.1.0 store",
    "prune": "a prune",
    "artifacts": "the storing of artifacts",
}
BETWEEN = "between two operations"
KILLS_OF_A_STORE = 100
"""After so many another store is begun: what is checked after each kill grows with it."""
_MOST_AWAITED = 3
_AT_FIRST_S = 0.01


def rows(size: Size) -> Iterator[Row]:
    """A row for each kind of operation in which writers were killed."""
    kills = times(size, short=60, long=10_000)
    campaign = _Campaign(random.Random(18))
    while campaign.kills < kills:
        with tempfile.TemporaryDirectory(prefix="campaign-") as folder, new_world(Path(folder)) as world:
            campaign.on(world, min(KILLS_OF_A_STORE, kills - campaign.kills))
    yield from campaign.rows()


class _Campaign:
    """Kills writers and counts."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._tallies = {kind: Tally(f"writer killed in {told}") for kind, told in WORDS.items()}
        self._tallies[BETWEEN] = Tally(f"writer killed {BETWEEN}")
        self._takes: dict[str, list[float]] = defaultdict(list)
        self.kills = 0

    def on(self, world: World, kills: int) -> None:
        """Kill so many writers of one store."""
        witness = Witness(world)
        for _ in range(kills):
            begun, kind = time.monotonic(), KINDS[self.kills % len(KINDS)]
            self.kills += 1
            seed = self._rng.randrange(1 << 30)
            life = self._one_life(world, kind, seed)
            tally = self._tallies[life.at or BETWEEN]
            behind = witness.behind
            tally.add(_checked(world, witness, life, life.at or kind, seed=seed))
            tally.noted["until the next publication the ledger was ahead"] += witness.behind - behind
            tally.seconds = (tally.seconds or 0.0) + time.monotonic() - begun

    def rows(self) -> Iterator[Row]:
        """Of the kinds in which any was killed."""
        for tally in self._tallies.values():
            tally.noted = +tally.noted  # without those that are zero
            if tally.times:
                yield tally.row()

    def _one_life(self, world: World, kind: str, seed: int) -> Life:
        within = self._rng.uniform(0.0, 1.1) * self._duration(world, kind)
        work = partial(_work, world=world, kind=kind, name=f"life{self.kills}", seed=seed)
        with victim(work) as child:
            begun = child.wait_for(kind, self._rng.randint(1, _MOST_AWAITED))
            assert begun, f"{kind}: {child.life.raised}"
            time.sleep(within)
            return child.kill()

    def _duration(self, world: World, kind: str) -> float:
        """How long an operation of the kind takes, from some that ran to their end in this process."""
        known = self._takes[kind]
        if not known:
            with Store(str(world.db)) as store:
                tell = _Stopwatch(kind, known)
                writer = Writer(world, store, seed=0, name=f"timed{self.kills}", tell=tell)
                for _ in range(_MOST_AWAITED + 1):
                    writer.do(kind)
        return quantile(known, 0.75) or _AT_FIRST_S


class _Stopwatch:
    """Hears marks and keeps how long operations of a kind took."""

    def __init__(self, kind: str, takes: list[float]) -> None:
        self._kind, self._takes, self._begun = kind, takes, 0.0

    def __call__(self, what: str, kind: str, word: str) -> None:
        assert what != "raised", f"{kind}: {word}"
        if kind == self._kind and what == "begun":
            self._begun = time.monotonic()
        elif kind == self._kind:
            self._takes.append(time.monotonic() - self._begun)


def _work(tell: Tell, *, world: World, kind: str, name: str, seed: int) -> None:
    rng = random.Random(seed)
    with Store(str(world.db)) as store:
        writer = Writer(world, store, seed=seed, name=name, tell=tell)
        while True:
            writer.do(kind)
            if rng.random() < 0.3:
                writer.do(rng.choice(KINDS[:9]))


def _checked(world: World, witness: Witness, life: Life, kind: str, *, seed: int) -> list[str]:
    """What does not hold after the kill, and once the next command of the kind is done."""
    failed: list[str] = []

    def heard(what: str, about: str, word: str) -> None:
        if what == "raised":
            failed.append(f"the next command fails: {about} {word}")

    try:
        problems = witness.after(life)
        with Store(str(world.db)) as store:
            Writer(world, store, seed=seed, name=f"next{seed}", tell=heard).do(kind)
            return problems + failed + witness.after_the_next(store)
    except Exception as error:
        return [f"after a kill: {type(error).__name__}: {error}"]
