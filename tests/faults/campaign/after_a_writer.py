"""What must hold once a writer was killed: of the store and the snapshot, and of what it was at."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from autotuner.serving.lookup import lookup
from autotuner.serving.manifest import link_verified
from autotuner.store import Store
from storage.database import open_database
from storage.errors import SnapshotError
from storage.repository import Repository
from storage.snapshot import Snapshot, read_snapshot
from tests.faults.campaign.killing import Life, leftovers
from tests.faults.campaign.writing import IMPORTED, PUBLISHING, SYMBOLS, World, identity, read_json

TEMPORARY = (".*.new*", ".*.held*", "*-journal", "*-wal", "*-shm", "*.lock", ".removed-*", "run-*", "tmp*")
_WHERE_KEPT = {
    "trial": "SELECT detail FROM measurements",
    "promotion": "SELECT reason FROM promotions WHERE kind = 'run'",
    "rollback": "SELECT reason FROM rollbacks",
    "pin": "SELECT reason FROM pins WHERE settings_key IS NOT NULL",
    "unpin": "SELECT reason FROM pins WHERE settings_key IS NULL",
    "import": "SELECT reason FROM promotions WHERE kind <> 'run' OR symbol LIKE 'IMP%'",
}
_NOTES = "SELECT json_extract(payload_json, '$.source') FROM telemetry"


class Witness:
    """Remembers what was acknowledged and seen, and says after each kill what does not agree with it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._acknowledged: dict[str, set[str]] = {kind: set() for kind in (*_WHERE_KEPT, "note")}
        self._twice: set[str] = set()
        self._newest: dict[str, int] = {}
        self._written_at: datetime | None = None
        self.behind = 0
        """How often the ledger was ahead of the snapshot when the writer was killed."""

    def after(self, life: Life) -> list[str]:
        """What broke, directly after the kill, before any command: opening a ``Store`` may mend things."""
        for kind, words in life.done.items():
            if kind in self._acknowledged:
                self._acknowledged[kind].update(words)
        problems = [f"an operation failed: {told}" for told in life.raised]
        with open_database(self._world.db) as database:
            problems += [f"the store is damaged: {problem}" for problem in database.check()]
            problems += self._lost()
            problems += self._of_the_snapshot(life, Repository(database))
        check = getattr(self, f"_of_{life.at}", None)
        return problems + (list(check(life)) if check else [])

    def after_the_next(self, store: Store) -> list[str]:
        """What broke once the next operation of the same kind is done."""
        left = leftovers(self._world.folder, patterns=TEMPORARY)
        problems = [f"left behind: {', '.join(path.name for path in left)[:160]}"] if left else []
        for path in left:  # what the next kill leaves shall be told from it
            remove(path)
        problems += self._lost()
        snapshot = read_snapshot(self._world.snapshot)
        if (snapshot.entries, snapshot.pins) != store.records.snapshot_contents():
            problems.append("the snapshot is not what the ledger says after the next operation")
        return problems + self._never_back(snapshot)

    def _rows(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self._world.db)) as connection:
            return [row[0] for row in connection.execute(statement)]

    def _lost(self) -> Iterator[str]:
        for kind, statement in _WHERE_KEPT.items():
            if lost := self._acknowledged[kind] - set(self._rows(statement)):
                self._acknowledged[kind] -= lost  # told once
                yield f"lost, though acknowledged: {kind} {sorted(lost)[:3]}"
        in_store = Counter(self._rows(_NOTES))
        stored = set(in_store)
        if twice := {note for note, count in in_store.items() if count > 1} - self._twice:
            self._twice |= twice  # told once
            yield f"a note stored twice: {sorted(twice)[:3]}"
        waiting = {path.stem.removeprefix("telemetry-") for path in self._world.spool.glob("*.json")}
        if lost := self._acknowledged["note"] - stored - waiting:
            self._acknowledged["note"] -= lost
            yield f"lost, though acknowledged: note {sorted(lost)[:3]}"

    def _of_the_snapshot(self, life: Life, records: Repository) -> list[str]:
        try:
            snapshot = read_snapshot(self._world.snapshot)
        except SnapshotError as error:
            return [f"the snapshot cannot be read: {error}"]
        problems = self._never_back(snapshot)
        if (snapshot.entries, snapshot.pins) != records.snapshot_contents():
            word, before = json.loads(life.word) if life.at in PUBLISHING else ("", None)
            if identity(self._world.snapshot) != before:
                problems.append(f"the snapshot is neither the old nor the new one: during {life.at} {word}")
            else:
                self.behind += 1
        return problems + [
            problem for symbol in SYMBOLS if (problem := _wrong_answer(symbol, snapshot, self._world.db))
        ]

    def _never_back(self, snapshot: Snapshot) -> list[str]:
        problems = []
        if self._written_at is not None and snapshot.written_at < self._written_at:
            problems.append(f"the snapshot went back: from {self._written_at} to {snapshot.written_at}")
        self._written_at = snapshot.written_at
        taken_back = set(self._rows("SELECT promotion_id FROM rollbacks"))
        known = set(self._rows("SELECT id FROM promotions"))
        for entry in snapshot.entries:
            before = self._newest.get(entry.symbol, 0)
            if entry.promotion_id not in known:
                problems.append(f"the snapshot has a promotion that the ledger lacks: {entry.promotion_id}")
            if entry.newest and entry.promotion_id < before and before not in taken_back:
                problems.append(f"a version went back: {entry.symbol} from {before} to {entry.promotion_id}")
            if entry.newest:
                self._newest[entry.symbol] = entry.promotion_id
        return problems

    def _of_import(self, life: Life) -> Iterator[str]:
        word = json.loads(life.word)[0]
        found = self._rows(_WHERE_KEPT["import"]).count(word)
        if found not in (0, len(IMPORTED)):
            yield f"a part of an import was stored: {found} of {len(IMPORTED)} promotions"

    def _of_backup(self, _life: Life) -> Iterator[str]:
        path = self._world.side("backup.db")
        if path.exists():
            with open_database(path) as copy:
                yield from (f"the backup is damaged: {problem}" for problem in copy.check())

    def _of_export(self, _life: Life) -> Iterator[str]:
        try:
            read_json(self._world.side("export.json"))
        except ValueError as error:
            yield f"half an export: {error}"

    def _of_migration(self, _life: Life) -> Iterator[str]:
        path = self._world.side("old.db")
        before = _count(path)
        with open_database(path) as opened:
            yield from (f"the migrated store is damaged: {problem}" for problem in opened.check())
            if len(Repository(opened).promotions()) != before:
                yield "a migration lost promotions"

    def _of_artifacts(self, _life: Life) -> Iterator[str]:
        into = self._world.side("linked")
        for number, manifest in enumerate(sorted(self._world.cache.rglob("manifest.json"))):
            target = into / str(number)
            remove(target)
            try:
                link_verified(manifest.parent, target)
            except Exception as error:
                yield f"artifacts are not what their list says: {error}"

    _of_promotion = _of_artifacts


def _wrong_answer(symbol: str, snapshot: Snapshot, db: Path) -> str:
    """Why ``lookup`` is not what the snapshot says, empty when it is."""
    found = lookup(symbol, db=str(db))
    pin = next((pin for pin in snapshot.pins if pin.symbol == symbol), None)
    entry = next((each for each in snapshot.entries if each.symbol == symbol and each.newest), None)
    if pin is not None:
        wanted: tuple[str, str | None] = ("pin", pin.settings_key)
    elif entry is not None:
        wanted = ("promotion", entry.settings_key)
    else:
        return "" if found.source in ("default", "workload winner") else f"lookup of {symbol}: {found}"
    got = (found.source, found.settings_key)
    return "" if got == wanted else f"lookup answers something else than the snapshot: {got}, not {wanted}"


def _count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT COUNT(*) FROM promotions").fetchone()
    return int(count)


def remove(path: Path) -> None:
    """A file or a folder with all it holds, where there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
