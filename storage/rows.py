"""Turns table rows into records and back; both bear the same names."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any, TypeVar

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from storage.errors import InvalidRecord, StoreCorrupt
from storage.models import Base
from storage.records import Record

RecordT = TypeVar("RecordT", bound=Record)


def to_record(kind: type[RecordT], row: Base, **extra: object) -> RecordT:
    """The row as a record of `kind`; `extra` gives fields that the row lacks.

    Raises `StoreCorrupt` when the row holds what could never have been stored.
    """
    names = [field.name for field in fields(kind) if field.name not in extra]
    values: dict[str, Any] = {name: getattr(row, name) for name in names}
    try:
        return kind(**values, **extra)
    except InvalidRecord as error:
        raise StoreCorrupt(f"a row of {row.__tablename__} is damaged ({error}): restore a backup") from error


def columns(record: Record, *, leave_out: tuple[str, ...] = ()) -> dict[str, object]:
    """The record's fields by name, without those in `leave_out`."""
    return {
        field.name: getattr(record, field.name) for field in fields(record) if field.name not in leave_out
    }


def insert_if_absent(session: Session, table: type[Base], record: Record) -> bool:
    """Store the record unless its primary key is there already; True when it was new."""
    # Only the dialect in use: PostgreSQL's brings asyncio and ssl, which take long to import.
    dialect = import_module(f"sqlalchemy.dialects.{session.get_bind().dialect.name}")
    key = inspect(table).primary_key[0]
    new = dialect.insert(table).values(**columns(record)).on_conflict_do_nothing().returning(key)
    return session.execute(new).first() is not None
