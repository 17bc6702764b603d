"""Copies a whole store into an empty one of either kind: in one transaction, and read back before that ends."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    NullPool,
    Table,
    create_engine,
    event,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeDecorator

from storage.database import Database
from storage.errors import StorageError
from storage.models import METADATA
from storage.servers import marked_write, server_engine, server_url
from storage.sqlite_files import connect, translated, translating

_ROWS_AT_ONCE = 1000
_SAY_EVERY_S = 5.0
_SPACE = 1 << 256

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Both databases of a store: its own, and that of its studies in ``schema``, a second file or one on the server.

    ``location`` is the store's path or URL and ``studies`` the path of the studies' file, None where there is none.
    """

    database: Database
    location: str
    schema: str
    studies: Path | None = None


@dataclass(frozen=True, kw_only=True)
class CopiedTable:
    """A table that is the same on both sides: as many ``rows``, and a ``digest`` of what is in them."""

    name: str
    rows: int
    digest: str


def copy_store(source: Place, target: Place, others: Sequence[Table], say: Say) -> tuple[CopiedTable, ...]:
    """Copy every row of the store and of ``others``, the tables of its studies, with their ids; all or nothing.

    The target must have its tables, and nothing in them. Raises ``StorageError`` where it is not empty, where a row
    cannot be kept there, or where what is read back is something else.
    """
    with _reading(source) as origin, _writing(target) as copy:
        tables = [_plain(table, None) for table in METADATA.sorted_tables]
        tables += [
            _plain(table, source.schema) for table in others if _is_there(origin, table, source.schema)
        ]
        _refuse_what_is_used(copy, tables, target)
        copied = [_copied(origin, copy, table, say) for table in tables]
        for table, before in zip(tables, copied, strict=True):
            if _seen(copy, table) != before:
                raise StorageError(
                    f"{target.database.label} does not give {table.fullname} back as it was copied"
                )
        _set_sequences(copy, tables)
    return tuple(copied)


@contextmanager
def _reading(place: Place) -> Iterator[Connection]:
    """One transaction that sees one state of all tables."""
    engine = _engine(place, "BEGIN")
    if place.database.path is None:
        engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    try:
        with translating(place.database.label), engine.begin() as connection:
            if connection.dialect.name == "sqlite":  # a file is locked by its first reading
                for _, name, _file in connection.exec_driver_sql("PRAGMA database_list").all():
                    connection.exec_driver_sql(f"SELECT count(*) FROM {name}.sqlite_master")  # noqa: S608
            yield connection
    finally:
        engine.dispose()


@contextmanager
def _writing(place: Place) -> Iterator[Connection]:
    """One transaction that nobody else writes beside."""
    engine = _engine(place, "BEGIN IMMEDIATE")
    label = place.database.label
    try:
        begun: AbstractContextManager[Connection] = engine.begin()
        if place.database.path is None:
            begun = marked_write(engine, lambda error: translated(error, label))
        with translating(label), begun as connection:
            if place.database.path is None:
                _settle(connection, place.schema)
            yield connection
    finally:
        engine.dispose()


