"""The hand-made comparison, replayed through the whole of run, store and lookup."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import Cli

TABLE = Path(__file__).parents[1] / "data" / "seed" / "results.csv"
PRODUCTION = {
    "BTCUSD": "max-autotune",
    "ETHUSD": "reduce-overhead",
    "AAPL": "reduce-overhead",
    "GOOGL": "reduce-overhead",
    "AMD": "max-autotune",
}
ACCURACY = {"BTCUSD": "default", "ETHUSD": "default", "AAPL": "default", "GOOGL": "default", "AMD": "eager"}

_LOOKUP = """
import json, autotuner
found = {s: autotuner.lookup(s) for s in %r}
print(json.dumps({s: [r.settings.compile_mode, r.source] for s, r in found.items()}))
"""


@pytest.mark.parametrize(("profile", "choices"), [("production", PRODUCTION), ("accuracy", ACCURACY)])
def test_the_replayed_tables_are_served_as_a_person_would_choose_from_them(
    autotune: Cli, profile: str, choices: dict[str, str]
) -> None:
    replay = ("--replay", str(TABLE), "--db", str(autotune.db), "--profile", profile, "--json")
    done = autotune.run("run", "--all", *replay)
    assert done.returncode == 0, done.stderr
    documents = json.loads(done.stdout)["symbols"]
    assert {d["symbol"]: d["settings"]["compile_mode"] for d in documents} == choices
    served = json.loads(autotune.python(_LOOKUP % sorted(choices)))
    assert served == {symbol: [mode, "promotion"] for symbol, mode in choices.items()}


def test_a_replay_never_writes_into_the_store_of_real_measurements(autotune: Cli) -> None:
    done = autotune.run("run", "--symbol", "AMD", "--replay", str(TABLE))
    assert done.returncode == 2
    assert "--db" in done.stderr
    assert not autotune.db.exists()
