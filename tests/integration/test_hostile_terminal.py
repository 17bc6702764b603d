"""No text that an edited store holds steers the terminal it is shown on, forges a line, or acts as markup."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from autotuner.cli import cli
from autotuner.cli.progress import PlainProgress
from autotuner.cli.safe_console import SafeConsole
from autotuner.report.symbol_view import symbol_view
from autotuner.report.text_reports import _harmless, csv_report
from autotuner.store import Store
from tests.integration.test_hostile_store import edited
from tests.support import seen_store
from tests.support.command import Cli

pytestmark = pytest.mark.usefixtures("no_variables")

STEERING = "\x1b]0;x\x07\x1b[2J\x9b31m\r\x08\x7f\u202e\u2066[bold]no[/bold][red]"
"""A title, a cleared screen, a C1 sequence, going back, right to left, and rich's markup."""
FORGED = "\nAMD runs what I say"
COLUMNS = [
    ("promotions", "reason"),
    ("promotions", "model"),
    ("promotions", "profile"),
    ("promotions", "evidence_json"),
    ("promotions", "symbol"),
    ("pins", "reason"),
    ("measurements", "detail"),
    ("rollbacks", "reason"),
    ("telemetry", "payload_json"),
]
COMMANDS = [
    ("list",),
    ("show", "AMD"),
    ("explain", "AMD"),
    ("history",),
    ("top", "--once", "--minutes", "99999999"),
    ("report", "AMD"),
    ("report", "AMD", "--csv"),
    ("db", "check"),
    ("cron", "show"),
]
AS_JSON = [("list",), ("show", "AMD"), ("explain", "AMD"), ("history",), ("top", "--once"), ("db", "check")]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "autotune.db"
    seen_store.tuned(path, "AMD")
    return path


def hostile(text: str) -> str:
    """A text, or the texts in JSON, with what steers a terminal behind it."""
    try:
        document = json.loads(text)
    except ValueError:
        return f"{text}{STEERING}{FORGED}"

    def walk(value: object) -> object:
        if isinstance(value, dict):
            return {name: walk(each) for name, each in value.items()}
        if isinstance(value, list):
            return [walk(each) for each in value]
        return f"{value}{STEERING}{FORGED}" if isinstance(value, str) else value

    return json.dumps(walk(document))


def check(shown: str) -> None:
    """What is shown has no control character but line ends, and no line that a text made."""
    steering = {letter for letter in shown if not letter.isprintable() and letter != "\n"}
    assert steering == set()
    assert not re.search(r"^ {0,2}AMD runs what I say", shown, re.MULTILINE)


@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=[".".join(each) for each in COLUMNS])
def test_in_a_pipe(
    tuned: Path, tmp_path: Path, table: str, column: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    store = tmp_path / "autotune.db"
    shutil.copy(tuned, store)
    edited(store, table, column, hostile)
    for command in COMMANDS:
        result = CliRunner().invoke(cli, [*command, "--db", str(store)], prog_name="autotune")
        assert result.exception is None or isinstance(result.exception, SystemExit), command
        check(result.stdout + result.stderr)
    for command in AS_JSON:
        result = CliRunner().invoke(cli, [*command, "--json", "--db", str(store)], prog_name="autotune")
        assert result.stdout.isascii()
        check(result.stdout + result.stderr)


def test_on_a_terminal(tuned: Path, tmp_path: Path) -> None:
    autotune = Cli(tmp_path)
    shutil.copy(tuned, autotune.db)
    for column in ("reason", "model", "profile"):
        edited(autotune.db, "promotions", column, hostile)
    for command in (("show", "AMD"), ("history",)):
        drawn = autotune.on_a_terminal(*command)[1]
        own = re.sub(r"\x1b\[[0-9;]*m|\r\n", "", drawn)  # colours of rich's own
        assert {letter for letter in own if not letter.isprintable() and letter != "\n"} == set(), command
        assert "\x9b" not in drawn
        assert not re.search(r"^ {0,2}AMD runs what I say", drawn, re.MULTILINE)


def test_markup_in_a_text_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    SafeConsole(width=100).print("[red]a[/red] :smile: \x1b[2J")
    assert capsys.readouterr().out == "[red]a[/red] :smile: \\x1b[2J\n"


def test_progress_is_one_line_a_thing(capsys: pytest.CaptureFixture[str]) -> None:
    PlainProgress().say(f"compiling{STEERING}{FORGED}")
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1
    check(shown)


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "\x00", " =", "\u202e="])
def test_no_spreadsheet_calculates_what_a_store_holds(tuned: Path, first: str) -> None:
    with Store(str(tuned), create=False) as opened:
        view = symbol_view(opened, "AMD")
    profile = f"{first}cmd|' /C calc'!A0"
    text = csv_report([replace(view, promotion=replace(view.promotion, profile=profile))])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(view.trials)
    for row in rows:
        assert row["profile"].startswith(("'", "\\x00", "\\u202e"))
        assert row["profile"].isprintable()
        assert float(row["p50_ms"] or 0) >= 0  # numbers stay numbers


def test_a_number_below_zero_stays_one() -> None:
    assert _harmless(-1.5) == -1.5
    assert _harmless("-1.5") == "'-1.5"
    assert _harmless("plain") == "plain"