def _engine(place: Place, begin: str) -> Engine:
    path, studies = place.database.path, place.studies
    if path is None:
        return server_engine(server_url(place.location), lock_s=place.database.busy_timeout_s)

    def opened() -> sqlite3.Connection:
        connection = connect(path, place.database.busy_timeout_s)
        if studies is not None:
            # One transaction over both files is committed in both or in neither (https://sqlite.org/atomiccommit.html).
            uri = f"file://{quote_from_bytes(bytes(studies.absolute()))}?mode=rw"
            connection.execute(f"ATTACH DATABASE ? AS {place.schema}", (uri,))
            connection.execute(f"PRAGMA {place.schema}.synchronous=FULL")
        return connection

    engine = create_engine("sqlite://", creator=opened, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _settle(connection: Connection, schema: str) -> None:
    """Let the statements of a copy take the time they need, and find the types of the studies' tables."""
    for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(text(f"SET LOCAL {setting} = 0"))
    path = connection.execute(text("SHOW search_path")).scalar_one()
    connection.execute(text(f"SET LOCAL search_path = {path}, {schema}"))


def _plain(table: Table, schema: str | None) -> Table:
    """The table as the database keeps it: times as text, and no conversion that could fail or change anything."""
    columns = [
        Column(
            column.name,
            column.type.impl_instance if isinstance(column.type, TypeDecorator) else column.type,
            primary_key=column.primary_key,
            autoincrement=column.autoincrement,
        )
        for column in table.columns
    ]
    return Table(table.name, MetaData(schema=schema), *columns)


def _is_there(connection: Connection, table: Table, schema: str) -> bool:
    return inspect(connection).has_table(table.name, schema=schema)


def _refuse_what_is_used(copy: Connection, tables: Sequence[Table], target: Place) -> None:
    if copy.dialect.name == "postgresql":
        names = ", ".join(table.fullname for table in tables)
        copy.execute(text(f"LOCK TABLE {names} IN EXCLUSIVE MODE"))
    for table in tables:
        rows = copy.execute(select(func.count()).select_from(table)).scalar_one()
        if rows:
            raise StorageError(
                f"{target.database.label} is no empty store ({table.name}: {rows:,} rows): "
                "name another place for the copy"
            )


def _copied(origin: Connection, copy: Connection, table: Table, say: Say) -> CopiedTable:
    """Copy the rows; how many they were, and what was in them."""
    whole = origin.execute(select(func.count()).select_from(table)).scalar_one()
    seen, said = _Seen(), time.monotonic()
    for rows in _batches(origin, table):
        _insert(copy, table, rows)
        seen.add(rows)
        if time.monotonic() - said >= _SAY_EVERY_S:
            said = time.monotonic()
            say(f"{table.name}: {seen.rows:,} of {whole:,} rows")
    return seen.of(table)


def _insert(copy: Connection, table: Table, rows: Sequence[Any]) -> None:
    if copy.dialect.name != "postgresql":
        copy.execute(insert(table), [dict(row._mapping) for row in rows])
        return
    driver: Any = copy.connection.driver_connection  # an INSERT of a row takes twenty times as long
    names = ", ".join(column.name for column in table.columns)
    try:
        with driver.cursor().copy(f"COPY {table.fullname} ({names}) FROM STDIN") as stream:
            for row in rows:
                stream.write_row([value.name if isinstance(value, Enum) else value for value in row])
    except copy.dialect.loaded_dbapi.Error as error:  # as SQLAlchemy gives it of its own statements
        raise DBAPIError(f"COPY {table.name}", None, error, connection_invalidated=driver.closed) from error


def _seen(connection: Connection, table: Table) -> CopiedTable:
    seen = _Seen()
    for rows in _batches(connection, table):
        seen.add(rows)
    return seen.of(table)


def _batches(connection: Connection, table: Table) -> Iterator[Sequence[Any]]:
    statement = select(table).execution_options(yield_per=_ROWS_AT_ONCE)
    yield from connection.execute(statement).partitions()


class _Seen:
    """Counts rows and adds up their hashes, so that their order, which databases see differently, does not matter."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, rows: Sequence[Any]) -> None:
        for row in rows:
            digest = hashlib.sha256(repr(tuple(row)).encode()).digest()
            self._sum = (self._sum + int.from_bytes(digest)) % _SPACE
        self.rows += len(rows)

    def of(self, table: Table) -> CopiedTable:
        return CopiedTable(name=table.name, rows=self.rows, digest=f"{self._sum:064x}")


def _set_sequences(copy: Connection, tables: Sequence[Table]) -> None:
    """What is stored next gets the id after the last one; SQLite does so by itself."""
    if copy.dialect.name != "postgresql":
        return
    for table in tables:
        (*_, key) = table.primary_key.columns
        if not isinstance(key.type, Integer):
            continue
        named = {"table": table.fullname, "column": key.name}
        sequence = copy.execute(text("SELECT pg_get_serial_sequence(:table, :column)"), named).scalar_one()
        newest = copy.execute(select(func.max(key))).scalar_one()
        if sequence is not None and newest is not None:
            copy.execute(
                text("SELECT setval(CAST(:name AS regclass), :newest)"), {"name": sequence, "newest": newest}
            )
