"""What a folder with a store holds, in a form in which before and after can be compared."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from autotuner.serving.lookup import lookup
from storage.database import open_database
from storage.errors import SnapshotError, StorageError
from storage.snapshot import read_snapshot

_LEDGER = {
    "promotions": "symbol, profile, settings_json, verdict",
    "rollbacks": "promotion_id",
    "pins": "symbol, settings_json, reason",
}
_TEMPORARY = ("*.new", "*-journal", "*-wal", "*-shm")


@dataclass(frozen=True, kw_only=True)
class StoreState:
    """The ledger without its times, what the snapshot answers, and how many rows each other table has."""

    ledger: str
    snapshot: str
    rows: tuple[tuple[str, int], ...]


def state_of(folder: Path) -> StoreState:
    """Of the store in ``folder``; empty texts where there is none. Raises ``sqlite3.Error`` for a damaged one."""
    store = folder / "autotune.db"
    if not store.exists() or store.stat().st_size == 0:
        return StoreState(ledger="", snapshot=snapshot_text(folder), rows=())
    with closing(sqlite3.connect(store, timeout=10)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        ledger = {
            name: connection.execute(f"SELECT {columns} FROM {name} ORDER BY rowid").fetchall()
            for name, columns in _LEDGER.items()
            if name in tables
        }
        rows = tuple(
            (name, connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0])
            for name in sorted(tables)
        )
    text = json.dumps(ledger) if any(ledger.values()) else ""
    return StoreState(ledger=text, snapshot=snapshot_text(folder), rows=rows)


def snapshot_text(folder: Path) -> str:
    """What readers get, without times; the reason for which they get nothing."""
    try:
        found = read_snapshot(folder / "autotune.snapshot.db")
    except SnapshotError as error:
        return error.reason
    entries = [[entry.symbol, entry.profile, entry.settings_key] for entry in found.entries]
    return json.dumps([entries, [[pin.symbol, pin.settings_key] for pin in found.pins]])


def damage_in(folder: Path) -> str:
    """What a check of the store finds, empty when it is whole or there is none."""
    store = folder / "autotune.db"
    if not store.exists() or store.stat().st_size == 0:
        return ""
    try:
        with open_database(store, create=False) as database:
            return "; ".join(database.check())
    except StorageError as error:
        return str(error)


def lookup_fault(folder: Path, *symbols: str) -> str:
    """Why lookups of ``symbols`` are not what they must be, whatever was damaged: an answer with settings."""
    try:
        for symbol in symbols or ("AMD",):
            found = lookup(symbol, db=str(folder / "autotune.db"))
            if not found.settings.key or (found.source == "default" and not found.reasons):
                return f"lookup of {symbol} gives no reason"
    except BaseException as error:
        return f"lookup raised {type(error).__name__}: {error}"
    return ""


def left_behind(folder: Path) -> list[str]:
    """Files in ``folder`` that only a command under way may have."""
    return sorted(_left(folder))


def _left(folder: Path) -> Iterator[str]:
    for pattern in _TEMPORARY:
        for path in folder.rglob(pattern):
            if path.is_file() and path.stat().st_size >= 0:
                yield str(path.relative_to(folder))
    cache = folder / "cache"
    for path in cache.glob("*/run-*") if cache.exists() else ():
        yield str(path.relative_to(folder))
