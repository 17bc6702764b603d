from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.paths import (
    cache_folder,
    data_folder,
    is_file,
    snapshot_path,
    spool_folder,
    store_location,
    store_path,
    studies_url,
)

SERVER = "postgresql+psycopg://trader@db.example/autotune"
names = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "AUTOTUNE_DB", "AUTOTUNE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_store_that_is_named_wins_over_the_variable_and_the_variable_over_the_user_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_location() == str(data_folder() / "autotune.db")
    monkeypatch.setenv("AUTOTUNE_DB", "/data/a.db")
    assert store_location() == "/data/a.db"
    assert store_location("b.db") == "b.db"
    assert store_location(None, {"AUTOTUNE_DB": "c.db"}) == "c.db"


def test_an_empty_variable_counts_as_none(home: Path) -> None:
    assert store_location("", {"AUTOTUNE_DB": ""}) == str(data_folder() / "autotune.db")
    assert cache_folder({"AUTOTUNE_CACHE": ""}) == cache_folder({})


def test_the_user_folders_lie_in_the_home_folder_and_are_not_made(home: Path) -> None:
    for folder in (data_folder(), cache_folder()):
        assert home in folder.parents
        assert not folder.exists()


def test_the_cache_folder_can_be_named(home: Path) -> None:
    assert cache_folder({"AUTOTUNE_CACHE": "/fast/cache"}) == Path("/fast/cache")
    assert cache_folder({"AUTOTUNE_CACHE": "~/cache"}) == home / "cache"


@pytest.mark.parametrize("store", ["a.db", "/data/a.db", "sqlite:////data/a.db", "~/a.db", "file:/data/a.db"])
def test_a_path_and_a_sqlite_url_are_files(store: str) -> None:
    assert is_file(store)


def test_a_server_is_no_file() -> None:
    assert not is_file(SERVER)


def test_a_url_and_a_path_of_the_same_file_share_everything(home: Path) -> None:
    assert store_path("sqlite:////data/a.db") == store_path("/data/a.db") == Path("/data/a.db")
    assert store_path("~/a.db") == home / "a.db"
    assert snapshot_path("sqlite:////data/a.db") == snapshot_path("/data/a.db")
    assert spool_folder("sqlite:////data/a.db") == spool_folder("/data/a.db")
    assert studies_url("sqlite:////data/a.db") == studies_url("/data/a.db")


def test_all_files_of_a_store_lie_beside_it_under_names_of_their_own() -> None:
    assert snapshot_path("/data/a.db") == Path("/data/a.snapshot.db")
    assert spool_folder("/data/a.db") == Path("/data/a-spool")
    assert studies_url("/data/a.db") == "sqlite:////data/a-studies.db"


@given(names, names)
def test_two_stores_in_one_folder_share_nothing(first: str, second: str) -> None:
    stores = [f"/data/{first}.db", f"/data/{second}.db"]
    for place in (snapshot_path, spool_folder, studies_url):
        assert (place(stores[0]) == place(stores[1])) == (first == second)
    taken = {str(snapshot_path(stores[0])), str(spool_folder(stores[0])), studies_url(stores[0])}
    assert len(taken | {stores[0]}) == 4


def test_what_belongs_to_a_server_lies_in_the_user_folder_and_shows_no_password(home: Path) -> None:
    secret = "postgresql+psycopg://trader:hunter2@db.example/autotune"
    for place in (snapshot_path(secret), spool_folder(secret)):
        assert place.parent == data_folder()
        assert "hunter2" not in str(place)
    assert snapshot_path(secret) != snapshot_path(SERVER)
    assert spool_folder(secret) != spool_folder(SERVER)


def test_a_server_keeps_its_studies_in_a_schema_of_their_own() -> None:
    schema = "options=-csearch_path%3Dautotune_studies"
    assert studies_url(SERVER) == f"{SERVER}?{schema}"
    assert studies_url(f"{SERVER}?sslmode=require") == f"{SERVER}?sslmode=require&{schema}"
