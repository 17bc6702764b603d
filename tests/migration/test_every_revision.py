"""Stores of every earlier schema, with rows in every table: today's code brings them up to date and loses nothing."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, Table, create_engine, insert, select

from autotuner.serving.lookup import lookup
from autotuner.store import Store
from autotuner.workload import Workload
from storage import migrations
from storage.backup import back_up
from storage.database import open_database
from storage.migrations import HEAD_REVISION, VERSION_TABLE
from storage.records import LeaseRecord, TelemetryRecord
from storage.repository import Repository
from tests.support.invoking import document, refused, run
from tests.support.postgres import or_skipped
from tests.support.promoted_store import (
    BF16,
    EAGER,
    FAST,
    NOW,
    STEADY,
    digest,
    measure,
    outcomes,
    promotion,
)

EARLIER = sorted(
    script.revision
    for script in ScriptDirectory(str(Path(migrations.__file__).parent)).walk_revisions()
    if script.revision != HEAD_REVISION
)
KILLS = 5
Tables = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The rows of a store that was really used: by runs, promotions, roll-backs, pins, notes and self-tests."""
    path = tmp_path_factory.mktemp("full") / "autotune.db"
    subject = measure(path, outcomes())
    with Store(str(path)) as store:
        store.promote(promotion(chosen=STEADY))
        store.promote(promotion(minutes=1))
        store.promote(promotion("MSFT", BF16))
        store.records.roll_back("MSFT", "slow", NOW)
        store.pin("TSLA", EAGER, "earnings week")
        store.pin("GOOG", EAGER, "over")
        store.records.unpin("GOOG", "over", NOW)
        store.begin_run(subject, profile="accuracy", seed=1, study="left", resume=False)
        store.records.acquire_lease("machine/cpu", '{"pid":1}', NOW, 30.0)
        store.remember_selftest(subject.environment, {"false_winner_rate": 0.01}, at=NOW)
        store.records.add_telemetry(
            TelemetryRecord(
                symbol="AMD",
                settings_key=FAST.key,
                window_start=NOW,
                window_end=NOW + timedelta(hours=1),
                payload_json="{}",
            )
        )
        with store._database.write() as connection:
            artifact = {
                "environment_fingerprint": subject.environment.fingerprint,
                "settings_key": FAST.key,
                "model_digest": "weights",
                "engine_version": "2",
                "path": "/cache/1",
                "sha256": "0" * 64,
                "bytes": 7,
                "created_at": NOW.isoformat(timespec="microseconds"),
            }
            connection.execute(insert(_reflected(connection)["artifacts"]), artifact)
    with open_database(path) as database, database.read() as connection:
        return {
            name: [dict(row._mapping) for row in connection.execute(select(table))]
            for name, table in _reflected(connection).items()
        }


def _reflected(connection: Any) -> dict[str, Table]:
    """The tables that are there, parents before what refers to them."""
    known = MetaData()
    known.reflect(connection)
    return {table.name: table for table in known.sorted_tables if table.name != VERSION_TABLE}


def store_of(revision: str, place: str, rows: Tables) -> Tables:
    """Make a store of that revision from nothing, as its version did, and fill every table; what is in it."""
    url = place if "://" in place else f"sqlite:///{place}"
    engine = create_engine(url)
    with engine.begin() as connection:
        command.upgrade(migrations._config(connection), revision)
        filled = {}
        for name, table in _reflected(connection).items():
            filled[name] = [
                {key: value for key, value in row.items() if key in table.c} for row in rows[name]
            ]
            assert filled[name], f"no row of {name}: add one to `full`"
            connection.execute(insert(table), filled[name])
    engine.dispose()
    return filled


def left_out(place: str | Path, filled: Tables) -> list[str]:
    """What of the rows a store lacks now, in the columns they had."""
    with open_database(place) as database, database.read() as connection:
        tables = _reflected(connection)
        return [
            f"{name}: {row}"
            for name, rows in filled.items()
            for row in rows
            if row
            not in [
                {key: each._mapping[key] for key in row} for each in connection.execute(select(tables[name]))
            ]
        ]


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Callable[[], str]]:
    """Makes empty databases on one server."""
    with or_skipped() as server:
        yield server.new_database


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.exhaustive)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "autotune.db")
    new: Callable[[], str] = request.getfixturevalue("postgresql")
    return new()


