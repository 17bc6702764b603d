"""What a writer of the campaign can do: every operation that changes a store, a cache or a file, by the real code."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from autotuner.cli import cli
from autotuner.daemon.intake import take_in
from autotuner.environment import current_environment
from autotuner.paths import CACHE_VARIABLE, snapshot_path, spool_folder
from autotuner.record_mapping import measurement_record
from autotuner.search.space import SearchSpace
from autotuner.serving import artifacts
from autotuner.serving.spool import Labels, write_note
from autotuner.serving.telemetry import Counts
from autotuner.store import Store, Subject
from autotuner.tuning.measuring import MeasuringPlan
from autotuner.tuning.tuned import Tuned, promote
from storage.records import SeriesRecord
from tests.faults.campaign.killing import Tell, marked
from tests.support.outcomes import measured, timing
from tests.support.promoted_store import BF16, EAGER, FAST, STEADY, WORKLOAD, promotion

SYMBOLS = ("AMD", "AAPL", "BTCUSD", "ETHUSD", "SPY")
IMPORTED = ("IMPA", "IMPB", "IMPC", "IMPD")
CHOICES = (EAGER, BF16, FAST, STEADY)
PUBLISHING = ("promotion", "rollback", "pin", "unpin", "import")
KINDS = (*("trial", *PUBLISHING, "note", "intake", "backup", "export", "migration", "prune", "artifacts"),)
OLD_STORE = Path(__file__).parents[2] / "data" / "store-0.1.0" / "autotune.db.gz"
_NOTES_AT_ONCE = 3


@dataclass(frozen=True)
class World:
    """A store with all that lies around it, below one folder; ``subject`` is what trials are of, in ``run_id``."""

    folder: Path
    subject: Subject
    run_id: str

    @property
    def db(self) -> Path:
        """The store."""
        return self.folder / "autotune.db"

    @property
    def snapshot(self) -> Path:
        """What readers read."""
        return snapshot_path(str(self.db))

    @property
    def spool(self) -> Path:
        """Where notes wait."""
        return spool_folder(str(self.db))

    @property
    def cache(self) -> Path:
        """Compiled code."""
        return self.folder / "cache"

    def side(self, name: str) -> Path:
        """A file of an operation, in a folder of its own."""
        return self.folder / "side" / name


@contextmanager
def new_world(folder: Path) -> Iterator[World]:
    """A store in which every symbol was promoted twice and one is pinned."""
    before = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = str(folder / "cache")
    try:
        (folder / "side").mkdir(parents=True, mode=0o700)
        (folder / "cache").mkdir(mode=0o700)
        yield World(folder, *_fill(folder / "autotune.db"))
    finally:
        os.environ.pop(CACHE_VARIABLE)
        if before is not None:
            os.environ[CACHE_VARIABLE] = before


def _fill(db: Path) -> tuple[Subject, str]:
    subject = Subject(
        symbol=SYMBOLS[0],
        workload=WORKLOAD,
        environment=current_environment(),
        series_digest="prices",
        model_digest="weights",
    )
    now = datetime.now(UTC)
    with Store(str(db)) as store:
        for minutes, settings in enumerate((BF16, FAST)):
            for symbol in SYMBOLS:
                store.promote(promotion(symbol, settings, minutes=minutes))
        store.pin(SYMBOLS[1], EAGER, "at first")
        series = SeriesRecord(
            digest=subject.series_digest,
            symbol=subject.symbol,
            source="AMD.csv",
            points=1000,
            first_timestamp=now - timedelta(days=1000),
            last_timestamp=now,
            first_seen=now,
        )
        store.records.put(series)
        run_id, _ = store.begin_run(subject, profile="production", seed=0, study="campaign", resume=False)
    return subject, run_id


class Writer:
    """Does operations on a world and marks each; ``name`` makes words unique.

    The symbol and the settings that it is about are chosen by ``seed``: the next command after a kill, with the same
    seed, is the same command again.
    """

    def __init__(self, world: World, store: Store, *, seed: int, name: str, tell: Tell) -> None:
        self._world, self._store, self._name, self._tell = world, store, name, tell
        self._count = 0
        rng = random.Random(seed)
        self._symbol, self._settings = rng.choice(SYMBOLS), rng.choice(CHOICES)

    def do(self, kind: str) -> None:
        """One operation of a kind, with whatever it needs made before the mark."""
        self._count += 1
        word = f"{self._name}.{self._count}"
        act: Callable[[], object] = getattr(self, f"_{kind}")(word)
        published = kind in PUBLISHING
        begun = json.dumps([word, identity(self._world.snapshot)]) if published else word
        marked(self._tell, kind, word, act, begun=begun)

    def _trial(self, word: str) -> Callable[[], object]:
        outcome = measured(timing(1.25), blocks=((tuple([1.25] * 40),) * 8,))
        subject, run_id = self._world.subject, self._world.run_id
        record = replace(measurement_record(subject, run_id, self._settings, outcome, "search"), detail=word)
        return lambda: self._store.records.add_measurement(record)

    def _promotion(self, word: str) -> Callable[[], object]:
        settings, fingerprint = self._settings, self._world.subject.environment.fingerprint
        wanted = replace(promotion(self._symbol, settings), reason=word, promoted_at=datetime.now(UTC))
        made = self._made(word)
        plan = MeasuringPlan(
            space=SearchSpace.of(CHOICES),
            make_runner=lambda _: (_ for _ in ()).throw(AssertionError("nothing is measured")),
            hand_over=lambda chosen: artifacts.store(made, fingerprint, chosen.key),
        )
        tuned = Tuned(
            document={}, subject=self._world.subject, plan=plan, settings=settings, promotion=wanted
        )
        return lambda: promote(self._store, tuned, wanted)

    def _rollback(self, word: str) -> Callable[[], object]:
        if self._store.records.active_promotion(self._symbol) is None:
            self.do("promotion")
        return self._command("rollback", self._symbol, "--reason", word)

    def _pin(self, word: str) -> Callable[[], object]:
        settings = self._settings.to_json()
        return self._command("pin", self._symbol, "--settings", settings, "--reason", word)

    def _unpin(self, word: str) -> Callable[[], object]:
        if self._symbol not in [pin.symbol for pin in self._store.records.pins()]:
            self.do("pin")
        return self._command("unpin", self._symbol, "--reason", word)

    def _import(self, word: str) -> Callable[[], object]:
        document = self._store.records.export_document()
        one = document["promotions"][0] | {"reason": word, "promoted_at": datetime.now(UTC).isoformat()}
        document["promotions"] = [one | {"symbol": symbol} for symbol in IMPORTED]
        document["pins"] = []
        file = self._world.side("bundle.json")
        file.write_text(json.dumps(document))
        return self._command("import", str(file))

    def _note(self, word: str) -> Callable[[], object]:
        counts = Counts(begun=datetime.now(UTC))
        counts.count(1.25, (512, 8, 256))
        labels = Labels(
            symbol=self._symbol,
            settings_key=EAGER.key,
            environment_fingerprint=self._world.subject.environment.fingerprint,
            source=word,
        )
        window = counts.window(labels, datetime.now(UTC))
        return lambda: write_note(self._world.spool, f"telemetry-{word}.json", window)

    def _intake(self, _word: str) -> Callable[[], object]:
        for _ in range(_NOTES_AT_ONCE):
            self.do("note")
        return lambda: take_in(self._store.records, self._world.spool)

    def _backup(self, _word: str) -> Callable[[], object]:
        return self._command("db", "backup", str(self._world.side("backup.db")), "--force")

    def _export(self, _word: str) -> Callable[[], object]:
        return self._command("export", "--output", str(self._world.side("export.json")))

    def _migration(self, _word: str) -> Callable[[], object]:
        old = self._world.side("old.db")
        for left in old.parent.glob("old*"):
            left.unlink()
        with gzip.open(OLD_STORE) as packed, old.open("wb") as file:
            shutil.copyfileobj(packed, file)
        return self._command("db", "upgrade", db=old)

    def _prune(self, word: str) -> Callable[[], object]:
        long_ago = time.time() - 90 * 86400
        folder = artifacts.settings_folder(self._world.cache, "0123456789abcdef", f"nobody uses {word}")
        shutil.copytree(self._made(word), folder)
        for path in (*folder.rglob("*"), folder):
            os.utime(path, (long_ago, long_ago))
        return self._command("db", "prune", "--days", "30")

    def _artifacts(self, word: str) -> Callable[[], object]:
        fingerprint, made = self._world.subject.environment.fingerprint, self._made(word)
        return lambda: artifacts.store(made, fingerprint, self._settings.key)

    def _made(self, word: str) -> Path:
        """What compiling would have left: a few files, of which one is always another."""
        made = self._world.side("made")
        (made / "inner").mkdir(parents=True, exist_ok=True)
        (made / "same.so").write_bytes(b"library" * 2000)
        (made / "inner" / "other.bin").write_bytes(word.encode() * 500)
        return made

    def _command(self, *arguments: str, db: Path | None = None) -> Callable[[], object]:
        return lambda: command(*arguments, db=db or self._world.db)


def command(*arguments: str, db: Path) -> str:
    """An ``autotune`` command in this process; what it printed. Raises what it failed with."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        cli.main([*arguments, "--db", str(db)], prog_name="autotune", standalone_mode=False)
    return out.getvalue()


def identity(path: Path) -> list[int]:
    """Changes whenever the file does; empty for none."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return []
    return [state.st_ino, state.st_size, state.st_mtime_ns]


def read_json(path: Path) -> Any:
    """A JSON file, None for none."""
    return json.loads(path.read_text()) if path.exists() else None
