"""What all queries share: table rows to records and back, by name, and the transaction around each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import wraps
from importlib import import_module
from inspect import isfunction
from operator import attrgetter
from typing import Any, TypedDict, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, insert, select

from storage.checks import is_symbol
from storage.damage import Damage
from storage.database import Database
from storage.errors import DamagedRow, InvalidRecord
from storage.patience import repeated
from storage.records import Record, unknown_for

RecordT = TypeVar("RecordT", bound=Record)


class PromotedFor(TypedDict, total=False):
    """What a symbol is tuned for; None stands for any."""

    profile: str | None
    workload_signature: str | None
    environment_fingerprint: str | None


class Queries:
    """Each method is one transaction and raises `StoreUnavailable` or `StoreCorrupt` when the store fails.

    What asks for one thing raises `DamagedRow` when that is damaged; what asks for many leaves such rows out, and
    `damage` names them. Every public method of a subclass is begun again when a server undid its transaction
    (`patience.repeated`).
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, method in list(vars(cls).items()):
            if not name.startswith("_") and isfunction(method):
                setattr(cls, name, _begun_again(method))

    def __init__(self, database: Database) -> None:
        self._database = database
        self.damage = Damage()

    def _append(self, table: Table, record: Record) -> int:
        with self._database.write() as connection:
            return append(connection, table, record)

    def _records(self, kind: type[RecordT], statement: Select[Any]) -> tuple[RecordT, ...]:
        with self._database.read() as connection:
            return records(connection, kind, statement, self.damage)


def _begun_again(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def whole(self: Queries, *given: Any, **named: Any) -> Any:
        return repeated(lambda: method(self, *given, **named))

    return whole


def to_record(kind: type[RecordT], row: Row[Any], table: Table) -> RecordT:
    """The row of `table` as a record of `kind`. Raises `DamagedRow`."""
    try:
        any_kind: Any = kind
        names, values_of = _reading(any_kind)
        # Past the __init__, which takes half the time of reading thousands of rows of a frozen class.
        record = object.__new__(kind)
        vars(record).update(zip(names, values_of(row), strict=True))
        record.__post_init__()
        return record
    except InvalidRecord as error:
        whose = f" of {row.symbol}" if is_symbol(getattr(row, "symbol", None)) else ""
        remedy = "restore a backup"
        if table.name == "promotions" and whose:
            remedy = f"`autotune rollback {row.symbol}` takes it out of use"
        raise DamagedRow(f"a row of {table.name}{whose} is damaged ({error}): {remedy}") from error


@functools.cache
def _reading(kind: Any) -> tuple[tuple[str, ...], Callable[[Row[Any]], tuple[Any, ...]]]:
    names = tuple(field.name for field in fields(kind))
    return names, attrgetter(*names)


def records(
    connection: Connection, kind: type[RecordT], statement: Select[Any], damage: Damage
) -> tuple[RecordT, ...]:
    """The rows that the query finds, as records of `kind`; what is damaged is left out and added to `damage`."""
    table = statement.selected_columns[0].table  # a join is of more than one; the record is the first's
    found = []
    for row in connection.execute(statement):
        try:
            found.append(to_record(kind, row, table))
        except DamagedRow as error:
            damage.add(table, row, error)
    return tuple(found)


def mended(kind: type[RecordT], row: Row[Any]) -> RecordT:
    """The row as a record of `kind`; what is damaged in it is given as unknown."""
    return kind(**{field.name: unknown_for(field, getattr(row, field.name)) for field in fields(kind)})


def columns(record: Record, *, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The record's fields by name, without those in `leave_out`."""
    return {name: value for name, value in vars(record).items() if name not in leave_out}


def matching(table: Table, **wanted: str | None) -> Select[Any]:
    """A query for the rows of `table` whose columns equal the values wanted; None stands for any."""
    return select(table).where(*conditions(table, **wanted))


def conditions(table: Table, **wanted: str | None) -> list[ColumnElement[bool]]:
    """The conditions of `matching`."""
    return [table.c[name] == value for name, value in wanted.items() if value is not None]


def append(connection: Connection, table: Table, record: Record, leave_out: tuple[str, ...] = ("id",)) -> int:
    """Store the record as a new row; the id that the database gave it."""
    new = insert(table).values(**columns(record, leave_out=leave_out)).returning(table.c.id)
    return int(connection.execute(new).scalar_one())


def append_all(
    connection: Connection, table: Table, new: Iterable[Record], leave_out: tuple[str, ...] = ("id",)
) -> int:
    """Store the records as new rows in this order, in one statement; how many."""
    rows = [columns(record, leave_out=leave_out) for record in new]
    if rows:
        connection.execute(insert(table), rows)
    return len(rows)


def insert_if_absent(connection: Connection, table: Table, record: Record) -> bool:
    """Store the record unless its primary key is there already; True when it was new."""
    # Only the dialect in use: PostgreSQL's brings asyncio and ssl, which take long to import.
    dialect = import_module(f"sqlalchemy.dialects.{connection.dialect.name}")
    new = dialect.insert(table).values(**columns(record)).on_conflict_do_nothing()
    return connection.execute(new.returning(*table.primary_key)).first() is not None
