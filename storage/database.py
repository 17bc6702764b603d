"""Opens a store, keeps its schema current, and hands out transactions."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, NullPool, Table, create_engine, event, inspect, text

from storage.address import Address, parse_address
from storage.backup import back_up
from storage.errors import SchemaTooNew, StorageError, StoreUnavailable
from storage.masking import masked_address
from storage.migrations import HEAD_REVISION, VERSION_TABLE, current_revision, known_revisions, upgrade
from storage.patience import opened
from storage.servers import be_alone_in_upgrading, marked_write, server_engine, server_url
from storage.sqlite_files import (
    connect,
    create_file,
    is_stored_unsynced,
    refuse_cut_short,
    settle_journal_mode,
    sync_stored,
    translated,
    translating,
)

BUSY_TIMEOUT_S = 5.0
_BEGIN = "storage_begin"  # execution option: what BEGIN says on SQLite
# To make a file is to open and close it, which would drop the locks another thread has on it by then.
_CREATING = threading.Lock()


class Database(AbstractContextManager["Database"]):
    """An open store. Made by `open_database`; safe to share between threads."""

    def __init__(self, engine: Engine, *, path: Path | None, busy_timeout_s: float) -> None:
        self.path = path
        self.label = str(path) if path else shown(engine.url)
        self.busy_timeout_s = busy_timeout_s
        self._engine = engine
        self._readers = engine
        if path is None:  # as on SQLite: one state for all queries of a transaction
            self._readers = engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        # Write transactions that begin by reading could deadlock: they ask for the lock at once.
        self._writers = engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One write transaction: committed and synced when the block ends, undone when it raises.

        Raises `StoreUnavailable` when another writer holds the store for longer than the busy timeout,
        `TryAgain` when a server undid it or never answered, `MissingReference`, `StoreCorrupt` or another
        `StorageError` for what the database refuses.
        """
        begun = self._writers.begin() if self.path else marked_write(self._writers, self._translated)
        ended = False
        try:
            with translating(self.label), begun as connection:
                yield connection
                ended = True
        except StorageError as error:
            if not (ended and self.path and is_stored_unsynced(error)):
                raise
            sync_stored(self.path)

    def _translated(self, error: Exception) -> StorageError:
        return translated(error, self.label)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One read transaction: every query in it sees the same state. Raises as `write` does."""
        with translating(self.label), self._readers.begin() as connection:
            yield connection

    def lock(self, connection: Connection, *tables: Table) -> None:
        """At the begin of a write transaction: keep all other writers from these tables until it ends."""
        if connection.dialect.name == "postgresql":  # on SQLite a writer is alone anyway
            names = ", ".join(table.name for table in tables)
            connection.execute(text(f"LOCK TABLE {names} IN EXCLUSIVE MODE"))

    def revision(self) -> str | None:
        """The schema revision of the store. Raises `StorageError`."""
        with translating(self.label), self._readers.begin() as connection:
            return current_revision(connection)

    def check(self) -> list[str]:
        """What is wrong with the store, one line each; empty when all is well. Reads the whole file."""
        problems: list[str] = []
        try:
            with translating(self.label), self._readers.begin() as connection:
                revision = current_revision(connection)
                if revision != HEAD_REVISION:
                    problems.append(f"the schema is at revision {revision}, not {HEAD_REVISION}")
                if self.path:
                    problems += _sqlite_problems(connection)
        except StorageError as error:
            problems.append(str(error))
        return problems

    def backup(self, path: str | Path) -> None:
        """Copy the store to a new file. Raises `StorageError` when `path` exists or the store is no file."""
        if self.path is None:
            raise StorageError(f"{self.label} is not a file: back it up with pg_dump")
        back_up(self.path, Path(path), busy_timeout_s=self.busy_timeout_s)

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def bring_up_to_date(self) -> None:
        """Upgrade the schema to `HEAD_REVISION`, after a backup of what an existing file holds.

        Raises `SchemaTooNew` for a newer version's store, `StoreUnavailable` for a database that is no store.
        """
        if self.revision() == HEAD_REVISION:
            return
        with translating(self.label), self._writers.begin() as connection:
            if self.path is None:  # on SQLite a writer is alone anyway
                be_alone_in_upgrading(connection)
            revision = current_revision(connection)  # again, now that nobody else can upgrade
            if revision == HEAD_REVISION:
                return
            tables = set(inspect(connection).get_table_names()) - {VERSION_TABLE}
            if revision is None and tables:
                raise StoreUnavailable(
                    f"{self.label} holds tables of something else: name another file for the store"
                )
            if revision is not None and revision not in known_revisions():
                raise SchemaTooNew(
                    f"{self.label} has schema revision {revision}, this version only {HEAD_REVISION}: upgrade it"
                )
            if self.path and tables:
                copy = self.path.with_name(f"{self.path.name}.before-{HEAD_REVISION}.bak")
                back_up(self.path, copy, busy_timeout_s=self.busy_timeout_s, replace=True)
            upgrade(connection)

    def with_file(self, act: Callable[[sqlite3.Connection, Path], None]) -> None:
        """Run `act` on a connection to the store's file; nothing for a server. Raises `StorageError`."""
        if self.path is not None:
            with translating(self.label), closing(connect(self.path, self.busy_timeout_s)) as connection:
                act(connection, self.path)


