"""``autotune run`` for real: real prices, the real model, real child processes, a real store."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from datetime import UTC, datetime

import pytest

from autotuner.environment import current_environment
from autotuner.store import Store
from autotuner.workload import Workload
from tests.support.command import Cli
from toto_core.settings import RuntimeSettings

pytestmark = pytest.mark.slow

QUICK = ("--trials", "2", "--timeout", "30", "--json")
FIELDS = {
    "symbol",
    "profile",
    "model",
    "workload",
    "settings",
    "ratio",
    "p50_ms",
    "p95_ms",
    "sigma_time_ms",
    "drift",
    "mae",
    "mae_reference",
    "cold_start_ms",
    "trials",
    "decision",
    "promoted",
}


def _measurements(autotune: Cli) -> int:
    with sqlite3.connect(f"file:{autotune.db}?mode=ro", uri=True) as connection:
        count: int = connection.execute("SELECT COUNT(*) FROM measurements").fetchone()[0]
    return count


@pytest.mark.exhaustive
def test_a_self_test_says_how_far_this_machine_can_be_trusted(autotune: Cli) -> None:
    tested = autotune.run("selftest", "--launches", "5", "--timeout", "120", "--json")
    assert tested.returncode == 0, tested.stderr
    trust = json.loads(tested.stdout)
    assert set(trust) >= {"smallest_detectable_gain", "blocks", "environment"}
    assert trust["launches"] == 5
    assert trust["false_winner_rate"] <= trust["false_winner_bound"]

    run = autotune.run("run", "--symbol", "AMD", *QUICK)
    assert json.loads(run.stdout)["selftest"]["false_winner_rate"] == trust["false_winner_rate"]


@pytest.mark.exhaustive  # replayed, tests/integration/test_plan.py shows the same
def test_of_two_runs_the_second_takes_up_what_is_known(autotune: Cli) -> None:
    environment = current_environment()
    with Store(str(autotune.db)) as store:
        store.remember_setting(Workload(), environment)
        store.remember_selftest(environment, {"false_winner_rate": 0.0025}, at=datetime.now(UTC))

    first = autotune.run("run", "--symbol", "AMD", *QUICK)
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)
    assert set(document) >= FIELDS
    assert RuntimeSettings.from_dict(document["settings"]).to_dict() == document["settings"]
    assert document["ratio"]["low"] <= document["ratio"]["estimate"] <= document["ratio"]["high"]
    assert document["trials"]["measured"] + sum(document["trials"]["failed"].values()) == 2
    assert document["decision"]["verdict"] == "first"
    assert document["promoted"] is True
    assert document["selftest"]["false_winner_rate"] == 0.0025
    assert json.loads(autotune.run("explain", "AMD", "--json").stdout)["certificate"]

    second = autotune.run("run", "--symbol", "AMD", "--trials", "1", "--timeout", "12", "--json")
    assert second.returncode == 0, second.stderr
    again = json.loads(second.stdout)
    assert again["trials"]["reused"] >= document["trials"]["measured"]
    assert again["decision"]["verdict"] != "first"

    shown = json.loads(autotune.run("show", "--symbol", "AMD", "--json").stdout)
    served = json.loads(
        autotune.python(
            "import json, autotuner; r = autotuner.lookup('AMD');"
            "print(json.dumps([r.source, r.settings.to_dict()]))"
        )
    )
    assert served == ["promotion", shown["settings"]]


def test_a_run_killed_in_mid_trial_goes_on_and_loses_nothing_it_acknowledged(autotune: Cli) -> None:
    process = autotune.start("run", "--symbol", "AMD", "--timeout", "200", "--json")
    acknowledged = 0
    deadline = time.monotonic() + 150
    assert process.stderr is not None
    for line in process.stderr:
        acknowledged += line.strip().startswith("trial ")
        if acknowledged == 2 or time.monotonic() > deadline:
            break
    assert acknowledged == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close() if process.stdout else None
    process.stderr.close()
    assert _measurements(autotune) >= 2

    resumed = autotune.run("run", "--symbol", "AMD", "--trials", "1", "--timeout", "20", "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["trials"]["reused"] >= 2


def test_an_interrupted_run_says_so_in_one_line_and_is_stored_as_interrupted(autotune: Cli) -> None:
    process = autotune.start("run", "--symbol", "AMD", "--timeout", "200")
    assert process.stderr is not None
    for line in process.stderr:
        if "starting" in line:
            break
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert "goes on from there" in errors
    with sqlite3.connect(f"file:{autotune.db}?mode=ro", uri=True) as connection:
        assert connection.execute("SELECT status FROM runs").fetchall() == [("interrupted",)]
