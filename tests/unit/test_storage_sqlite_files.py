from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage.database import open_database
from storage.sqlite_files import connect, journal_mode
from tests.support.storage_samples import new_store


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 6, 23), "DELETE"),
        ((3, 40, 1), "DELETE"),
        ((3, 44, 5), "DELETE"),
        ((3, 44, 6), "WAL"),
        ((3, 44, 9), "WAL"),
        ((3, 45, 0), "DELETE"),
        ((3, 49, 2), "DELETE"),
        ((3, 50, 6), "DELETE"),
        ((3, 50, 7), "WAL"),
        ((3, 51, 0), "DELETE"),
        ((3, 51, 2), "DELETE"),
        ((3, 51, 3), "WAL"),
        ((3, 52, 0), "WAL"),
        ((4, 0, 0), "WAL"),
    ],
)
def test_a_write_ahead_log_is_used_only_where_its_reset_bug_is_fixed(
    version: tuple[int, int, int], mode: str
) -> None:
    assert journal_mode(version) == mode


def test_connections_sync_commits_and_the_removal_of_their_journal_and_check_foreign_keys(
    tmp_path: Path,
) -> None:
    new_store(tmp_path / "a.db").close()
    with closing(connect(tmp_path / "a.db", 0.75)) as connection:
        pragmas = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"synchronous": 3, "foreign_keys": 1, "busy_timeout": 750}


def test_a_connection_never_makes_a_file(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        connect(tmp_path / "a.db", 0.1)
    assert not (tmp_path / "a.db").exists()


def test_opening_puts_a_file_into_the_journal_mode_of_this_library(tmp_path: Path) -> None:
    new_store(tmp_path / "a.db").close()
    wanted = journal_mode(sqlite3.sqlite_version_info)
    other = "DELETE" if wanted == "WAL" else "WAL"
    with closing(connect(tmp_path / "a.db", 1)) as connection:
        connection.execute(f"PRAGMA journal_mode={other}")
        assert connection.execute("PRAGMA journal_mode").fetchone()[0].upper() == other
    open_database(tmp_path / "a.db").close()
    with closing(connect(tmp_path / "a.db", 1)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0].upper() == wanted
