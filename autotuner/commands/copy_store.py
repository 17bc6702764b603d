"""Copies a store with its studies from a file to a server, from a server to a file, or from either to its like."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from optuna.exceptions import OptunaError
from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError

from autotuner.errors import AutotuneError, UsageError, one_line
from autotuner.paths import STUDIES_SCHEMA, is_file, snapshot_path, store_path, studies_url
from autotuner.search.study_storage import open_storage, tables
from storage.copying import CopiedTable, Place, copy_store
from storage.database import Database, open_database
from storage.repository import Repository

Say = Callable[[str], None]


def copy(source: str, target: str, say: Say) -> tuple[str, str, tuple[CopiedTable, ...]]:
    """Copy the store at ``source`` to ``target``, both as ``paths.store_location`` says, and publish its snapshot.

    What the two are called, and what was copied. Raises ``UsageError`` where both are the same, ``AutotuneError`` or
    ``StorageError`` where it cannot be; nothing is copied then.
    """
    if _same(source, target):
        raise UsageError(f"{target} is what is to be copied: name another place for the copy")
    with open_database(source, create=False) as origin, open_database(target) as copied_to:
        studies = _has_studies(source, origin)
        if studies:
            for place in (source, target):
                _make_studies(place)
        copied = copy_store(
            _place(source, origin, studies=studies),
            _place(target, copied_to, studies=studies),
            tables() if studies else (),
            say,
        )
        Repository(copied_to).publish_snapshot(snapshot_path(target))
        return origin.label, copied_to.label, copied


def _place(location: str, database: Database, *, studies: bool) -> Place:
    file = store_path(studies_url(location)) if studies and is_file(location) else None
    return Place(database=database, location=location, schema=STUDIES_SCHEMA, studies=file)


def _same(source: str, target: str) -> bool:
    if not (is_file(source) and is_file(target)):
        return source == target
    one, other = store_path(source), store_path(target)
    with contextlib.suppress(OSError):
        return one.resolve() == other.resolve() or one.samefile(other)
    return False


def _has_studies(location: str, database: Database) -> bool:
    if is_file(location):
        return Path(store_path(studies_url(location))).is_file()
    with database.read() as connection:
        return inspect(connection).has_table("studies", schema=STUDIES_SCHEMA)


def _make_studies(location: str) -> None:
    """Make the tables of the studies unless they are there. Raises ``AutotuneError`` for those of another version."""
    with _said(location):
        storage = open_storage(studies_url(location))
        storage.remove_session()
        storage.engine.dispose()


@contextlib.contextmanager
def _said(location: str) -> Iterator[None]:
    try:
        yield
    except (OptunaError, SQLAlchemyError, RuntimeError, AssertionError) as error:
        what = store_path(studies_url(location)) if is_file(location) else f"schema {STUDIES_SCHEMA}"
        raise AutotuneError(
            f"{what}: the studies cannot be copied: {one_line(str(error.__cause__ or error))}"
        ) from error
