"""A store of two symbols that share nothing, and values in it that nobody could have stored by its own means."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, Double, Text

from autotuner.environment import current_environment
from autotuner.store import Store
from storage.models import METADATA, UtcTime
from tests.support import seen_store
from tests.support.promoted_store import FAST, NOW, WORKLOAD

BAD, GOOD = "AMD", "AAPL"
ELSEWHERE = replace(current_environment(), threads=77)
ASKED = replace(WORKLOAD, calls_per_process=777)

TEXTS: tuple[Any, ...] = ("", "\x1b]0;x\x07", "x" * 100_000, b"\xff\xfe\x00", "1e5")
JSON: tuple[Any, ...] = (
    *("", "{", "5", "[]", '"\\ud800"', "null", "[NaN]", '{"a": 1e999}', b"\xff{}"),
    *("9" * 400, "9" * 5_000, "[" * 3_000 + "]" * 3_000, "[" * 440 + "]" * 440),
)
TIMES: tuple[Any, ...] = (
    *("", "noon", 5, b"\xff", "2026-05-04T12:00:00"),
    *("0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00", "0001-01-01T00:00:00+14:00"),
)
NUMBERS: tuple[Any, ...] = ("many", -1, 2**62, 1.5, 9e999, b"\xff")
LEAVES: tuple[Any, ...] = ("text", -1, 0, 10**399, 1e308, 1e-308, [], {}, None, True, "\ud800")


class Place(NamedTuple):
    """A column of a table."""

    table: str
    column: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"


def values_of(column: Column[Any]) -> tuple[Any, ...]:
    """What nobody could have stored there."""
    if isinstance(column.type, UtcTime):
        return TIMES
    if isinstance(column.type, BigInteger | Double):
        return NUMBERS
    if isinstance(column.type, Text):
        return JSON if column.name.endswith("_json") else TEXTS
    return ()


PLACES = {
    Place(table.name, column.name): values_of(column)
    for table in METADATA.sorted_tables
    for column in table.columns
    if values_of(column)
}


def two_symbols(path: Path) -> None:
    """BAD and GOOD, both tuned, pinned and watched; what BAD's rows name is BAD's alone."""
    for number, symbol in enumerate((BAD, GOOD)):
        seen_store.tuned(path, symbol, seed=number)
    with Store(str(path)) as store:
        for symbol in (BAD, GOOD):
            store.pin(symbol, FAST, "a week")
        store.remember_setting(ASKED, ELSEWHERE)
        store.remember_selftest(ELSEWHERE, {"blocks": 3}, at=NOW)
        store.records.acquire_lease("a card", "somebody", NOW, timedelta(days=20_000).total_seconds())
    theirs = {
        "environment_fingerprint": (current_environment().fingerprint, ELSEWHERE.fingerprint),
        "workload_signature": (WORKLOAD.signature, ASKED.signature),
    }
    with editing(path) as connection:
        for table in METADATA.sorted_tables:
            for name, (ours, its) in theirs.items():
                if name in table.c and "symbol" in table.c:
                    connection.execute(f"UPDATE {table.name} SET {name} = ? WHERE symbol = ?", (its, BAD))
                if table.name == "telemetry":
                    changed = (
                        "UPDATE telemetry SET payload_json = replace(payload_json, ?, ?) WHERE symbol = ?"
                    )
                    connection.execute(changed, (ours, its, BAD))
    with Store(str(path)) as store:
        store.publish()


@contextmanager
def editing(path: Path) -> Iterator[sqlite3.Connection]:
    """The file by hand, past every check, trigger and reference."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        yield connection


def spoil(path: Path, place: Place, value: object) -> int:
    """Write ``value`` into every row of BAD; how many there were."""
    with editing(path) as connection:
        statement = f"UPDATE OR IGNORE {place.table} SET {place.column} = ? WHERE {_bads(place.table)}"
        return connection.execute(statement, (value,)).rowcount


def spoil_a_leaf(path: Path, place: Place, chance: random.Random) -> None:
    """Put something else in one place of the JSON of every row of BAD."""
    with editing(path) as connection:
        rows = connection.execute(
            f"SELECT rowid, {place.column} FROM {place.table} "
            f"WHERE {place.column} IS NOT NULL AND {_bads(place.table)}"
        ).fetchall()
        for rowid, text in rows:
            other = json.dumps(changed(json.loads(text), chance))
            connection.execute(f"UPDATE {place.table} SET {place.column} = ? WHERE rowid = ?", (other, rowid))


def changed(value: Any, chance: random.Random) -> Any:
    """``value`` with something else at one place, however deep."""
    inside = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    if not inside or chance.random() < 0.1:
        return chance.choice(LEAVES)
    key = chance.choice(list(inside))
    if isinstance(value, dict) and chance.random() < 0.1:
        return {name: each for name, each in value.items() if name != key}
    copy = value.copy()
    copy[key] = changed(value[key], chance)
    return copy


def _bads(table: str) -> str:
    if "symbol" in METADATA.tables[table].c:
        return f"symbol = '{BAD}'"
    return {
        "environments": f"fingerprint = '{ELSEWHERE.fingerprint}'",
        "workloads": f"signature = '{ASKED.signature}'",
        "rollbacks": f"promotion_id IN (SELECT id FROM promotions WHERE symbol = '{BAD}')",
        "selftests": f"environment_fingerprint = '{ELSEWHERE.fingerprint}'",
    }.get(table, "1")
