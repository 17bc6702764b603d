"""``autotune db copy``: whole or not at all, the same rows with the same ids, from either kind to the other."""

from __future__ import annotations

import functools
import math
import signal
import sqlite3
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import func, select

from autotuner.cli import cli
from autotuner.paths import snapshot_path, studies_url
from autotuner.search.study_storage import open_storage, tables
from storage.database import open_database
from storage.models import MEASUREMENTS, METADATA, TELEMETRY
from storage.records import ArtifactRecord, SelfTestRecord, TelemetryRecord
from storage.repository import Repository
from storage.snapshot import read_snapshot
from tests.support.command import Cli
from tests.support.invoking import document_of, refused
from tests.support.postgres import Server, or_skipped
from tests.support.storage_samples import ENVIRONMENT, MEASUREMENT, NOW, PIN, PROMOTION, with_subjects

HARD = 'ü\u2028\n\t\x01\\N"\U0001d7d9'


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("autotuner.paths.data_folder", lambda: tmp_path)


@functools.cache
def _files() -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "a.db"
        fill(str(place))
        return place.read_bytes(), place.with_name("a-studies.db").read_bytes()


def filled(location: str) -> None:
    """A file that holds what ``fill`` stores."""
    place = Path(location)
    for path, content in zip((place, place.with_name(f"{place.stem}-studies.db")), _files(), strict=True):
        path.write_bytes(content)


def fill(location: str) -> None:
    """Rows in every table, gaps between ids, and texts and numbers that are easily changed."""
    with open_database(location) as database:
        records = with_subjects(database)
        for number in range(7):
            records.add_measurement(replace(MEASUREMENT, detail=HARD * number))
            records.add_promotion(replace(PROMOTION, settings_key=f"key-{number}"))
        records.roll_back("AMD", HARD, NOW)
        records.pin(PIN)
        records.unpin("AMD", "", NOW + timedelta(microseconds=1))
        records.acquire_lease("cpu", "me", NOW, 30.0)
        records.add_artifact(
            ArtifactRecord(
                environment_fingerprint="env-1",
                settings_key="k",
                model_digest="m",
                engine_version="1",
                path="/a",
                sha256="0" * 64,
                bytes=2**40,
                created_at=NOW,
            )
        )
        records.add_selftest(
            SelfTestRecord(environment_fingerprint="env-1", measured_at=NOW, result_json='{"a":0.1}')
        )
        window = TelemetryRecord(
            symbol="AMD", settings_key="k", window_start=NOW, window_end=NOW, payload_json="{}"
        )
        first, _ = records.add_telemetry(window), records.add_telemetry(window)
        with database.write() as connection:
            connection.execute(TELEMETRY.delete().where(TELEMETRY.c.id == first))
    with_studies(location)


def with_studies(location: str, name: str = HARD) -> None:
    storage = open_storage(studies_url(location))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=storage, study_name=name)
    study.set_user_attr("who", HARD)
    storage.set_study_system_attr(study._study_id, "it", {"a": [1, None]})
    study.enqueue_trial({"x": 0.25})
    for value in (0.1, math.inf, 1e-300):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.suggest_categorical("mode", ["eager", "default"])
        trial.report(value, 1)
        trial.set_user_attr("owner", {"pid": 1})
        trial.set_constraint("drift", -0.5)
        study.tell(trial, value)
    study.ask()
    storage.remove_session()
    storage.engine.dispose()


def dump(location: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, as the database gives it."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    with open_database(location) as database, database.read() as connection:
        for table in METADATA.sorted_tables:
            found[table.name] = sorted(map(tuple, connection.execute(select(table)).all()), key=repr)
    storage = open_storage(studies_url(location), read_only=True)
    with storage.engine.connect() as connection:
        for table in tables():
            found[table.name] = sorted(map(tuple, connection.execute(select(table)).all()), key=repr)
    storage.remove_session()
    storage.engine.dispose()
    return found


def rows(location: str) -> int:
    """How many rows the store itself has."""
    with open_database(location) as database, database.read() as connection:
        counts = (select(func.count()).select_from(table) for table in METADATA.sorted_tables)
        return sum(connection.execute(count).scalar_one() for count in counts)


def copied(source: str, target: str, *options: str) -> Result:
    return CliRunner().invoke(cli, ["db", "copy", source, target, *options], catch_exceptions=False)


def document(source: str, target: str) -> dict[str, Any]:
    result = copied(source, target, "--json")
    assert result.exit_code == 0, result.stderr
    return document_of(result)


def test_a_store_comes_back_from_a_server_as_it_went_there(tmp_path: Path, postgres: Server) -> None:
    origin, back, url = str(tmp_path / "a.db"), str(tmp_path / "back.db"), postgres.new_database()
    filled(origin)
    before = dump(origin)
    assert [name for name, found in before.items() if not found] == ["trial_heartbeats"]

    there = document(origin, url)
    assert dump(url) == before
    home = document(url, back)
    assert dump(back) == dump(origin) == before
    assert there["tables"] == home["tables"]
    assert there["rows"] == sum(map(len, before.values()))
    with open_database(back) as database:
        assert database.check() == []
    snapshot = read_snapshot(there["snapshot"])
    assert [entry.settings_key for entry in snapshot.entries] == ["key-5"]
    assert read_snapshot(snapshot_path(back)).entries == snapshot.entries


def test_what_is_stored_after_a_copy_gets_the_next_ids(tmp_path: Path, postgres: Server) -> None:
    origin, url = str(tmp_path / "a.db"), postgres.new_database()
    filled(origin)
    document(origin, url)
    with open_database(origin) as one, open_database(url) as other:
        for add in ("add_measurement", "add_promotion"):
            record = MEASUREMENT if add == "add_measurement" else PROMOTION
            assert getattr(Repository(other), add)(record) == getattr(Repository(one), add)(record)
    with_studies(url, "another study")
    names = {study.study_name for study in _studies(url)}
    assert names == {HARD, "another study"}


def _studies(location: str) -> list[Any]:
    storage = open_storage(studies_url(location), read_only=True)
    try:
        return list(storage.get_all_studies())
    finally:
        storage.remove_session()
        storage.engine.dispose()


def test_a_store_without_studies_is_copied_to_a_file_and_makes_none(tmp_path: Path) -> None:
    with open_database(tmp_path / "a.db") as database:
        with_subjects(database)
    document(str(tmp_path / "a.db"), str(tmp_path / "b.db"))
    assert rows(str(tmp_path / "b.db")) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "b.db", "b.snapshot.db"]


