"""A store that version 0.1.0 wrote, by real runs of it: it opens, and everything in it can be used."""

from __future__ import annotations

import gzip
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autotuner.daemon.config import Config, SymbolConfig
from autotuner.daemon.intake import take_in
from autotuner.daemon.observing import Observer
from autotuner.daemon.places import Place
from autotuner.environment import Environment
from autotuner.paths import snapshot_path
from autotuner.serving import lookup as serving_lookup
from autotuner.serving.lookup import lookup
from autotuner.store import Store
from autotuner.workload import Workload
from tests.support.invoking import document, refused, run
from toto_core.settings import RuntimeSettings

KEPT = Path(__file__).parents[1] / "data" / "store-0.1.0"
COMPILED = RuntimeSettings(compile_mode="default", num_threads=1)
ON_TRIAL = COMPILED.replace(precision="bf16", freezing=True)
THERE = Environment(
    device="cpu",
    hardware="AuthenticAMD / 25 / 1 / AMD EPYC / 1",
    isa="1ddebed04610",
    driver="",
    torch="2.13.0+cpu",
    engine="2",
    threads=2,
)


def silent(event: str, **fields: object) -> None:
    assert not fields.get("reason"), event


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store with the snapshot beside it."""
    for name in ("AUTOTUNE_DB", "TOTO_DISABLE_COMPILE", "TOTO_COMPILE_MODE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "autotune.db"
    for kept, target in (("autotune.db.gz", path), ("autotune.snapshot.db.gz", snapshot_path(str(path)))):
        with gzip.open(KEPT / kept) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file)
    return path


def test_it_opens_and_nothing_in_it_is_amiss(place: Path) -> None:
    assert "no problem found" in run(place, "db", "check").stdout
    assert [each["symbol"] for each in document(place, "list")["symbols"]] == [
        "AAPL",
        "AMD",
        "BTCUSD",
        "ETHUSD",
    ]


def test_what_was_promoted_is_shown_with_its_figures(place: Path) -> None:
    duel, shared = document(place, "show", "AMD"), document(place, "show", "BTCUSD")

    assert duel["settings"] == ON_TRIAL.to_dict()
    assert (duel["stage"], duel["launches"]) == ("duel", 5)
    assert duel["ratio"]["low"] < duel["ratio"]["estimate"] < duel["ratio"]["high"]
    assert 0 < duel["warm_start_ms"] < duel["cold_start_ms"]
    assert duel["canary"] == {"share": 0.25, "previous": COMPILED.to_dict()}
    assert duel["triggers"] == ["latency"]  # from the words of its reason
    assert shared["shared_from"]["symbol"] == "AMD"
    assert document(place, "show", "AMD", "--profile", "accuracy")["stage"] == "search"
    assert "x faster than eager fp32" in run(place, "show", "BTCUSD").stdout


def test_it_is_explained_from_what_was_measured(place: Path) -> None:
    explained = document(place, "explain", "AMD", "--profile", "accuracy")

    assert explained["certificate"].startswith("really compiled")
    assert explained["second"] is not None
    assert explained["importance"]
    assert "how sure" in run(place, "explain", "AMD").stdout


def test_history_has_promotions_pins_and_the_runs_between(place: Path) -> None:
    events = document(place, "history", "AMD")["history"]

    assert [event["event"] for event in events] == ["promotion", "promotion", "run", "run", "promotion"]
    assert events[0]["ratio"]["estimate"] > 2


def test_a_promotion_of_it_is_rolled_back(place: Path) -> None:
    assert "active again" in run(place, "rollback", "AMD", "--reason", "slow").stdout
    assert document(place, "rollback", "AMD")["active"]["settings"] == COMPILED.to_dict()
    assert document(place, "rollback", "AMD")["active"] is None
    assert "nothing is promoted" in refused(run(place, "show", "AMD"), 1)


def test_production_reads_its_snapshot_before_anyone_has_opened_the_store(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_lookup, "current_environment", lambda _: THERE)

    assert {lookup("AMD", db=str(place), profile="production").settings} <= {ON_TRIAL, COMPILED}
    assert lookup("BTCUSD", db=str(place)).settings == COMPILED
    assert lookup("ETHUSD", db=str(place)).source == "pin"
    assert lookup("GOOGL", db=str(place), workload=Workload()).source == "workload winner"


def test_the_daemon_reads_what_production_left_and_goes_on(place: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    shutil.copy(next(KEPT.glob("telemetry-*.json")), spool)
    with Store(str(place)) as store:
        now = datetime(2026, 11, 25, 19, tzinfo=UTC)
        assert take_in(store.records, spool, now=now).telemetry == 1
        seen = Observer(
            store=store,
            config=Config(defaults=SymbolConfig(profile="accuracy")),
            place=Place(environment=THERE),
            now=now,
            log=silent,
        ).alone("AMD")
    situation = seen.situation

    assert situation.promotion is not None
    assert sum(window.calls for window in situation.windows) == 400
    assert 1.0 < situation.windows[0].p50_ms < 10.0
    assert situation.failures.reasons == ("RuntimeError: library was deleted",)
    assert not situation.failures.proven
    assert situation.promised_p50_ms is not None


def test_a_run_that_was_killed_under_it_is_ended_by_the_next(place: Path) -> None:
    with Store(str(place)) as store:
        (killed,) = [record for record in store.records.runs("AMD") if record.status == "running"]
        subject = store.measured_subject("AMD")
        assert subject is not None
        begun = store.begin_run(subject, profile="accuracy", seed=0, study=killed.study_name, resume=True)
    assert begun == (killed.run_id, True)


def test_it_is_exported_and_taken_in_elsewhere(place: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "settings.json", tmp_path / "other.db"
    run(place, "export", "--output", str(file))

    assert "imported 4 promotions and 1 pin" in run(other, "import", str(file)).stdout
    assert document(other, "show", "AMD")["ratio"] == document(place, "show", "AMD")["ratio"]
