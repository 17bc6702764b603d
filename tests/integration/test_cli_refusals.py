from __future__ import annotations

import functools
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storage import database as storage_database
from tests.support.invoking import refused, run
from tests.support.promoted_store import digest, measure, outcomes, poison, write

pytestmark = pytest.mark.usefixtures("no_variables")


SYMBOL_COMMANDS = (
    ("show",),
    ("explain",),
    ("history",),
    ("select", "--profile", "accuracy"),
    ("rollback",),
    ("pin", "--mode", "eager"),
    ("unpin",),
)
READING = (
    ("show", "AMD"),
    ("explain", "AMD"),
    ("list",),
    ("history",),
    ("select", "AMD", "--profile", "accuracy"),
    ("rollback", "AMD"),
    ("unpin", "AMD"),
    ("export",),
    ("db", "check"),
)
WRITING = (("pin", "AMD", "--mode", "eager"), ("db", "upgrade"))


class TestFaults:
    @pytest.mark.parametrize("symbol", ["../x", "A'; DROP TABLE", "", "A B", "É", "A" * 33, "-x\n"])
    @pytest.mark.parametrize("command", SYMBOL_COMMANDS, ids=lambda command: command[0])
    def test_what_is_no_symbol_is_refused(self, place: Path, command: tuple[str, ...], symbol: str) -> None:
        before = digest(place)
        assert "is not a symbol" in refused(run(place, *command, f"--symbol={symbol}"), 2)
        assert digest(place) == before

    def test_a_stored_profile_of_another_version_is_no_wrong_use(self, place: Path) -> None:
        poison(place, settings="{}")
        write(place, "DROP TRIGGER promotions_no_update")
        write(place, "UPDATE promotions SET profile = 'turbo'")
        said = refused(run(place, "explain", "AMD"), 1)
        assert "a profile that this version does not know, 'turbo'" in said

    @pytest.mark.parametrize("command", READING, ids=" ".join)
    def test_a_missing_store_is_named_and_not_made(self, tmp_path: Path, command: tuple[str, ...]) -> None:
        path = tmp_path / "none.db"
        assert str(path) in refused(run(path, *command), 1)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("command", [*READING, *WRITING], ids=" ".join)
    def test_garbage_is_named_and_left_as_it_is(self, tmp_path: Path, command: tuple[str, ...]) -> None:
        path = tmp_path / "garbage.db"
        path.write_bytes(b"not a database " * 1000)
        before = digest(path)
        assert str(path) in refused(run(path, *command), 1)
        assert digest(path) == before

    @pytest.mark.parametrize("command", [*READING, *WRITING], ids=" ".join)
    def test_a_database_of_something_else_is_left_as_it_is(
        self, tmp_path: Path, command: tuple[str, ...]
    ) -> None:
        path = tmp_path / "other.db"
        write(path, "CREATE TABLE trades (price REAL)")
        before = digest(path)
        assert str(path) in refused(run(path, *command), 1)
        assert digest(path) == before

    @pytest.mark.parametrize("command", [("rollback", "AMD"), *WRITING], ids=" ".join)
    def test_a_locked_store_is_named_and_left_as_it_is(
        self, place: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        impatient = functools.partial(storage_database.open_database, busy_timeout_s=0.1)
        monkeypatch.setattr("autotuner.store.open_database", impatient)
        monkeypatch.setattr("storage.database.open_database", impatient)
        before = digest(place)
        with closing(sqlite3.connect(place, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            line = refused(run(place, *command), 1)
        assert str(place) in line
        assert "locked" in line
        assert digest(place) == before

    @pytest.mark.parametrize(
        "command", [("show", "AMD"), ("select", "AMD", "--profile", "production")], ids=" ".join
    )
    def test_an_unknown_mode_in_the_store_is_named_with_its_remedy(
        self, place: Path, command: tuple[str, ...]
    ) -> None:
        measure(place, outcomes())
        poison(place, "AMD")
        before = digest(place)
        line = refused(run(place, *command), 1)
        assert "'warp'" in line
        assert "`autotune rollback AMD`" in line
        assert digest(place) == before
