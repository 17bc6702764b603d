"""Every way in which people write where their store is names one place, for all that lies there, or is refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from autotuner.paths import is_file, snapshot_path, spool_folder, store_location, store_path, studies_url
from autotuner.serving.lookup import lookup
from autotuner.store import Store
from storage.address import Address, parse_address, sqlite_url
from storage.errors import StoreUnavailable

# Everything that one name may hold and a URL gives a meaning to.
NAMES = st.text(alphabet="ab ?#%&='\"~:;.-+@\u00fc", min_size=1, max_size=20)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a.db", "a.db"),
        ("~/a.db", "a.db"),
        ("sqlite:///a.db", "a.db"),
        ("sqlite:///~/a.db", "a.db"),
        ("sqlite+pysqlite:///a.db", "a.db"),
        ("sqlite:///my%20prices.db", "my prices.db"),
        ("sqlite:///my prices.db", "my prices.db"),
        ("my%20prices.db", "my%20prices.db"),
        ("what?.db", "what?.db"),
        ("a#1.db", "a#1.db"),
        ("sqlite:///a#1.db", "a#1.db"),
        ("sqlite:///a.db?timeout=30", "a.db"),
        ("file:a.db", "a.db"),
        ("file:my%20prices.db?timeout=5", "my prices.db"),
        ('"a.db"', "a.db"),
        ("'a.db'\r", "a.db"),
        ("a.db\r\n", "a.db"),
        ("  a.db  ", "a.db"),
        ('"sqlite:///a.db"\n', "a.db"),
    ],
)
def test_one_place_holds_the_store_and_everything_beside_it(home: Path, text: str, name: str) -> None:
    path = home / name
    with Store(text):
        pass
    assert path.is_file()
    assert store_path(text).absolute() == path
    assert snapshot_path(text).absolute() == path.with_name(f"{path.stem}.snapshot.db")
    assert spool_folder(text).absolute() == path.with_name(f"{path.stem}-spool")
    assert make_url(studies_url(text)).database == str(path.with_name(f"{path.stem}-studies.db"))
    assert {entry.name for entry in home.iterdir()} <= {path.name, f"{path.stem}.snapshot.db"}
    assert lookup("AMD", db=text).source == "default"


def test_absolute_urls_name_the_file_below_the_root(home: Path) -> None:
    for text in (f"sqlite:///{home}/a.db", f"file:{home}/a.db", f"file://{home}/a.db"):
        assert store_path(text) == home / "a.db"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sqlite://a.db", "sqlite:///a.db is a file in this folder"),
        ("sqlite:a.db", "sqlite:///a.db is a file in this folder"),
        ("sqlite://", "in memory would be lost"),
        ("sqlite:///:memory:", "in memory would be lost"),
        ("file::memory:", "in memory would be lost"),
        (":memory:", "in memory would be lost"),
        ("sqlite:///file:a.db?uri=true", "a URL in a URL"),
        ("sqlite:///file:a.db", "a URL in a URL"),
        ("sqlite:///a.db?mode=ro", "mode is no option of a store"),
        ("sqlite:///a.db?timeout=soon", "timeout must be seconds"),
        ("file:a.db?timeout=-1", "timeout must be seconds"),
        ("mysql://h/db", "cannot be kept in mysql"),
        ("a\0b", "is no file name"),
        ("a\nb.db", "is no file name"),
        ("sqlite:///a%0Ab.db", "is no file name"),
        ("~nobody-by-this-name/a.db", "no such user's home folder"),
        ('""', "is no file name"),
    ],
)
def test_what_names_no_place_is_refused_in_one_line_before_anything_is_written(
    home: Path, text: str, reason: str
) -> None:
    for read in (store_location, is_file, snapshot_path, spool_folder, studies_url, Store):
        with pytest.raises(StoreUnavailable) as refusal:
            read(text)
        (line,) = str(refusal.value).splitlines()
        assert reason in line
    assert list(home.iterdir()) == []
    assert lookup("AMD", db=text).source == "default"


def test_a_server_is_reached_through_the_driver_that_is_installed() -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        assert parse_address(f"{scheme}://u:p%40@h/db") == Address(url="postgresql+psycopg://u:p%40@h/db")
    assert parse_address("'postgresql+psycopg2://h/db'\r").url == "postgresql+psycopg2://h/db"


def test_a_timeout_in_the_address_reaches_the_store(home: Path) -> None:
    location = store_location("sqlite:///a.db?timeout=0.2")
    with Store(location):
        holding = sqlite3.connect("a.db", isolation_level=None)
        holding.execute("BEGIN EXCLUSIVE")
        try:
            with pytest.raises(StoreUnavailable), Store(location) as store:
                store.records.pins()
        finally:
            holding.close()


@given(name=NAMES)
def test_a_path_of_any_characters_and_its_url_are_one_place(name: str) -> None:
    path = Path("/data") / f"x{name}x"
    assert parse_address(str(path)).path == path
    assert parse_address(sqlite_url(path)).path == path
    assert make_url(sqlite_url(path)).database == str(path)
