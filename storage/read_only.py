"""Opens a store to look at it alone: nothing is created, upgraded or written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import NullPool, create_engine

from storage.address import parse_address
from storage.database import Database
from storage.servers import server_engine, server_url
from storage.sqlite_files import AS_TEXT, DATABASE_ERRORS, refuse_cut_short, translated

_WAIT_SECONDS = 2


def read_only(store: str) -> Database:
    """The store without the upgrade that ``open_database`` makes, a file without the right to write."""
    address = parse_address(store)
    if address.path is not None:
        return _read_only_file(address.path.absolute())
    url = server_url(str(address.url), connect_timeout=str(_WAIT_SECONDS))
    engine = server_engine(url, lock_s=_WAIT_SECONDS, read_only=True)
    return Database(engine, path=None, busy_timeout_s=_WAIT_SECONDS)


def _read_only_file(path: Path) -> Database:
    def connect() -> sqlite3.Connection:
        uri = f"{path.as_uri()}?mode=ro"
        connection = sqlite3.connect(
            uri, uri=True, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = AS_TEXT
        return connection

    try:
        with closing(connect()) as connection:
            refuse_cut_short(connection, path)
    except DATABASE_ERRORS as error:
        raise translated(error, str(path)) from error
    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    return Database(engine, path=path, busy_timeout_s=_WAIT_SECONDS)
