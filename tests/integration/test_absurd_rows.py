"""Whatever stands in the rows of one symbol hurts that symbol alone: commands and ticks go on with the others."""

from __future__ import annotations

import random
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from autotuner.daemon import intake
from autotuner.daemon.config import Config, DaemonConfig
from autotuner.daemon.tick import Ticker
from autotuner.environment import current_environment
from autotuner.report.overview import overview
from autotuner.serving.lookup import lookup
from autotuner.store import Store
from autotuner.web.metrics import metrics
from tests.support.absurd_store import BAD, GOOD, JSON, PLACES, TIMES, Place, spoil, spoil_a_leaf, two_symbols
from tests.support.invoking import document, document_of, run
from tests.support.promoted_store import FAST
from tests.support.simulated_world import World

pytestmark = pytest.mark.usefixtures("no_variables")
JSON_PLACES = [place for place in PLACES if place.column.endswith("_json")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("absurd") / "autotune.db"
    two_symbols(path)
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "autotune.db"))


def test_every_command_works(store: Path) -> None:
    assert look_at_everything(store) == set()


@pytest.mark.parametrize(
    ("place", "value", "event"),
    [
        (Place("promotions", "evidence_json"), JSON[-2], "unreadable"),
        (Place("promotions", "settings_json"), "5", "unreadable"),
        (Place("promotions", "promoted_at"), TIMES[-2], "unreadable"),
        (Place("telemetry", "payload_json"), "[]", "skipped"),
        (Place("telemetry", "window_start"), TIMES[-3], "damaged"),
        (Place("runs", "owner_pid"), "many", "damaged"),
        (Place("pins", "reason"), b"\xff", None),
        (Place("environments", "facts_json"), '{"threads": 5}', "unreadable"),
        (Place("workloads", "workload_json"), JSON[-1], "unreadable"),
        (Place("rollbacks", "rolled_back_at"), "noon", "damaged"),
    ],
)
def test_an_absurd_value_hurts_its_symbol_alone_and_the_tick_says_so(
    store: Path, place: Place, value: Any, event: str | None
) -> None:
    assert spoil(store, place, value)
    said = look_at_everything(store)
    assert event is None or event in said


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("place", "value"),
    [
        pytest.param(place, each, id=f"{place}-{ascii(each)[:20]}")
        for place, values in PLACES.items()
        for each in values
    ],
)
def test_every_absurd_value_in_every_column_hurts_its_symbol_alone(
    store: Path, place: Place, value: Any
) -> None:
    spoil(store, place, value)
    look_at_everything(store)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("place", JSON_PLACES, ids=str)
def test_json_that_is_wrong_somewhere_hurts_its_symbol_alone(store: Path, place: Place, seed: int) -> None:
    spoil_a_leaf(store, place, random.Random(f"{place} {seed}"))
    look_at_everything(store)


def look_at_everything(store: Path) -> set[str]:
    """Check every command on both symbols; what the tick said of BAD."""
    for arguments in (("show",), ("explain",), ("history",), ("top",)):
        answer = document(store, *arguments, GOOD)
        assert GOOD in str(answer) or arguments == ("top",)
        told(run(store, *arguments, BAD))
    listed = {each["symbol"]: each for each in document(store, "list")["symbols"]}
    assert listed[GOOD]["settings"] == FAST.to_dict()
    told(run(store, "list"))
    told(run(store, "history"))
    exported = document_of_export(store)
    assert GOOD in {each["symbol"] for each in exported["promotions"]}
    with Store(str(store)) as opened:
        opened.publish()
        rows = overview(opened, environment=current_environment(), now=datetime.now(UTC))
        ticked, said = tick(opened, store.parent)
    assert next(row for row in rows if row.symbol == GOOD).settings == FAST.label
    assert GOOD.encode() in metrics(str(store), None)
    assert lookup(GOOD, db=str(store)).settings == FAST
    assert lookup(BAD, db=str(store)).reasons
    assert GOOD not in ticked.unreadable
    told(run(store, "rollback", BAD))
    assert run(store, "rollback", GOOD).exit_code == 0
    return said


def told(result: Any) -> None:
    """It worked, or failed with one line."""
    assert result.exit_code in {0, 1}, result.output
    lines = result.stderr.splitlines()
    assert len(lines) < 12, lines
    assert all(line.isprintable() for line in lines), lines
    if result.exit_code:
        assert len(lines) == 1
        assert lines[0].startswith("Error: ")


def document_of_export(store: Path) -> dict[str, Any]:
    result = run(store, "export")
    told(result)
    assert result.exit_code == 0
    return document_of(result)


def tick(opened: Store, folder: Path) -> tuple[Any, set[str]]:
    intake._said.clear()
    world = World(store=opened, data=folder, model=folder, clock=datetime.now(UTC), busy=1000.0)
    config = Config(daemon=DaemonConfig(budget_seconds_per_day=0.0))
    ticker = Ticker(store=opened, config=config, symbols=(BAD, GOOD), quiet=(), machine=world, log=world.note)
    ticked = ticker.tick()
    events = {event for _, event, fields in world.log if fields.get("symbol") == BAD}
    assert all("\n" not in str(fields.get("reason")) for _, _, fields in world.log)
    return ticked, events