@pytest.mark.parametrize("kind", ["file", "server"])
def test_what_holds_anything_is_refused_and_left_as_it_is(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    origin, target = str(tmp_path / "a.db"), str(tmp_path / "b.db")
    if kind == "server":
        target = request.getfixturevalue("postgres").new_database()
    filled(origin)
    with open_database(target) as database:
        Repository(database).put(ENVIRONMENT)
    assert "is no empty store (environments: 1 rows)" in refused(copied(origin, target), 1)
    assert rows(target) == 1


def test_a_store_is_not_copied_to_itself_nor_from_nowhere(tmp_path: Path) -> None:
    place = tmp_path / "a.db"
    filled(str(place))
    (tmp_path / "link.db").symlink_to(place)
    before = dump(str(place))
    for same in (place, f"sqlite:///{place}", tmp_path / "link.db"):
        assert "is what is to be copied" in refused(copied(str(place), str(same)), 2)
    assert dump(str(place)) == before
    assert "there is no store at" in refused(copied(str(tmp_path / "none.db"), str(tmp_path / "b.db")), 1)
    assert not (tmp_path / "b.db").exists()


def test_a_row_that_cannot_be_kept_leaves_nothing_of_the_others(tmp_path: Path, postgres: Server) -> None:
    origin, url = str(tmp_path / "a.db"), postgres.new_database()
    filled(origin)
    with closing(sqlite3.connect(origin)) as damaged, damaged:
        damaged.execute("UPDATE telemetry SET payload_json = 'a' || char(0)")
    assert "NUL" in refused(copied(origin, url), 1)
    assert rows(url) == 0
    assert _studies(url) == []


def test_a_target_that_keeps_something_else_is_noticed_and_left_empty(tmp_path: Path) -> None:
    origin, target = tmp_path / "a.db", tmp_path / "b.db"
    filled(str(origin))
    open_database(target).close()
    with closing(sqlite3.connect(target)) as changed, changed:
        changed.execute(
            "CREATE TRIGGER meddler AFTER INSERT ON measurements BEGIN "
            "UPDATE measurements SET detail = 'x' WHERE id = NEW.id AND id = 5; END"
        )
    assert "does not give measurements back" in refused(copied(str(origin), str(target)), 1)
    assert rows(str(target)) == 0
    assert _studies(str(target)) == []


def _large(place: Path) -> None:
    """A store over whose copy a second goes by, with studies."""
    filled(str(place))
    with closing(sqlite3.connect(place)) as connection, connection:
        names = ", ".join(column.name for column in MEASUREMENTS.columns if column.name != "id")
        connection.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) "
            f"INSERT INTO measurements ({names}) SELECT {names} FROM n, (SELECT * FROM measurements LIMIT 1)"
        )


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["file", "server"])
def test_a_copy_killed_at_any_moment_is_whole_or_nothing(tmp_path: Path, postgres: Server, kind: str) -> None:
    origin = tmp_path / "a.db"
    _large(origin)
    whole = rows(str(origin))
    alone = time.monotonic()  # of a whole process: how long it takes hangs on the machine, and on the target
    first = postgres.new_database() if kind == "server" else str(tmp_path / "first.db")
    assert Cli(tmp_path).run("db", "copy", str(origin), first).returncode == 0
    alone = time.monotonic() - alone
    seen: set[int] = set()
    for number in range(12):
        target = postgres.new_database() if kind == "server" else str(tmp_path / f"{number}.db")
        with Cli(tmp_path).start("db", "copy", str(origin), target) as process:
            time.sleep((number + 0.5) / 12 * 1.2 * alone)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        left = rows(target)
        studies = _studies(target) if _has_studies(target) else []
        assert left in {0, whole}
        assert len(studies) == (1 if left else 0)
        seen.add(left)
        if not left:
            document(str(origin), target)  # what a killed copy leaves is empty
            assert rows(target) == whole
    assert 0 in seen


def _has_studies(location: str) -> bool:
    try:
        _studies(location)
    except Exception:  # no tables yet
        return False
    return True


@pytest.mark.exhaustive
@pytest.mark.timeout(600)
def test_a_server_killed_in_mid_copy_has_all_or_nothing(tmp_path: Path) -> None:
    origin = tmp_path / "a.db"
    _large(origin)
    with or_skipped() as server:
        for number in range(6):
            target = server.new_database()
            with Cli(tmp_path).start("db", "copy", str(origin), target) as process:
                time.sleep(2.5 + number * 0.7)
                server.kill()
                time.sleep(1.0)
                server.start()
                _, err = process.communicate()
            if process.returncode:
                assert err.splitlines()[-1].startswith("Error: ")
                assert rows(target) == 0
                document(str(origin), target)
            assert rows(target) == rows(str(origin))
