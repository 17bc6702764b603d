"""Cron and the daemon tune what is due as it was tuned: on its own prices, for its own workload and profile."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from autotuner.daemon.crontab import cron_line
from tests.support.command import Cli
from tests.support.tiny_model import save_tiny_model
from toto_core.series import find_series

pytestmark = pytest.mark.slow

SYMBOL = "BTC/USDT"
HEADER = "Zeit;Preis"


@pytest.fixture
def own(autotune: Cli) -> Path:
    """A folder of own prices that only options can read, with a file that is none of a symbol."""
    folder = autotune.folder / "my prices"
    folder.mkdir()
    german = str.maketrans(",.", ".,")
    rows = [
        f"{date(2023, 1, 1) + timedelta(days=day):%d.%m.%Y};" + f"{price:,.3f}".translate(german)
        for day, price in enumerate(find_series("BTCUSD", None).close[-400:])
    ]
    (folder / "btc%2Fusdt.csv").write_text("\n".join([HEADER, *rows]))
    (folder / "notes.txt").write_text("not prices")
    return folder


def tuned(autotune: Cli) -> list[tuple[str, str, str, str]]:
    """Profile, workload, prices and series of every search measurement's run, oldest first."""
    with sqlite3.connect(f"file:{autotune.db}?mode=ro", uri=True) as connection:
        found: list[tuple[str, str, str, str]] = connection.execute(
            "SELECT DISTINCT r.profile, r.workload_signature, m.symbol, m.series_digest, r.run_id FROM runs r "
            "JOIN measurements m ON m.run_id = r.run_id ORDER BY r.started_at"
        ).fetchall()
    return [row[:4] for row in found]


def age(autotune: Cli) -> None:
    """Make everything in the store ten days older, which its own guards against changes would refuse."""
    stamps = (("promotions", "promoted_at"), ("runs", "started_at"), ("runs", "finished_at"))
    with contextlib.closing(sqlite3.connect(autotune.db)) as connection, connection:
        guards = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in guards:
            connection.execute(f"DROP TRIGGER {name}")
        for table, column in stamps:
            for rowid, stamp in connection.execute(f"SELECT rowid, {column} FROM {table}").fetchall():
                older = (datetime.fromisoformat(stamp) - timedelta(days=10)).isoformat(
                    timespec="microseconds"
                )
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (older, rowid))
        for _, sql in guards:
            connection.execute(sql)


def test_cron_and_daemon_go_on_with_own_prices_workload_and_profile(autotune: Cli, own: Path) -> None:
    model = save_tiny_model(autotune.folder / "model")
    how = ("--price-column", "Preis", "--time-column", "Zeit", "--decimal", ",")
    quick = ("--trials", "1", "--timeout", "20")
    first = autotune.run(
        *("run", "--all", "--data", str(own), *how, "--profile", "accuracy", "--model", str(model), *quick),
        *("--context-length", "64", "--prediction-length", "4", "--num-samples", "16", "--json"),
    )
    assert first.returncode == 0, first.stderr
    assert "'notes.txt': passed over" in first.stderr
    document = json.loads(first.stdout)
    assert document["passed_over"] == ["notes.txt"]
    (run,) = document["symbols"]
    assert run["prices"]["data"] == str(own)
    assert run["series"]["points"] == 400
    (before,) = tuned(autotune)

    line = cron_line(
        schedule="17 3 * * *",
        executable=fake_autotune(autotune),
        log=autotune.folder / "cron.log",
        arguments=["run", "--all", "--due", *quick, "--db", str(autotune.db)],
    )
    called = line.split(" ", 5)[5].replace("\\%", "%")
    by_cron(autotune, called)
    assert tuned(autotune) == [before]  # nothing is due yet, and no sample was tuned

    age(autotune)
    by_cron(autotune, called)
    assert tuned(autotune) == [before] * 2

    age(autotune)
    config = autotune.folder / "autotune.toml"
    config.write_text(
        "[daemon]\nrun_seconds = 12.0\ncool_down_hours = 0.0\nload_ceiling = 64.0\nrecheck_hours = 0.0\n"
    )
    ticked = autotune.run("daemon", "--once", "--config", str(config))
    assert ticked.returncode == 0, ticked.stderr
    assert tuned(autotune) == [before] * 3
    shown = json.loads(autotune.run("show", SYMBOL, "--json").stdout)
    assert (shown["profile"], shown["prices"]["data"]) == ("accuracy", str(own))
    assert shown["prices"]["options"] == run["prices"]["options"]


def fake_autotune(autotune: Cli) -> Path:
    """A script that calls this source tree's ``autotune``."""
    script = autotune.folder / "autotune"
    python, main = autotune.interpreter
    script.write_text(f"#!/bin/sh\nexec {python} -c '{main}' \"$@\"\n")
    script.chmod(0o700)
    return script


def by_cron(autotune: Cli, called: str) -> None:
    done = subprocess.run(["/bin/sh", "-c", called], check=False, env=autotune.environment(), timeout=120)
    assert done.returncode == 0, (autotune.folder / "cron.log").read_text()
