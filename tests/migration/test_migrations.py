from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

import storage
from storage import migrations
from storage.database import Database, open_database
from storage.errors import SchemaTooNew, StoreCorrupt
from storage.migrations import (
    HEAD_REVISION,
    SCRIPT_LOCATION,
    VERSION_TABLE,
    current_revision,
    known_revisions,
    upgrade,
)
from storage.models import METADATA
from storage.repository import Repository
from tests.support.postgres import or_skipped
from tests.support.storage_samples import MEASUREMENT, PROMOTION, RUN, new_store, with_subjects

SECOND = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "0004"

def upgrade():
    op.create_table("notes", sa.Column("note", sa.Text(), nullable=False))
    op.execute("INSERT INTO notes VALUES ('made by 9999')")
"""
BROKEN = (
    SECOND
    + """
    op.execute("INSERT INTO there_is_no_such_table VALUES (1)")
"""
)


def _schema(path: Path) -> set[tuple[str, str, str | None]]:
    with closing(sqlite3.connect(path)) as connection:
        return set(connection.execute("SELECT type, name, sql FROM sqlite_master"))


def _revision(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute(f"SELECT version_num FROM {VERSION_TABLE}")]


def _later_version(folder: Path, monkeypatch: pytest.MonkeyPatch, revision: str = SECOND) -> None:
    """This package as a later version would be: with one more revision."""
    shutil.copytree(Path(migrations.__file__).parent, folder)
    (folder / "versions" / "rev_9999_notes.py").write_text(revision)
    monkeypatch.setattr(migrations, "SCRIPT_LOCATION", str(folder))
    monkeypatch.setattr("storage.database.HEAD_REVISION", "9999")


def test_the_named_head_is_the_newest_revision() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_heads() == [HEAD_REVISION]
    assert HEAD_REVISION in known_revisions()


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_upgrading_from_nothing_gives_exactly_the_declared_tables(tmp_path: Path, backend: str) -> None:
    with _store_of(backend, tmp_path) as database, database.read() as connection:
        assert current_revision(connection) == HEAD_REVISION
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
        )
        found = compare_metadata(context, METADATA)
    extra = [(step[0], step[1].name) for step in found]
    assert extra == ([] if backend == "sqlite" else [("remove_table", "write_marks")])
    assert not list(tmp_path.glob("*.bak"))


def test_a_table_that_migrations_forget_would_be_noticed(tmp_path: Path) -> None:
    with open_database(tmp_path / "a.db") as database, database.write() as connection:
        connection.exec_driver_sql("DROP TABLE telemetry")
        connection.exec_driver_sql("ALTER TABLE leases DROP COLUMN heartbeat_at")
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert {step[0] for step in compare_metadata(context, METADATA)} >= {"add_table", "add_column"}


def test_every_table_of_the_ledger_has_its_triggers(tmp_path: Path) -> None:
    open_database(tmp_path / "a.db").close()
    triggers = {name for kind, name, _ in _schema(tmp_path / "a.db") if kind == "trigger"}
    assert triggers == {
        f"{table}_no_{change}"
        for table in ("promotions", "rollbacks", "pins")
        for change in ("update", "delete")
    }


def _downgrade(database: Database, revision: str) -> None:
    with database._writers.begin() as connection:  # an older schema has no table of marks
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", SCRIPT_LOCATION)
        command.downgrade(config, revision)


def test_down_and_up_again_gives_the_same_schema(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with open_database(path) as database:
        before = _schema(path)
        _downgrade(database, "base")
        assert {name for kind, name, _ in _schema(path) if kind == "table"} == {VERSION_TABLE}
        assert database.revision() is None
        with database.write() as connection:
            upgrade(connection)
        assert _schema(path) == before
        assert database.check() == []


RUN_OF_0002 = text(
    "INSERT INTO runs (run_id, symbol, workload_signature, environment_fingerprint, profile, seed, started_at,"
    " status, owner_pid, owner_started, study_name)"
    " SELECT 'old', symbol, workload_signature, environment_fingerprint, profile, seed, started_at,"
    " status, owner_pid, owner_started, study_name FROM runs"
)


@contextmanager
def _store_of(backend: str, folder: Path) -> Iterator[Database]:
    with ExitStack() as stack:
        place: str | Path = folder / "a.db"
        if backend == "postgresql":
            place = stack.enter_context(or_skipped()).new_database()
        yield stack.enter_context(open_database(place))


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_runs_of_a_version_that_kept_no_hosts_have_none(tmp_path: Path, backend: str) -> None:
    with _store_of(backend, tmp_path) as database:
        repository = with_subjects(database)
        repository.add_measurement(MEASUREMENT)
        _downgrade(database, "0002")
        with database._writers.begin() as connection:
            connection.execute(RUN_OF_0002)
        database.bring_up_to_date()

        assert database.revision() == HEAD_REVISION
        assert database.check() == []
        without = replace(RUN, owner_host=None)
        assert repository.runs() == (without, replace(without, run_id="old"))
        assert [found.run_id for found in repository.measurements()] == [RUN.run_id]


def test_a_store_taken_back_to_nothing_opens_as_a_new_one(tmp_path: Path) -> None:
    with open_database(tmp_path / "a.db") as database:
        _downgrade(database, "base")
    with open_database(tmp_path / "a.db") as database:
        assert Repository(database).runs() == ()
    assert not list(tmp_path.glob("*.bak"))


def test_a_later_version_upgrades_a_full_store_after_a_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, copy = tmp_path / "a.db", tmp_path / "a.db.before-9999.bak"
    with new_store(path) as database:
        with_subjects(database).add_promotion(PROMOTION)
    with monkeypatch.context() as patched:
        _later_version(tmp_path / "later", patched)
        with open_database(path) as database:
            assert database.revision() == "9999"
            assert Repository(database).active_promotion("AMD") is not None
            assert database.check() == []
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT note FROM notes").fetchall() == [("made by 9999",)]
    assert _revision(copy) == [HEAD_REVISION]
    with open_database(copy) as database:
        assert Repository(database).runs() == (RUN,)
        assert database.check() == []
    with pytest.raises(SchemaTooNew, match="9999"):
        open_database(path)


def test_an_upgrade_that_fails_changes_nothing_and_leaves_the_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    with new_store(path) as database:
        with_subjects(database).add_promotion(PROMOTION)
    before = _schema(path)
    with monkeypatch.context() as patched:
        _later_version(tmp_path / "later", patched, BROKEN)
        for _ in range(2):
            with pytest.raises(StoreCorrupt, match="there_is_no_such_table"):
                open_database(path)
    assert (_schema(path), _revision(path)) == (before, [HEAD_REVISION])
    assert _revision(tmp_path / "a.db.before-9999.bak") == [HEAD_REVISION]
    with open_database(path) as database:
        assert Repository(database).active_promotion("AMD") is not None


def test_a_store_that_claims_two_revisions_is_damaged(tmp_path: Path) -> None:
    new_store(tmp_path / "a.db").close()
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute(f"INSERT INTO {VERSION_TABLE} VALUES ('9999')")
        connection.commit()
    with pytest.raises(StoreCorrupt, match="2 schema revisions"):
        open_database(tmp_path / "a.db")


def test_an_installed_copy_migrates_from_anywhere(tmp_path: Path) -> None:
    site = tmp_path / "site 100%"
    shutil.copytree(Path(storage.__file__).parent, site / "storage")
    code = (
        "import storage; from storage.database import open_database; "
        "print(storage.__file__, open_database('new/a.db').revision())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split("\n")[0] == f"{site / 'storage' / '__init__.py'} {HEAD_REVISION}"
    assert done.stderr == ""
