from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from storage.database import open_database
from storage.errors import SchemaTooNew, StorageError, StoreUnavailable
from storage.migrations import HEAD_REVISION, VERSION_TABLE
from storage.repository import Repository
from tests.support.storage_samples import ENVIRONMENT, PROMOTION, ROOT, new_store, with_subjects


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def test_a_new_store_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "autotune.db"
    with open_database(path) as database:
        assert database.revision() == HEAD_REVISION
    assert (_mode(path), _mode(path.parent)) == (0o600, 0o700)


def test_names_that_urls_treat_specially_are_plain_file_names(tmp_path: Path) -> None:
    path = tmp_path / "50% off?#1 ü.db"
    open_database(path).close()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_store_is_the_same_by_path_text_and_url(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Repository(open_database(path)).put(ENVIRONMENT)
    for address in (str(path), f"sqlite:///{path}"):
        with open_database(address) as database:
            assert Repository(database).environment("env-1") == ENVIRONMENT


def test_a_relative_path_keeps_its_meaning_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    repository = Repository(open_database("a.db"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    repository.put(ENVIRONMENT)
    assert Repository(open_database(tmp_path / "a.db")).environment("env-1") == ENVIRONMENT


def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    with open_database(tmp_path / "a.db") as database:
        assert database.check() == []
    assert not list(tmp_path.glob("*.bak"))


@pytest.mark.parametrize(
    "address",
    [":memory:", "sqlite://", "sqlite:///:memory:", "", "a\0b", "mysql://u:secret@h/db", "://", "x://y:z"],
)
def test_an_address_that_can_hold_no_store_is_refused_in_one_line(address: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        open_database(address)
    assert "secret" not in str(caught.value)


def test_an_unreachable_server_is_named_without_its_password() -> None:
    address = "postgresql+psycopg://someone:secret@127.0.0.1:1/none"
    with pytest.raises(StoreUnavailable) as caught:  # without psycopg installed: what to install
        open_database(address)
    assert "secret" not in str(caught.value)
    assert "psycopg" in str(caught.value)


def test_a_missing_store_is_made_only_when_asked(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="there is no store"):
        open_database(tmp_path / "a.db", create=False)
    assert list(tmp_path.iterdir()) == []
    open_database(tmp_path / "a.db").close()
    open_database(tmp_path / "a.db", create=False).close()


def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    new_store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(SchemaTooNew, match="9999"):
        open_database(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.db"]


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")  # as Optuna's are
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="something else"):
        open_database(path)
    assert path.read_bytes() == before


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    def delete_and_fail() -> None:
        with database.write() as connection:
            connection.exec_driver_sql("DELETE FROM series")
            raise ZeroDivisionError

    with new_store(tmp_path / "a.db") as database:
        repository = with_subjects(database)
        with pytest.raises(ZeroDivisionError):
            delete_and_fail()
        assert repository.series("series-1").points == 1000


def test_a_backup_is_a_whole_store_of_its_owner_alone(tmp_path: Path) -> None:
    with new_store(tmp_path / "a.db") as database:
        repository = with_subjects(database)
        repository.add_promotion(PROMOTION)
        database.backup(tmp_path / "copies" / "a.bak")
        with open_database(tmp_path / "copies" / "a.bak", create=False) as copy:
            assert Repository(copy).promotions() == repository.promotions()
            assert copy.check() == []
    assert _mode(tmp_path / "copies" / "a.bak") == 0o600
    assert [entry.name for entry in (tmp_path / "copies").iterdir()] == ["a.bak"]


def test_a_backup_never_overwrites(tmp_path: Path) -> None:
    with new_store(tmp_path / "a.db") as database:
        (tmp_path / "other").write_text("precious")
        for taken in (tmp_path / "other", tmp_path / "a.db", tmp_path):
            with pytest.raises(StorageError, match="exists already"):
                database.backup(taken)
    assert (tmp_path / "other").read_text() == "precious"


def test_check_names_dangling_references_and_a_wrong_revision(tmp_path: Path) -> None:
    with new_store(tmp_path / "a.db") as database:
        repository = with_subjects(database)
        repository.add_promotion(PROMOTION)
        assert database.check() == []
        with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
            connection.execute("DELETE FROM workloads")  # this connection checks no foreign keys
            connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
            connection.commit()
        problems = database.check()
    assert any("9999" in problem for problem in problems)
    assert any("promotions" in problem and "workloads" in problem for problem in problems)
    assert all(len(problem.splitlines()) == 1 for problem in problems)


def test_a_file_needs_neither_psycopg_nor_when_current_alembic(tmp_path: Path) -> None:
    new_store(tmp_path / "a.db").close()
    code = (
        "import sys; from storage.database import open_database; from storage.repository import Repository; "
        f"Repository(open_database({str(tmp_path / 'a.db')!r})).runs(); "
        "print([name for name in ('psycopg', 'alembic', 'autotuner', 'toto_core', 'torch', 'numpy') "
        "if name in sys.modules])"
    )
    assert _run(code) == "[]"


def test_the_snapshot_is_read_without_sqlalchemy() -> None:
    code = (
        "import sys; import storage.snapshot; "
        "print([name for name in sys.modules if name.split('.')[0] in "
        "('sqlalchemy', 'alembic', 'autotuner', 'toto_core', 'torch', 'numpy', 'pandas', 'optuna', 'click')])"
    )
    assert _run(code) == "[]"