@pytest.mark.parametrize("revision", EARLIER)
def test_nothing_of_an_earlier_store_is_lost(revision: str, place: str, full: Tables) -> None:
    filled = store_of(revision, place, full)
    with open_database(place) as database:
        assert database.revision() == HEAD_REVISION
        assert database.check() == []
        records = Repository(database)
        counts = {
            "runs": len(records.runs()),
            "measurements": len(records.measurements()),
            "promotions": len(records.promotions()),
            "pins": len(records.pin_history()),
            "telemetry": len(records.telemetry()),
            "leases": len(records.leases(NOW)),
        }
        assert counts == {name: len(filled[name]) for name in counts}
        (held,) = records.leases(NOW)
        assert isinstance(held, LeaseRecord)
    assert left_out(place, filled) == []


@pytest.mark.parametrize("revision", EARLIER)
def test_commands_work_on_an_earlier_store_of_which_a_copy_is_kept(
    revision: str, tmp_path: Path, full: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AUTOTUNE_DB", "TOTO_DISABLE_COMPILE", "TOTO_COMPILE_MODE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "autotune.db"
    filled = store_of(revision, str(path), full)
    listed = document(path, "list")["symbols"]
    assert [each["symbol"] for each in listed] == ["AMD", "TSLA"]
    assert lookup("AMD", db=str(path)).settings == FAST
    assert lookup("TSLA", db=str(path)).source == "pin"

    copy = tmp_path / f"autotune.db.before-{HEAD_REVISION}.bak"
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall() == [(revision,)]
    assert copy.stat().st_mode & 0o077 == 0
    assert left_out(copy, filled) == []  # and opens by itself

    assert document(path, "show", "AMD")["ratio"]["estimate"] == 2.81
    assert {each["event"] for each in document(path, "history")["history"]} == {
        "promotion",
        "pinned",
        "unpinned",
        "run",
    }
    assert document(path, "select", "AMD", "--profile", "accuracy")["settings"] == STEADY.to_dict()
    assert document(path, "rollback", "AMD")["active"]["settings"] == FAST.to_dict()
    assert run(path, "db", "check").exit_code == 0
    with Store(str(path)) as store:
        subject = store.measured_subject("AMD")
        assert subject is not None
        assert subject.workload == Workload()
        (unfinished,) = store.records.unfinished_runs("AMD")
        assert store.records.resume_run(
            unfinished.run_id, owner_pid=1, owner_started=1.0, owner_host="here", resumed_at=NOW
        )


@pytest.mark.parametrize("revision", EARLIER)
def test_an_upgrade_killed_at_any_moment_leaves_the_old_schema_or_the_new(
    revision: str, tmp_path: Path, full: Tables
) -> None:
    earlier, chance = tmp_path / "earlier.db", random.Random(1)
    filled = store_of(revision, str(earlier), full)
    found = set()
    for number in range(KILLS):
        path = tmp_path / str(number) / "autotune.db"
        back_up(earlier, path, busy_timeout_s=5.0)
        child = os.fork()
        if child == 0:
            try:
                open_database(path)
            finally:
                os._exit(0)
        time.sleep(0.12 * chance.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with closing(sqlite3.connect(path)) as connection:
            found |= set(connection.execute(f"SELECT version_num FROM {VERSION_TABLE}"))
        assert left_out(path, filled) == []
        with open_database(path) as database:
            assert database.check() == []
        kept = {path.name, f"{path.name}.before-{HEAD_REVISION}.bak"}
        assert {entry.name for entry in path.parent.iterdir()} <= kept
    assert found <= {(revision,), (HEAD_REVISION,)}


def test_an_upgrade_killed_between_two_of_its_steps_goes_on_with_the_next_command(
    tmp_path: Path, full: Tables
) -> None:
    path = tmp_path / "autotune.db"
    filled = store_of(EARLIER[0], str(path), full)
    child = os.fork()
    if child == 0:
        from alembic import op

        vars(op)["add_column"] = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # after 0002, amid 0003
        try:
            open_database(path)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchall() == [(EARLIER[0],)]
    assert run(path, "list").exit_code == 0
    assert left_out(path, filled) == []


def test_a_store_of_a_version_to_come_is_refused_in_one_line_and_left_alone(
    tmp_path: Path, full: Tables
) -> None:
    path = tmp_path / "autotune.db"
    store_of(HEAD_REVISION, str(path), full)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    before = digest(path)
    for asked in (
        ("list",),
        ("pin", "AMD", "--mode", "eager"),
        ("db", "upgrade"),
        ("db", "prune"),
        ("rollback", "AMD"),
        ("db", "backup", str(tmp_path / "copy.db")),
    ):
        assert "has schema revision 9999, this version only" in refused(run(path, *asked), 1)
    assert digest(path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
