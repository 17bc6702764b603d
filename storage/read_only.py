"""Opens a store to look at it alone: nothing is created, upgraded or written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from storage.address import parse_address
from storage.database import Database
from storage.errors import StoreUnavailable
from storage.sqlite_files import AS_TEXT, DATABASE_ERRORS, refuse_cut_short, translated

_WAIT_SECONDS = 2
_ADDRESSES = "give a path or postgresql+psycopg://USER@HOST/NAME"


def read_only(store: str) -> Database:
    """The store without the upgrade that ``open_database`` makes, a file without the right to write."""
    address = parse_address(store)
    if address.path is not None:
        return _read_only_file(address.path.absolute())
    try:
        url = make_url(str(address.url))
        engine = create_engine(url, connect_args={"connect_timeout": _WAIT_SECONDS})
    except (ArgumentError, NoSuchModuleError, ValueError):
        raise StoreUnavailable(f"the store's address is no URL of a server: {_ADDRESSES}") from None
    except ImportError as error:
        fault = f"the server's driver is missing ({error}): pip install 'psycopg[binary]'"
        raise StoreUnavailable(fault) from None
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