def shown(url: URL) -> str:
    """The URL of a server for people: ``hide_password`` alone would leave ``?password=``."""
    return masked_address(url.render_as_string(hide_password=True))


def open_database(
    url_or_path: str | Path, *, create: bool = True, busy_timeout_s: float = BUSY_TIMEOUT_S
) -> Database:
    """Open the store at a place that `parse_address` reads, and update its schema.

    A missing or empty file becomes a new store if `create`. Raises `StoreUnavailable` when it cannot be
    reached, read or upgraded now, `StoreCorrupt` when it is damaged, `SchemaTooNew` when it is newer.
    """
    address = Address(path=url_or_path) if isinstance(url_or_path, Path) else parse_address(url_or_path)
    timeout_s = busy_timeout_s if address.timeout_s is None else address.timeout_s
    if address.path is None:
        engine = server_engine(server_url(str(address.url)), lock_s=timeout_s)
        database = Database(engine, path=None, busy_timeout_s=timeout_s)
    else:
        path = address.path.absolute()
        with _CREATING:
            _require_file(path, create=create)
        database = Database(_file_engine(path, timeout_s), path=path, busy_timeout_s=timeout_s)
    try:
        database.with_file(refuse_cut_short)
        opened(database.bring_up_to_date)
        database.with_file(settle_journal_mode)  # only now is it sure to be one of our stores
    except BaseException:
        database.close()
        raise
    return database


def _require_file(path: Path, *, create: bool) -> None:
    try:
        if path.exists() and not path.is_file():
            raise StoreUnavailable(f"{path} is not a regular file: name a file for the store")
        if path.exists() and path.stat().st_size > 0:
            return
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be looked at ({error.strerror}): check the folder") from error
    if not create:
        raise StoreUnavailable(f"there is no store at {path}: check the path, or store something first")
    create_file(path)


def _file_engine(path: Path, busy_timeout_s: float) -> Engine:
    # No pool: a connection never outlives its transaction, so none is inherited by a forked child.
    engine = create_engine("sqlite://", creator=lambda: connect(path, busy_timeout_s), poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(str(connection.get_execution_options().get(_BEGIN, "BEGIN")))

    return engine


def _sqlite_problems(connection: Connection) -> list[str]:
    damage = [row[0] for row in connection.exec_driver_sql("PRAGMA integrity_check(20)") if row[0] != "ok"]
    dangling = [
        f"row {row[1]} of {row[0]} names a row of {row[2]} that does not exist"
        for row in connection.exec_driver_sql("PRAGMA foreign_key_check")
    ]
    return [" ".join(line.split()) for line in damage + dangling]
