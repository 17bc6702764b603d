"""What all queries share: table rows to records and back, by name, and the transaction around each."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any, TypedDict, TypeVar

from sqlalchemy import ColumnElement, Select, inspect, select
from sqlalchemy.orm import Session

from storage.database import Database
from storage.errors import InvalidRecord, StoreCorrupt
from storage.models import Base
from storage.records import Record

RecordT = TypeVar("RecordT", bound=Record)


class PromotedFor(TypedDict, total=False):
    """What a symbol is tuned for; None stands for any."""

    profile: str | None
    workload_signature: str | None
    environment_fingerprint: str | None


class Queries:
    """Each method is one transaction and raises `StoreUnavailable` or `StoreCorrupt` when the store fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def _append(self, table: type[Base], record: Record) -> int:
        with self._database.write() as session:
            return append(session, table, record)

    def _records(self, kind: type[RecordT], statement: Select[Any]) -> tuple[RecordT, ...]:
        with self._database.read() as session:
            return records(session, kind, statement)


def to_record(kind: type[RecordT], row: Base, **extra: object) -> RecordT:
    """The row as a record of `kind`, with the fields it lacks from `extra`. Raises `StoreCorrupt` if damaged."""
    names = [field.name for field in fields(kind) if field.name not in extra]
    values: dict[str, Any] = {name: getattr(row, name) for name in names}
    try:
        return kind(**values, **extra)
    except InvalidRecord as error:
        raise StoreCorrupt(f"a row of {row.__tablename__} is damaged ({error}): restore a backup") from error


def records(session: Session, kind: type[RecordT], statement: Select[Any]) -> tuple[RecordT, ...]:
    """The rows that the query finds, as records of `kind`."""
    return tuple(to_record(kind, row) for row in session.scalars(statement))


def columns(record: Record, *, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The record's fields by name, without those in `leave_out`."""
    return {name: value for name, value in vars(record).items() if name not in leave_out}


def matching(table: type[Base], **wanted: str | None) -> Select[Any]:
    """A query for the rows of `table` whose columns equal the values wanted; None stands for any."""
    return select(table).where(*conditions(table, **wanted))


def conditions(table: type[Base], **wanted: str | None) -> list[ColumnElement[bool]]:
    """The conditions of `matching`."""
    return [getattr(table, name) == value for name, value in wanted.items() if value is not None]


def append(session: Session, table: type[Base], record: Record, leave_out: tuple[str, ...] = ("id",)) -> int:
    """Store the record as a new row; the id that the database gave it."""
    row: Any = table(**columns(record, leave_out=leave_out))
    session.add(row)
    session.flush()
    return int(row.id)


def insert_if_absent(session: Session, table: type[Base], record: Record) -> bool:
    """Store the record unless its primary key is there already; True when it was new."""
    # Only the dialect in use: PostgreSQL's brings asyncio and ssl, which take long to import.
    dialect = import_module(f"sqlalchemy.dialects.{session.get_bind().dialect.name}")
    key = inspect(table).primary_key[0]
    new = dialect.insert(table).values(**columns(record)).on_conflict_do_nothing().returning(key)
    return session.execute(new).first() is not None
