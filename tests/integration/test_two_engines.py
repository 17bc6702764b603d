"""Two engines in one store: look-ups, telemetry, daemon, pages and exports keep them apart."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from autotuner.daemon.config import Config
from autotuner.daemon.due import Overdue
from autotuner.daemon.observing import Observer
from autotuner.daemon.places import Place
from autotuner.environment import current_environment
from autotuner.machine import engine_versions
from autotuner.machine.engine_versions import CHRONOS2, TOTO1, engine_name, engine_text
from autotuner.record_mapping import telemetry_record
from autotuner.report.live_calls import live_calls
from autotuner.report.overview import overview
from autotuner.serving.lookup import lookup
from autotuner.store import Promotion, Store
from tests.support.chronos2_model import write_chronos2
from tests.support.invoking import document, run
from tests.support.promoted_store import BF16, FAST, NOW, STEADY, WORKLOAD, promotion
from tests.support.seen_store import window

pytestmark = pytest.mark.usefixtures("no_variables")

OTHER = current_environment("cpu", CHRONOS2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_chronos2(tmp_path_factory.mktemp("model")))


def of_chronos(model: str, symbol: str = "AMD", *, minutes: int = 5) -> Promotion:
    new = promotion(symbol, STEADY, minutes=minutes)
    return replace(new, workload=replace(WORKLOAD, model=model), environment=OTHER)


@pytest.fixture
def store(tmp_path: Path, model: str) -> Path:
    """AMD runs Toto with FAST, and since five minutes ago Chronos-2 with STEADY; AAPL runs Toto alone."""
    path = tmp_path / "autotune.db"
    with Store(str(path)) as opened:
        for each in (promotion("AAPL", BF16), promotion("AMD", FAST), of_chronos(model)):
            opened.remember_setting(each.workload, each.environment)
            opened.promote(each)
    return path


def test_environments_name_the_engine_and_toto_s_are_what_they_were() -> None:
    here = current_environment()
    assert here.engine == engine_text(TOTO1)
    assert " " not in here.engine
    assert OTHER.engine.startswith("chronos2 1+")
    assert (engine_name(here.engine), engine_name(OTHER.engine)) == (TOTO1, CHRONOS2)
    assert here.fingerprint != OTHER.fingerprint
    assert here.here_for(OTHER) == OTHER


def test_a_look_up_gives_the_model_that_was_promoted_last_or_the_one_asked_for(
    store: Path, model: str
) -> None:
    newest = lookup("AMD", db=str(store))
    assert (newest.source, newest.model, newest.settings) == ("promotion", model, STEADY)
    asked = lookup("AMD", model="toto-mini", db=str(store))
    assert (asked.source, asked.model, asked.settings) == ("promotion", "toto-mini", FAST)
    other = lookup("AAPL", db=str(store))
    assert (other.source, other.model) == ("promotion", "toto-mini")


def test_a_new_version_of_one_engine_leaves_the_other_s_settings(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_versions, "installed_version", lambda _: "9.9")
    found = lookup("AMD", db=str(store))
    assert found.source == "default"
    assert any(f"engine: {OTHER.engine} there, chronos2 1+9.9 here" in reason for reason in found.reasons)
    assert lookup("AMD", model="toto-mini", db=str(store)).settings == FAST
    with Store(str(store)) as opened:
        newest = opened.active("AMD")
        assert newest is not None
        why = Overdue(opened).why(newest, environment=current_environment(), now=NOW)
    assert "chronos2 1+9.9" in str(why)


def test_the_daemon_and_the_pages_take_neither_for_another_machine(store: Path) -> None:
    with Store(str(store)) as opened:
        for symbol in ("AMD", "AAPL"):
            newest = opened.active(symbol)
            assert Overdue(opened).why(newest, environment=current_environment(), now=NOW) is None
        rows = overview(opened, environment=current_environment(), now=NOW)
    assert {row.symbol: row.engine for row in rows} == {
        "AAPL": current_environment().engine,
        "AMD": OTHER.engine,
    }
    assert not [state for row in rows for state in row.states if state.word == "elsewhere"]


def test_calls_of_one_engine_are_not_the_other_s(store: Path) -> None:
    at = NOW + timedelta(minutes=6)
    ours = replace(window("AMD", STEADY, at), environment_fingerprint=OTHER.fingerprint)
    theirs = window("AMD", STEADY, at)  # Toto's, in the same settings
    with Store(str(store)) as opened:
        for note in (ours, theirs):
            opened.records.add_telemetry(telemetry_record(note))
        looks = Observer(
            store=opened,
            config=Config(),
            place=Place(environment=current_environment()),
            now=at,
            log=lambda *_, **__: None,
        )
        seen = looks.alone("AMD")
        (row,) = (
            row for row in overview(opened, environment=current_environment(), now=at) if row.symbol == "AMD"
        )
        promotions = opened.records.promotions()
    assert [note.environment_fingerprint for note in seen.ours] == [OTHER.fingerprint]
    assert len(row.live_ms) == 1
    rows = live_calls([ours, theirs], promotions, since=NOW)
    assert [(each.calls, each.promised_p50_ms is None) for each in rows] == [(100, False), (100, True)]


def test_an_export_takes_both_along(store: Path, tmp_path: Path, model: str) -> None:
    copy, file = tmp_path / "copy.db", tmp_path / "settings.json"
    assert run(store, "export", "--output", str(file)).exit_code == 0
    assert run(copy, "import", str(file)).exit_code == 0
    assert lookup("AMD", db=str(copy)).model == model
    assert document(copy, "show", "AMD")["engine"] == OTHER.engine
    assert document(copy, "show", "AAPL")["engine"] == current_environment().engine
