"""Copies a live SQLite store with SQLite's backup interface, which sees one consistent state."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from storage.errors import StorageError, StoreUnavailable
from storage.snapshot import written_aside
from storage.sqlite_files import LOCKED, connect, translating

_OF_WRITING = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)  # the copy's: the source is only read


def back_up(source: Path, target: Path, *, busy_timeout_s: float, replace: bool = False) -> None:
    """Write a copy of `source` to `target`, whole or not at all, readable by its owner alone.

    Raises `StorageError` when `target` exists and `replace` is False, `StoreUnavailable` when `source` stays
    locked for `busy_timeout_s` seconds or `target` is unwritable, `StoreCorrupt` when `source` is damaged.
    """
    if target.exists() and not replace:
        raise StorageError(f"{target} exists already: name another file for the backup")

    def give_up_when_blocked(status: int, _remaining: int, _total: int) -> None:
        if status in LOCKED:  # the busy timeout is over by now; Python would go on trying for ever
            raise StoreUnavailable(f"{source} is locked by another process: back it up when that is done")

    with (
        written_aside(target) as aside,
        translating(str(source)),
        closing(connect(source, busy_timeout_s)) as live,
        closing(connect(aside, busy_timeout_s)) as copy,
    ):
        # A copy that fails is removed whole; a journal beside it would stay.
        copy.execute("PRAGMA journal_mode=OFF")
        copy.execute("PRAGMA synchronous=OFF")  # the whole file is synced before it gets its name
        try:
            live.backup(copy, progress=give_up_when_blocked)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in _OF_WRITING:
                raise
            raise StoreUnavailable(
                f"{target} cannot be written ({error}): check its folder and free space"
            ) from error
