"""Whatever text an edited store holds, in whichever field, pages and reports show it as text or say what is wrong."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Text

from autotuner.errors import AutotuneError
from autotuner.report.html_report import html_report
from autotuner.report.symbol_view import symbol_view
from autotuner.report.text_reports import csv_report, markdown_report
from autotuner.store import Store
from autotuner.web import pages
from autotuner.web.site import Site
from storage.errors import StorageError
from storage.models import METADATA
from tests.integration.test_report import Page
from tests.support import seen_store

pytestmark = pytest.mark.usefixtures("no_variables")

COLUMNS = [
    (table.name, column.name)
    for table in METADATA.sorted_tables
    for column in table.columns
    if isinstance(column.type, Text)
]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "autotune.db"
    seen_store.tuned(path, "AMD")
    return path


def edited(store: Path, table: str, column: str, edit: Callable[[str], str]) -> None:
    """Change every text of a column by hand, as somebody may who can write to the file."""
    with closing(sqlite3.connect(store)) as connection, connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        rows = connection.execute(
            f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL"
        ).fetchall()
        for rowid, text in rows:
            connection.execute(
                f"UPDATE {table} SET {column} = ? WHERE rowid = ?",
                (edit(text), rowid),
            )


def hostile(text: str) -> str:
    return f"{text}{seen_store.HOSTILE}"


def hostile_leaves(text: str) -> str:
    """The same JSON with every text in it made hostile; other columns than JSON stay as they are."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: walk(each) for name, each in value.items()}
        if isinstance(value, list):
            return [walk(each) for each in value]
        return hostile(value) if isinstance(value, str) else value

    return json.dumps(walk(json.loads(text)))


def shown(store: Path) -> dict[str, str]:
    """Every page and report there is, or the one line that is said in its place."""
    site = Site(location=str(store))
    with Store(str(store), create=False) as opened:

        def views() -> Any:
            return [symbol_view(opened, "AMD")]

        made: dict[str, Callable[[], str]] = {
            "overview": lambda: pages.overview_page(site),
            "symbol": lambda: pages.symbol_page(site, "AMD"),
            "daemon": lambda: pages.daemon_page(site),
            "report": lambda: html_report(views(), made_at=datetime.now(UTC)),
            "markdown": lambda: markdown_report(views(), made_at=datetime.now(UTC)),
            "csv": lambda: csv_report(views()),
        }
        found = {}
        for name, make in made.items():
            try:
                found[name] = make()
            except (AutotuneError, StorageError) as error:
                found[name] = pages.message(site, "not to be shown", str(error))
    return found


def check(found: dict[str, str]) -> None:
    assert re.search(r"(?<!\\)<(?!!)", found["markdown"]) is None or "<html" in found["markdown"]
    for name in ("overview", "symbol", "daemon", "report"):
        page = Page(found[name])
        assert not {"img", "iframe", "object"} & {tag for tag, _ in page.tags}, name
        assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")], name
        inline = [a for tag, a in page.tags if tag == "script" and "src" not in a and "type" not in a]
        assert not inline or name == "report", name
        for data in page.data:
            json.loads(data)  # nothing in a figure's data ends its script


@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=[".".join(each) for each in COLUMNS])
def test_a_hostile_text_stays_text(tuned: Path, tmp_path: Path, table: str, column: str) -> None:
    for number, edit in enumerate([hostile, *([hostile_leaves] if column.endswith("_json") else [])]):
        store = tmp_path / f"autotune-{number}.db"
        shutil.copy(tuned, store)
        edited(store, table, column, edit)
        check(shown(store))


def test_a_hostile_model_name_is_shown_as_it_is_written(tuned: Path, tmp_path: Path) -> None:
    store = tmp_path / "autotune.db"
    shutil.copy(tuned, store)
    edited(store, "promotions", "model", hostile)
    edited(store, "promotions", "reason", hostile)
    found = shown(store)
    check(found)
    for name in ("overview", "symbol", "report"):
        assert seen_store.HOSTILE in "".join(Page(found[name]).texts), name


def test_it_is_tried_in_every_column_of_text() -> None:
    assert len(COLUMNS) > 40
    assert ("promotions", "model") in COLUMNS
