"""What is particular to SQLite: its journal mode, its files and connections, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote_from_bytes

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from storage.errors import MissingReference, StorageError, StoreCorrupt, StoreUnavailable
from storage.masking import masked
from storage.servers import translated_server_error
from storage.whole_files import make_folders, sync

_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})
AS_TEXT = partial(str, encoding="utf-8", errors="surrogateescape")
"""Text that is not UTF-8 comes as halves of surrogate pairs, which no record holds: it damages its row alone."""
LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_UNREACHABLE = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
# Python's sqlite3 fails with UnicodeDecodeError when the message about damage quotes the damage; a host that is no
# name fails with UnicodeError.
DATABASE_ERRORS = (DBAPIError, PoolTimeoutError, sqlite3.Error, UnicodeError)

_NO_CODE = -1  # of an error that Python's module raises rather than SQLite, as for text that is not UTF-8
_FOREIGN_KEY_VIOLATION = "23503"  # PostgreSQL's SQLSTATE


def journal_mode(version: tuple[int, int, int]) -> str:
    """The journal mode that is safe with this version of the SQLite library.

    Releases 3.7.0 to 3.51.2 can corrupt a write-ahead log when a checkpoint meets a WAL reset; the fix is in
    3.51.3 and was carried back to 3.50.7 and 3.44.6 (https://sqlite.org/wal.html).
    """
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)
    return "WAL" if fixed else "DELETE"


def create_file(path: Path) -> None:
    """Make an empty 0600 file unless there is one, in a folder made 0700 if missing. Raises `StoreUnavailable`."""
    try:
        make_folders(path.parent)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        if not path.parent.is_dir():
            raise StoreUnavailable(
                f"{path.parent} is not a folder: name another place for the store"
            ) from None
    except OSError as error:
        raise StoreUnavailable(
            f"{path} cannot be created ({error.strerror}): check the folder and its owner"
        ) from error


def refuse_cut_short(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `StoreCorrupt` for a file shorter than its pages, which SQLite may take for whole or empty.

    The file is never opened here: closing it would drop the locks of this process's other connections to it
    (https://sqlite.org/howtocorrupt.html, section 2.2). Raises `sqlite3.Error`.
    """
    connection.execute("BEGIN")
    (pages,) = connection.execute("PRAGMA page_count").fetchone()  # takes the lock that keeps writers out
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    try:
        length = path.stat().st_size
    except OSError as error:
        raise StoreUnavailable(f"{path} is gone ({error.strerror}): check the folder") from error
    connection.execute("COMMIT")
    cut = mode != "wal" and length < pages * page_bytes  # a write-ahead log may hold the rest
    if cut or (length > 0 and pages == 0):
        raise StoreCorrupt(f"{path} is cut short or no store: restore a backup or move it aside")


def connect(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """An autocommit connection to an existing file; commits sync, foreign keys hold. Raises `sqlite3.Error`."""
    uri = f"file://{quote_from_bytes(os.fsencode(path.absolute()))}?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
    )
    connection.text_factory = AS_TEXT
    try:
        # More than FULL: with a rollback journal the commit is its removal, which a power cut could undo.
        connection.execute("PRAGMA synchronous=EXTRA")
        connection.execute("PRAGMA foreign_keys=ON")
    except DATABASE_ERRORS:
        connection.close()
        raise
    return connection


def undo_interrupted(path: Path) -> bool:
    """Have SQLite undo what a killed writer of this file left half done, as at its next use; whether it did.

    The journal of a living writer is left to it.
    """
    journal = path.with_name(f"{path.name}-journal")
    if not journal.exists():
        return False
    with suppress(sqlite3.Error), closing(connect(path, 0.0)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return not journal.exists()


def is_stored_unsynced(error: StorageError) -> bool:
    """Whether a commit failed only in syncing the folder, when its journal is removed: others see what it wrote."""
    cause = error.__cause__
    original = cause.orig if isinstance(cause, DBAPIError) else cause
    return getattr(original, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_DIR_FSYNC


def sync_stored(path: Path) -> None:
    """Sync the folder of a store once more, without which a power cut could undo the last commit.

    Raises `StoreUnavailable`, which says that the change is stored all the same.
    """
    try:
        sync(path.resolve().parent)  # where the journal lay, also of a store that is a link
    except OSError as error:
        raise StoreUnavailable(
            f"the change is stored in {path}, but a power cut could undo it: its folder cannot be synced "
            f"({error.strerror}): check the disk"
        ) from error


def settle_journal_mode(connection: sqlite3.Connection, _path: Path) -> None:
    """Put the file into the `journal_mode` of this SQLite. Raises `sqlite3.Error`, as while others use it."""
    mode = journal_mode(sqlite3.sqlite_version_info)
    (found,) = connection.execute("PRAGMA journal_mode").fetchone()
    if found.upper() != mode:
        connection.execute(f"PRAGMA journal_mode={mode}")


@contextmanager
def translating(store: str) -> Iterator[None]:
    """Raise the error of this package that stands for a database error about `store`."""
    try:
        yield
    except DATABASE_ERRORS as error:
        raise translated(error, store) from error


def translated(error: Exception, store: str) -> StorageError:
    """The error of this package that stands for a database error about `store`."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(cause, sqlite3.Error):
        return _translated_sqlite(cause, store)
    if isinstance(cause, UnicodeDecodeError):
        return StoreCorrupt(f"{store} is damaged ({cause.reason}): restore a backup or move it aside")
    if isinstance(cause, UnicodeEncodeError) and cause.encoding.replace("-", "") == "utf8":
        return StorageError(f"{store} keeps no text that is not UTF-8: restore a backup of what holds it")
    if isinstance(cause, UnicodeError):
        return StoreUnavailable(f"{store} cannot be reached (its host is no host name): check the address")
    if getattr(cause, "sqlstate", None) == _FOREIGN_KEY_VIOLATION:
        return _missing_reference(store)
    detail = masked(str(cause))
    said = translated_server_error(error, cause, store, detail)
    return said or StorageError(f"{store} refused the request: {detail}")


def _translated_sqlite(error: sqlite3.Error, store: str) -> StorageError:
    extended: int = getattr(error, "sqlite_errorcode", _NO_CODE)
    code = extended & 0xFF
    misses_tables = code == sqlite3.SQLITE_ERROR and str(error).startswith("no such")
    not_utf8 = extended == _NO_CODE and isinstance(error, sqlite3.OperationalError)
    if code in LOCKED:
        return StoreUnavailable(f"{store} is locked by another process: try again when that is done")
    if code in _UNREACHABLE:
        return StoreUnavailable(f"{store} cannot be used ({error}): check its folder, owner and free space")
    if code in _CORRUPT or misses_tables or not_utf8:
        return StoreCorrupt(f"{store} is damaged or no store ({error}): restore a backup or move it aside")
    if extended == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
        return _missing_reference(store)
    return StorageError(f"{store} refused the request: {error}")


def _missing_reference(store: str) -> MissingReference:
    return MissingReference(
        f"{store} lacks the environment, workload, series or run that the record names: store that first"
    )
