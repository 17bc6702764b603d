"""Brings a store's schema to the revision this version knows, inside the caller's transaction."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from storage.errors import StoreCorrupt

if TYPE_CHECKING:  # an up-to-date store is opened without importing Alembic
    from alembic.config import Config

HEAD_REVISION = "0004"
SCRIPT_LOCATION = "storage:migrations"
# Not Alembic's default name: Optuna's databases have a table of that name.
VERSION_TABLE = "schema_revision"

_ALEMBIC = threading.Lock()  # its context is one global per process


def current_revision(connection: Connection) -> str | None:
    """The schema revision of the store, None for one without our tables.

    Raises `StoreCorrupt` when it claims several.
    """
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all()  # noqa: S608
    if len(found) > 1:
        raise StoreCorrupt(f"the store claims {len(found)} schema revisions at once: restore a backup")
    return str(found[0]) if found else None


def known_revisions() -> frozenset[str]:
    """Every revision this version can upgrade from, and the newest."""
    from alembic.script import ScriptDirectory

    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def upgrade(connection: Connection) -> None:
    """Upgrade to the newest revision within the connection's transaction: all of it or nothing."""
    from alembic import command

    with _ALEMBIC:
        command.upgrade(_config(connection), "head")


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", SCRIPT_LOCATION)
    return config
