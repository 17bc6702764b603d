"""Rows of the store, edited by hand in any column: commands, ticks, metrics and lookups say so and go on.

An input is a list of edits: table, column, place of the row, and the value, texts of ``_json`` columns as JSON.
"""

from __future__ import annotations

import functools
import json
import random
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from autotuner.cli import cli
from autotuner.errors import AutotuneError
from autotuner.store import Store
from autotuner.web import pages
from autotuner.web.metrics import metrics
from autotuner.web.site import Site
from storage.errors import StorageError
from storage.models import METADATA
from tests.faults.fuzzing import json_mutation, stores
from tests.faults.fuzzing.verdicts import check_command, check_line, refused_with

SECONDS = 5.0
COMMANDS = (
    ("list",),
    ("list", "--json"),
    ("show", "AMD"),
    ("show", "MSFT", "--json"),
    ("explain", "AMD"),
    ("history",),
    ("history", "AMD", "--json"),
    ("export",),
    ("db", "check"),
    ("top", "--once"),
    ("explain", "AMD", "--json"),
    ("report", "--csv"),
    ("report", "--markdown"),
)
_AT_ONCE = 4
_COLUMNS = {table.name: [column.name for column in table.columns] for table in METADATA.sorted_tables}


@functools.cache
def seeds() -> tuple[bytes, ...]:
    """One edit for each column of each row, that leaves what is there."""
    path = stores.fresh("rows-seed")
    found = []
    with closing(sqlite3.connect(path)) as connection:
        for table, columns in _COLUMNS.items():
            for place, row in enumerate(
                connection.execute(f"SELECT {', '.join(columns)} FROM {table} LIMIT 3")
            ):
                for column, value in zip(columns, row, strict=True):
                    read = json.loads(value) if column.endswith("_json") and value is not None else value
                    found.append(json.dumps([[table, column, place, read]]).encode())
    return tuple(found)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The values alone, now and then of two edits at once, and raw texts and bytes where JSON was."""
    try:
        edits = json.loads(data)
        ways = [[table, column, place, value] for table, column, place, value in edits]
    except (ValueError, TypeError, RecursionError):
        return chance.choice(seeds())
    if chance.random() < 0.2:
        ways += json.loads(chance.choice(seeds()))
    place = chance.randrange(len(ways))
    value = ways[place][3]
    way = chance.random()
    if way < 0.15:
        ways[place][3] = {"raw": json_mutation.rendered(json_mutation.changed(value, chance))[:50_000]}
    elif way < 0.2:
        ways[place][3] = {"blob": chance.randbytes(8).hex()}
    else:
        ways[place][3] = json_mutation.changed(value, chance)
    return json_mutation.rendered(ways).encode("utf-8", "surrogatepass")


def one(data: bytes) -> None:
    first = zlib.crc32(data) % len(COMMANDS)
    edited(stores.fresh("rows"), [data], (*COMMANDS, *COMMANDS)[first : first + _AT_ONCE])


def edited(path: Path, inputs: list[bytes], commands: tuple[tuple[str, ...], ...]) -> float:
    """Make the edits, then use the store in every way; the longest that a lookup took."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for data in inputs:
            for table, column, place, value in _edits(data):
                _edit(connection, table, column, place, value)
    for command in commands:
        check_command(
            CliRunner().invoke(cli, [*command, "--db", str(path)], prog_name="autotune"), alone=False
        )
    worst = stores.looked_up(path)
    try:
        with Store(str(path)) as store:
            try:
                stores.ticked(store)
            finally:
                store.publish()
    except StorageError as error:
        check_line(str(error))
    _pages(path)
    for line in filter(None, metrics(str(path), None).decode().split("\n")):
        check_line(line, "a line of metrics")
    return max(worst, stores.looked_up(path))


def _pages(path: Path) -> None:
    """The pages of the dashboard are there, or say in one line why not."""
    site = Site(location=str(path))
    with refused_with(StorageError, AutotuneError):
        pages.overview_page(site)
    with refused_with(StorageError, AutotuneError):
        pages.symbol_page(site, "AMD")


def _edits(data: bytes) -> list[tuple[str, str, int, Any]]:
    """The edits that name a column of a table; other bytes are none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return []
    edits = []
    for each in found if isinstance(found, list) else ():
        match each:
            case [str(table), str(column), int(place), value] if column in _COLUMNS.get(table, ()):
                edits.append((table, column, place, value))
    return edits


def _edit(connection: sqlite3.Connection, table: str, column: str, place: int, value: Any) -> None:
    row = connection.execute(
        f"SELECT rowid FROM {table} LIMIT 1 OFFSET ?", (min(abs(place), 100),)
    ).fetchone()
    if row is None:
        return
    try:
        connection.execute(
            f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (_stored(column, value), row[0])
        )
    except (sqlite3.Error, OverflowError, UnicodeEncodeError, ValueError):
        return  # what no row can hold


def _stored(column: str, value: Any) -> Any:
    match value:
        case {"raw": str(text)}:
            return text
        case {"blob": str(digits)}:
            return bytes.fromhex(digits)
    if column.endswith("_json") or isinstance(value, dict | list):
        return json.dumps(value)
    return value
