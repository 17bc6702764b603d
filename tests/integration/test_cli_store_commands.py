from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from autotuner.cli import cli
from autotuner.environment import current_environment
from autotuner.measurement.outcome import Failed
from autotuner.paths import snapshot_path
from autotuner.report.tables import label, moment, plain
from autotuner.serving.lookup import lookup
from autotuner.store import Promotion, Store, Subject
from autotuner.tuning.document import search_figures
from autotuner.workload import Workload
from storage import database as storage_database
from storage.records import SeriesRecord
from tests.support.outcomes import measured, timing
from tests.support.storage_samples import empty_store
from toto_core.settings import RuntimeSettings

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
WORKLOAD = Workload()
EAGER = RuntimeSettings()
BF16 = RuntimeSettings(precision="bf16")
FAST = RuntimeSettings(compile_mode="max-autotune", precision="bf16", freezing=True)
STEADY = RuntimeSettings(compile_mode="default")
COMMANDS = (
    "show",
    "list",
    "history",
    "explain",
    "selftest",
    "select",
    "rollback",
    "pin",
    "unpin",
    "export",
    "import",
)
UNREADABLE = '{"compile_mode":"warp"}'


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUTOTUNE_DB", "TOTO_DISABLE_COMPILE", "TOTO_COMPILE_MODE", "TOTO_COMPILE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A store in which AMD is promoted to FAST for production."""
    path = tmp_path / "store.db"
    path.write_bytes(empty_store())
    with Store(str(path)) as store:
        store.promote(promotion())
    return path


def duel_figures() -> dict[str, Any]:
    figures = search_figures(measured(timing(12.5, 0.4), drift=0.004, cold_start_ms=27_300.0), WORKLOAD)
    return figures | {
        "stage": "duel",
        "launches": 5,
        "ratio": {"estimate": 2.81, "low": 2.74, "high": 2.88},
        "warm_start_ms": 3_100.0,
        "mae": 1.234,
        "mae_reference": 1.23,
        "peak_bytes": 412 << 20,
    }


def promotion(
    symbol: str = "AMD", chosen: RuntimeSettings = FAST, *, profile: str = "production", minutes: int = 0
) -> Promotion:
    return Promotion(
        symbol=symbol,
        profile=profile,
        workload=WORKLOAD,
        environment=current_environment(),
        settings=chosen,
        verdict="first",
        reason=f"{chosen.label} takes 64 % less time.",
        evidence=duel_figures(),
        promoted_at=NOW + timedelta(minutes=minutes),
    )


def measure(path: Path, outcomes: dict[RuntimeSettings, Any], symbol: str = "AMD") -> Subject:
    """A finished run that measured ``outcomes`` and promoted nothing."""
    subject = Subject(
        symbol=symbol,
        workload=WORKLOAD,
        environment=current_environment(),
        series_digest=f"prices of {symbol}",
        model_digest="weights",
    )
    with Store(str(path)) as store:
        store.remember_setting(WORKLOAD, subject.environment)
        store.records.put_series(
            SeriesRecord(
                digest=subject.series_digest,
                symbol=symbol,
                source=f"{symbol}.csv",
                points=1000,
                first_timestamp=NOW - timedelta(days=1000),
                last_timestamp=NOW,
                first_seen=NOW,
            )
        )
        run_id, _ = store.begin_run(subject, profile="production", seed=0, study="study", resume=False)
        for chosen, outcome in outcomes.items():
            store.record(subject, run_id, chosen, outcome, "search")
        summary = {"decision": {"verdict": "same", "reason": "Nothing differs."}, "settings": EAGER.to_dict()}
        store.end_run(run_id, "finished", summary)
    return subject


def reference() -> RuntimeSettings:
    """Eager fp32 in the canonical form in which a search measures it."""
    return EAGER.replace(num_threads=current_environment().threads)


def outcomes() -> dict[RuntimeSettings, Any]:
    """FAST wins under production, drifts too far for accuracy, where STEADY wins."""
    return {
        reference(): measured(timing(100.0, 1.0)),
        FAST: measured(timing(30.0, 1.0), drift=0.005),
        STEADY: measured(timing(50.0, 1.0)),
        BF16: Failed(kind="timeout"),
    }


def run(place: Path, *arguments: str, stdin: str | None = None) -> Result:
    """A command on the store at ``place``; what it could not catch is raised here."""
    result = CliRunner().invoke(cli, [*arguments, "--db", str(place)], input=stdin, prog_name="autotune")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def document(place: Path, *arguments: str) -> dict[str, Any]:
    result = run(place, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def refused(result: Result, exit_code: int) -> str:
    """The one line with which a command refused."""
    assert result.exit_code == exit_code
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ")
    return lines[0]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(path: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def poison(path: Path, symbol: str) -> None:
    """Append a promotion of ``symbol`` that no version can read, copied from AMD's."""
    copied = "profile, model, workload_signature, environment_fingerprint"
    write(
        path,
        f"INSERT INTO promotions (symbol, settings_key, settings_json, verdict, reason, evidence_json, "
        f"promoted_at, kind, {copied}) SELECT ?, 'warp', ?, 'better', '', '{{}}', promoted_at, 'run', {copied} "
        "FROM promotions WHERE symbol = 'AMD' LIMIT 1",
        symbol,
        UNREADABLE,
    )


class TestShow:
    def test_the_card_says_what_runs_how_fast_and_why(self, place: Path) -> None:
        shown = run(place, "show", "AMD").stdout
        for part in (
            f"AMD runs {FAST.label}",
            "2.81x faster than eager fp32 [2.74, 2.88]",
            "of the duel, 5 launches each",
            "p50 12.50 ms, p95 13.30 ms, sigma 0.40 ms",
            "MAE 1.234 beside 1.23 of the reference, drift at most 0.400%",
            "cold 27.30 s, warm 3.10 s",
            "412 MiB at peak",
            "first: max-autotune bf16 freezing=True takes 64 % less time.",
            "2026-05-04 12:30 UTC, profile production",
            "autotune rollback AMD",
        ):
            assert part in shown
        assert "\x1b" not in shown
        assert "lookup" not in shown

    def test_json_has_the_fields_of_a_run_and_source_and_since(self, place: Path) -> None:
        shown = document(place, "show", "--symbol", "amd")
        assert shown["settings"] == FAST.to_dict()
        assert shown["ratio"] == {"estimate": 2.81, "low": 2.74, "high": 2.88}
        assert shown["decision"]["verdict"] == "first"
        assert (shown["source"], shown["since"]) == ("promotion", NOW.isoformat())
        assert shown["lookup"]["settings"] == FAST.to_dict()
        assert not shown["lookup"]["differs"]
        figures = ("p50_ms", "p95_ms", "sigma_time_ms", "drift", "mae", "mae_reference", "cold_start_ms")
        assert {"symbol", "profile", "model", "workload", "promoted", *figures} <= shown.keys()

    def test_a_symbol_without_promotion_is_told_how_to_get_one(self, place: Path) -> None:
        assert "`autotune run --symbol MSFT`" in refused(run(place, "show", "MSFT"), 1)

    def test_a_profile_without_promotion_names_the_profile_in_the_command(self, place: Path) -> None:
        line = refused(run(place, "show", "AMD", "--profile", "accuracy"), 1)
        assert "`autotune run --symbol AMD --profile accuracy`" in line

    def test_an_unknown_profile_is_bad_usage(self, place: Path) -> None:
        assert "production, accuracy" in refused(run(place, "show", "AMD", "--profile", "fast"), 2)

    def test_a_pin_is_shown_as_what_is_served(self, place: Path) -> None:
        run(place, "pin", "AMD", "--mode", "eager", "--reason", "earnings week")
        shown = run(place, "show", "AMD").stdout
        assert f"promoted to {FAST.label}; here it runs eager fp32 (from: pin)" in shown
        assert "(earnings week)" in shown
        assert "autotune unpin AMD" in shown
        pinned = document(place, "show", "AMD")
        assert pinned["settings"] == FAST.to_dict()
        assert pinned["pinned"]["settings"] == EAGER.to_dict()
        assert (pinned["lookup"]["source"], pinned["lookup"]["differs"]) == ("pin", True)

    def test_the_kill_switch_is_shown_with_how_to_lift_it(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TOTO_DISABLE_COMPILE", "1")
        shown = run(place, "show", "AMD").stdout
        assert "here it runs eager fp32 (from: kill switch)" in shown
        assert "unset TOTO_DISABLE_COMPILE" in shown

    def test_a_promotion_of_another_environment_says_what_differs(self, tmp_path: Path) -> None:
        path = tmp_path / "elsewhere.db"
        elsewhere = replace(current_environment(), torch="0.0.1")
        with Store(str(path)) as store:
            store.promote(replace(promotion(), environment=elsewhere))
        shown = document(path, "show", "AMD")
        assert shown["lookup"]["source"] == "default"
        assert any("torch: 0.0.1 there" in reason for reason in shown["lookup"]["reasons"])
        card = run(path, "show", "AMD").stdout
        assert "torch: 0.0.1 there" in card
        assert "autotune run --symbol AMD tunes it here" in card

    def test_figures_that_are_missing_or_wrong_are_left_out(self, tmp_path: Path) -> None:
        path = tmp_path / "bare.db"
        evidence = {"ratio": {"estimate": "fast"}, "p50_ms": True, "compile_report": [], "launches": None}
        with Store(str(path)) as store:
            store.promote(replace(promotion(), evidence=evidence))
        shown = run(path, "show", "AMD")
        assert shown.exit_code == 0
        assert "faster" not in shown.stdout
        assert "p50" not in shown.stdout

    def test_figures_that_are_no_object_are_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "bare.db"
        with Store(str(path)) as store:
            store.promote(replace(promotion(), evidence=[1]))  # type: ignore[arg-type]
        assert "no readable figures" in refused(run(path, "show", "AMD"), 1)

    def test_stored_text_reaches_no_terminal_as_control_codes_or_markup(self, tmp_path: Path) -> None:
        path = tmp_path / "hostile.db"
        with Store(str(path)) as store:
            store.promote(replace(promotion(), reason="[red]loud[/red] \x1b]0;title\x07 :smile:"))
        for arguments in (("show", "AMD"), ("history", "AMD")):
            shown = run(path, *arguments).stdout
            assert "\x1b" not in shown
            assert "[red]loud[/red]" in shown
            assert ":smile:" in shown

    @pytest.mark.parametrize("command", ["show", "select", "rollback", "pin", "unpin"])
    def test_a_symbol_is_given_exactly_once(self, place: Path, command: str) -> None:
        extra = {"select": ("--profile", "accuracy"), "pin": ("--mode", "eager")}.get(command, ())
        both = refused(run(place, command, "AMD", "--symbol", "MSFT", *extra), 2)
        assert "one symbol" in both
        assert f"autotune {command} AMD" in refused(run(place, command, *extra), 2)


class TestList:
    def test_an_empty_store_says_what_to_do(self, tmp_path: Path) -> None:
        path = tmp_path / "empty.db"
        Store(str(path)).__exit__(None, None, None)
        result = run(path, "list")
        assert result.exit_code == 0
        assert "`autotune run --symbol AMD`" in result.stdout
        assert document(path, "list") == {"symbols": []}

    def test_each_symbol_has_one_row_of_its_last_promotion(self, place: Path) -> None:
        with Store(str(place)) as store:
            store.promote(promotion("BTCUSD", STEADY))
            store.promote(promotion("AMD", STEADY, profile="accuracy", minutes=5))
        listed = document(place, "list")["symbols"]
        assert [(entry["symbol"], entry["profile"]) for entry in listed] == [
            ("AMD", "accuracy"),
            ("BTCUSD", "production"),
        ]
        shown = run(place, "list").stdout
        assert "2.81x [2.74, 2.88]" in shown
        assert "12.50 ms" in shown
        assert "2026-05-04 12:35 UTC" in shown

    def test_pins_are_listed_also_of_symbols_that_were_never_promoted(self, place: Path) -> None:
        run(place, "pin", "AMD", "--mode", "default")
        run(place, "pin", "NEW", "--mode", "eager")
        amd, new = document(place, "list")["symbols"]
        assert amd["pinned"]["settings"] == STEADY.to_dict()
        assert (new["symbol"], new["source"], new["settings"]) == ("NEW", "pin", EAGER.to_dict())
        assert "NEW" in run(place, "list").stdout

    def test_a_promotion_nobody_can_read_hides_no_other(self, place: Path) -> None:
        poison(place, "BAD")
        result = run(place, "list", "--json")
        assert result.exit_code == 0
        amd, bad = json.loads(result.stdout)["symbols"]
        assert amd["settings"] == FAST.to_dict()
        assert "compile_mode" in bad["error"]
        assert "`autotune rollback BAD`" in result.stderr
        assert FAST.label in run(place, "list").stdout


class TestExplain:
    def test_it_says_why_what_came_second_and_what_was_ruled_out(self, place: Path) -> None:
        measure(place, outcomes())
        found = document(place, "explain", "AMD")

        assert found["settings"] == FAST.to_dict()
        assert found["second"]["settings"] == STEADY.to_dict()
        assert [entry["kind"] for entry in found["ruled_out"]] == ["timeout"]
        assert any(line.startswith("profile accuracy ranks default fp32") for line in found["changes"])
        text = run(place, "explain", "AMD").stdout
        assert "what came second" in text
        assert f"{BF16.label}: timeout" in text

    def test_a_symbol_nobody_promoted_is_told_how_to_begin(self, place: Path) -> None:
        assert "autotune run --symbol MSFT" in refused(run(place, "explain", "MSFT"), 1)


class TestHistory:
    def test_everything_that_happened_is_told_oldest_first(self, place: Path) -> None:
        with Store(str(place)) as store:
            store.promote(promotion("AMD", STEADY, minutes=5))
        measure(place, outcomes())
        run(place, "rollback", "AMD", "--reason", "slow since the driver update")
        run(place, "pin", "AMD", "--mode", "eager")
        run(place, "unpin", "AMD", "--reason", "week is over")
        events = document(place, "history", "AMD")["history"]
        assert [event["event"] for event in events] == ["promotion", "promotion", "run", "pinned", "unpinned"]
        assert events[1]["rolled_back_reason"] == "slow since the driver update"
        assert events[0]["rolled_back_at"] is None
        assert (events[2]["status"], events[2]["verdict"]) == ("finished", "same")
        shown = run(place, "history").stdout
        assert "promoted by run, rolled back" in shown
        assert "slow since the driver update" in shown
        assert "run finished: same" in shown
        assert "week is over" in shown

    def test_a_run_that_promoted_is_told_once(self, place: Path) -> None:
        measure(place, outcomes())
        with Store(str(place)) as store:
            last = store.records.latest_run("AMD")
            assert last is not None
            store.promote(replace(promotion(minutes=9), run_id=last.run_id))
        events = document(place, "history")["history"]
        assert [event["event"] for event in events] == ["promotion", "promotion"]

    def test_one_symbol_is_told_alone(self, place: Path) -> None:
        with Store(str(place)) as store:
            store.promote(promotion("MSFT"))
        events = document(place, "history", "MSFT")["history"]
        assert {event["symbol"] for event in events} == {"MSFT"}
        assert len(document(place, "history")["history"]) == 2

    def test_a_promotion_nobody_can_read_is_told_as_such(self, place: Path) -> None:
        poison(place, "BAD")
        shown = run(place, "history")
        assert shown.exit_code == 0
        assert "unreadable" in shown.stdout

    def test_a_symbol_without_history_is_told_how_it_begins(self, place: Path) -> None:
        assert "`autotune run --symbol MSFT` begins" in run(place, "history", "MSFT").stdout


class TestSelect:
    def test_another_profile_promotes_its_best_and_publishes_it(self, place: Path) -> None:
        measure(place, outcomes())
        result = run(place, "select", "AMD", "--profile", "accuracy")
        assert result.exit_code == 0
        assert (
            f"promoted to {STEADY.label} under accuracy (before: {FAST.label} under production)"
            in result.stdout
        )
        assert "not from a duel" in result.stdout
        assert "undo: autotune rollback AMD" in result.stdout
        assert lookup("AMD", db=str(place)).settings == STEADY
        shown = document(place, "show", "AMD")
        assert (shown["stage"], shown["decision"]["verdict"]) == ("search", "selected")
        assert "figures   of the search" in run(place, "show", "AMD").stdout

    def test_the_same_again_promotes_nothing(self, place: Path) -> None:
        measure(place, outcomes())
        run(place, "select", "AMD", "--profile", "accuracy")
        before = digest(place)
        again = run(place, "select", "AMD", "--profile", "accuracy")
        assert "already" in again.stdout
        assert again.exit_code == 0
        assert not document(place, "select", "AMD", "--profile", "accuracy")["promoted"]
        assert digest(place) == before

    def test_json_says_what_it_replaced(self, place: Path) -> None:
        measure(place, outcomes())
        selected = document(place, "select", "--symbol", "AMD", "--profile", "accuracy")
        assert selected["promoted"]
        assert selected["settings"] == STEADY.to_dict()
        assert selected["previous"] == {"profile": "production", "settings": FAST.to_dict()}
        assert selected["lookup"]["source"] == "promotion"

    def test_a_duel_is_not_overruled_by_search_figures(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        with Store(str(path)) as store:
            store.promote(promotion("AMD", STEADY))
        measure(path, outcomes())  # FAST looks better in the search
        assert document(path, "select", "AMD", "--profile", "production")["settings"] == STEADY.to_dict()

    def test_going_back_to_a_profile_brings_its_duel_back(self, place: Path) -> None:
        measure(place, outcomes())
        run(place, "select", "AMD", "--profile", "accuracy")
        back = document(place, "select", "AMD", "--profile", "production")
        assert back["promoted"]
        assert (back["settings"], back["stage"]) == (FAST.to_dict(), "duel")
        assert lookup("AMD", db=str(place)).settings == FAST

    def test_a_duel_winner_that_drifts_too_far_on_new_prices_is_overruled(self, place: Path) -> None:
        measure(place, outcomes() | {FAST: measured(timing(30.0, 1.0), drift=0.5)})
        assert document(place, "select", "AMD", "--profile", "production")["settings"] == STEADY.to_dict()

    def test_research_selects_the_reference(self, place: Path) -> None:
        measure(place, outcomes())
        assert document(place, "select", "AMD", "--profile", "research")["settings"] == reference().to_dict()

    def test_measurements_of_another_symbol_do_not_count(self, place: Path) -> None:
        measure(place, outcomes(), "MSFT")
        line = refused(run(place, "select", "AMD", "--profile", "accuracy"), 1)
        assert "`autotune run --symbol AMD --profile accuracy`" in line

    def test_what_a_later_run_took_up_still_counts(self, place: Path) -> None:
        measure(place, outcomes())
        measure(place, {})
        assert document(place, "select", "AMD", "--profile", "accuracy")["settings"] == STEADY.to_dict()

    def test_nothing_within_the_limits_is_one_line_with_the_nearest(self, place: Path) -> None:
        measure(place, {STEADY: measured(timing(50.0), drift=0.002), FAST: measured(timing(30.0), drift=0.9)})
        before = digest(place)
        line = refused(run(place, "select", "AMD", "--profile", "accuracy"), 1)
        assert STEADY.label in line
        assert "drift of 0.200%" in line
        assert digest(place) == before

    def test_trials_that_all_failed_are_one_line(self, place: Path) -> None:
        measure(place, {STEADY: Failed(kind="timeout")})
        assert "every stored trial failed" in refused(run(place, "select", "AMD", "--profile", "accuracy"), 1)

    def test_an_unknown_profile_is_bad_usage(self, place: Path) -> None:
        assert "'fastest'" in refused(run(place, "select", "AMD", "--profile", "fastest"), 2)


class TestRollback:
    def test_what_was_active_before_is_served_again(self, place: Path) -> None:
        with Store(str(place)) as store:
            store.promote(promotion("AMD", STEADY, minutes=5))
        result = run(place, "rollback", "AMD", "--reason", "slow")
        assert f"took back {STEADY.label}" in result.stdout
        assert f"served here now: {FAST.label} (from: promotion)" in result.stdout
        assert "undo: autotune pin AMD --settings '{" in result.stdout
        assert lookup("AMD", db=str(place)).settings == FAST
        assert document(place, "show", "AMD")["settings"] == FAST.to_dict()

    def test_json_has_what_was_taken_back_and_what_is_active(self, place: Path) -> None:
        back = document(place, "rollback", "--symbol", "AMD")
        assert back["rolled_back"]["settings"] == FAST.to_dict()
        assert back["rolled_back"]["rolled_back_reason"] == "by hand"
        assert back["active"] is None
        assert back["lookup"]["source"] == "default"

    def test_nothing_to_take_back_is_one_line(self, place: Path) -> None:
        assert "nothing to roll back for MSFT" in refused(run(place, "rollback", "MSFT"), 1)

    def test_a_promotion_nobody_can_read_can_be_taken_back(self, place: Path) -> None:
        poison(place, "AMD")
        assert "`autotune rollback AMD`" in refused(run(place, "show", "AMD"), 1)
        result = run(place, "rollback", "AMD")
        assert result.exit_code == 0
        assert "took back unreadable settings" in result.stdout
        assert document(place, "show", "AMD")["settings"] == FAST.to_dict()
        assert run(place, "db", "check").exit_code == 0


class TestPin:
    def test_a_mode_is_pinned_and_let_go_again(self, place: Path) -> None:
        pinned = run(place, "pin", "AMD", "--mode", "default", "--precision", "bf16")
        assert "served here now: default bf16 (from: pin)" in pinned.stdout
        assert "undo: autotune unpin AMD" in pinned.stdout
        assert lookup("AMD", db=str(place)).settings == STEADY.replace(precision="bf16")
        let_go = run(place, "unpin", "AMD")
        assert f"served here now: {FAST.label} (from: promotion)" in let_go.stdout
        assert lookup("AMD", db=str(place)).settings == FAST

    def test_settings_are_pinned_whole(self, place: Path) -> None:
        pinned = document(place, "pin", "AMD", "--settings", FAST.replace(num_threads=1).to_json())
        assert pinned["pinned"] == FAST.replace(num_threads=1).to_dict()
        assert pinned["lookup"]["settings"] == pinned["pinned"]
        assert document(place, "unpin", "AMD")["pinned"] is None

    def test_the_first_pin_makes_the_store(self, tmp_path: Path) -> None:
        path = tmp_path / "new.db"
        assert run(path, "pin", "AMD", "--mode", "eager").exit_code == 0
        assert "what it is pinned to" in refused(run(path, "show", "AMD"), 1)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--mode", "warp"), "compile_mode must be one of eager"),
            (("--mode", "eager", "--precision", "fp8"), "precision must be one of"),
            (("--settings", '{"compile_mode": "warp"}'), "compile_mode must be one of eager"),
            (("--settings", '{"speed": 9}'), "unknown field 'speed'"),
            (("--settings", "{"), "not JSON"),
            (("--settings", "[]"), "one object"),
            (("--mode", "eager", "--settings", "{}"), "either --mode or --settings"),
            (("--settings", "{}", "--precision", "bf16"), "--precision goes with --mode"),
            ((), "either --mode or --settings"),
        ],
    )
    def test_what_is_no_settings_is_bad_usage(
        self, place: Path, arguments: tuple[str, ...], said: str
    ) -> None:
        before = digest(place)
        assert said in refused(run(place, "pin", "AMD", *arguments), 2)
        assert digest(place) == before

    def test_unpinning_what_is_not_pinned_is_one_line(self, place: Path) -> None:
        assert "AMD is not pinned" in refused(run(place, "unpin", "AMD"), 1)

    def test_a_pin_nobody_can_read_can_be_let_go(self, place: Path) -> None:
        write(
            place,
            "INSERT INTO pins (symbol, settings_key, settings_json, reason, pinned_at) VALUES (?, ?, ?, ?, ?)",
            *("AMD", "warp", UNREADABLE, "", NOW.isoformat()),
        )
        assert "unreadable" in run(place, "show", "AMD").stdout
        assert "`autotune unpin AMD`" in run(place, "db", "check").stdout
        assert "unreadable settings" in run(place, "unpin", "AMD").stdout
        run(place, "db", "upgrade")
        assert run(place, "db", "check").exit_code == 0


@functools.cache
def exported() -> dict[str, Any]:
    """What a store with promotions of two symbols and a pin exports."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        with Store(str(path)) as store:
            store.promote(promotion())
            store.promote(promotion("MSFT", STEADY))
            store.pin("MSFT", EAGER, "earnings week")
        return document_of(run(path, "export"))


def document_of(result: Result) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def changed(keys: tuple[str | int, ...], value: Any) -> Any:
    """The exported document with one value changed."""
    whole: Any = copy.deepcopy(exported())
    at = whole
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    return whole


class TestExchange:
    def test_what_is_exported_is_served_where_it_is_imported(self, place: Path, tmp_path: Path) -> None:
        run(place, "pin", "MSFT", "--mode", "default")
        file, other = tmp_path / "settings.json", tmp_path / "other.db"
        result = run(place, "export", "--output", str(file))
        assert "1 promotion and 1 pin" in result.stderr
        assert result.stdout == ""
        assert "imported 1 promotion and 1 pin" in run(other, "import", str(file)).stdout
        assert lookup("AMD", db=str(other)).settings == FAST
        assert lookup("MSFT", db=str(other)).settings == STEADY
        assert (
            document_of(run(other, "export"))["promotions"] == document_of(run(place, "export"))["promotions"]
        )

    def test_importing_twice_changes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "store.db"
        text = json.dumps(exported())
        counts = json.loads(run(path, "import", "-", "--json", stdin=text).stdout)
        assert (counts["promotions"], counts["pins"]) == (2, 1)
        events = document(path, "history")["history"]
        assert "active already" in run(path, "import", "-", stdin=text).stdout
        assert document(path, "history")["history"] == events

    def test_a_store_of_its_own_is_never_written_over(self, place: Path) -> None:
        before = digest(place)
        for target in (place, snapshot_path(str(place))):
            assert "the store itself" in refused(run(place, "export", "--output", str(target)), 2)
        assert digest(place) == before

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("{", "is not JSON"),
            ("", "is not JSON"),
            ("[" * 100_000, "is not JSON"),
            ("[]", "the document is not a JSON object"),
            ("{}", "lacks the field format"),
            (changed(("version",), 99), "not version 1"),
            (changed(("promotions", 1, "settings", "compile_mode"), "warp"), "promotions[1]: settings"),
            (changed(("promotions", 0, "settings"), {"speed": 9}), "unknown field 'speed'"),
            (changed(("promotions", 1, "symbol"), "../x"), "promotions[1]"),
            (changed(("promotions", 0, "evidence"), [1]), "promotions[0]: evidence is not a JSON object"),
            (
                changed(("promotions", 0, "evidence"), {"settings": 1}),
                "evidence may not have a field settings",
            ),
            (changed(("pins", 0, "settings", "compile_mode"), "warp"), "pins[0]: settings"),
            (changed(("pins", 0, "symbol"), "A'; DROP TABLE"), "pins[0]"),
            (changed(("workloads", 0, "workload"), 5), "workloads[0]: workload is refused"),
            (changed(("workloads", 0, "workload", "model"), "other"), "workloads[0]: signature"),
            (changed(("workloads", 0, "workload", "speed"), 9), "unknown field 'speed'"),
            (changed(("environments", 0, "facts"), [1]), "environments[0]: facts are refused"),
            (changed(("environments", 0, "facts", "torch"), "9"), "environments[0]: fingerprint"),
        ],
    )
    def test_a_bad_file_is_named_and_stores_nothing(
        self, place: Path, tmp_path: Path, text: Any, said: str
    ) -> None:
        file, before = tmp_path / "settings.json", digest(place)
        file.write_text(text if isinstance(text, str) else json.dumps(text))
        line = refused(run(place, "import", str(file)), 1)
        assert str(file) in line
        assert said in line
        assert digest(place) == before
        assert "Error" in refused(run(tmp_path / "new.db", "import", str(file)), 1)
        assert not (tmp_path / "new.db").exists()

    def test_a_file_that_is_not_text_is_named(self, place: Path, tmp_path: Path) -> None:
        (tmp_path / "settings.json").write_bytes(b"\xff\xfe\x00")
        assert "not UTF-8" in refused(run(place, "import", str(tmp_path / "settings.json")), 1)

    @pytest.mark.parametrize("name", ["none.json", "."])
    def test_a_file_that_cannot_be_read_is_bad_usage(self, place: Path, tmp_path: Path, name: str) -> None:
        assert "cannot be read" in refused(run(place, "import", str(tmp_path / name)), 2)

    @settings(max_examples=60, deadline=None)
    @given(data=st.data())
    def test_a_file_changed_anywhere_is_taken_whole_or_refused_in_one_line(self, data: st.DataObject) -> None:
        keys: list[Any] = []
        whole = copy.deepcopy(exported())
        at: Any = whole
        while True:
            places = list(at) if isinstance(at, dict) else list(range(len(at)))
            keys.append(data.draw(st.sampled_from(places)))
            child = at[keys[-1]]
            if not isinstance(child, dict | list) or not child or data.draw(st.booleans()):
                break
            at = child
        at[keys[-1]] = data.draw(ANY_JSON)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "store.db"
            result = run(path, "import", "-", stdin=json.dumps(whole))
            if result.exit_code != 0:
                refused(result, 1)
                assert not path.exists()
                return
            assert run(path, "list").exit_code == 0
            assert run(path, "db", "check").exit_code == 0
            assert {run(path, "show", symbol).exit_code for symbol in ("AMD", "MSFT")} <= {0, 1}


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


class TestDb:
    def test_upgrade_makes_a_store_and_its_snapshot(self, tmp_path: Path) -> None:
        path = tmp_path / "new.db"
        made = document(path, "db", "upgrade")
        assert made["store"] == str(path)
        assert Path(made["snapshot"]).exists()
        assert document(path, "list") == {"symbols": []}

    def test_a_sound_store_has_no_problems(self, place: Path) -> None:
        assert "no problem found" in run(place, "db", "check").stdout
        assert document(place, "db", "check") == {"store": str(place), "problems": []}

    @pytest.mark.parametrize("damage", ["missing", "truncated", "older", "garbage"])
    def test_a_snapshot_out_of_step_is_found_and_mended(self, place: Path, damage: str) -> None:
        snapshot = snapshot_path(str(place))
        old = snapshot.read_bytes()
        run(place, "pin", "AMD", "--mode", "eager")
        damaged = {"truncated": old[:5000], "older": old, "garbage": b"garbage" * 100}
        snapshot.unlink()
        if damage != "missing":
            snapshot.write_bytes(damaged[damage])
        found = run(place, "db", "check")
        assert found.exit_code == 1
        assert "`autotune db upgrade` publishes it again" in found.stdout
        assert len(found.stderr.splitlines()) == 1
        assert run(place, "db", "upgrade").exit_code == 0
        assert run(place, "db", "check").exit_code == 0
        assert lookup("AMD", db=str(place)).settings == EAGER

    def test_an_unreadable_promotion_is_a_problem_also_in_json(self, place: Path) -> None:
        poison(place, "BAD")
        result = run(place, "db", "check", "--json")
        assert result.exit_code == 1
        problems = json.loads(result.stdout)["problems"]
        assert any("`autotune rollback BAD`" in problem for problem in problems)

    def test_a_damaged_page_is_a_problem(self, place: Path) -> None:
        measure(place, outcomes())
        size = place.stat().st_size
        with place.open("r+b") as file:  # the first page, which holds the schema, stays whole
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))
        result = run(place, "db", "check")
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1

    def test_a_backup_is_a_store_with_the_same_settings(self, place: Path, tmp_path: Path) -> None:
        target = tmp_path / "copy.db"
        assert str(target) in run(place, "db", "backup", str(target)).stdout
        assert document(target, "show", "AMD")["settings"] == FAST.to_dict()

    def test_a_backup_replaces_a_file_only_when_forced(self, place: Path, tmp_path: Path) -> None:
        target = tmp_path / "precious.db"
        target.write_text("precious")
        assert "--force" in refused(run(place, "db", "backup", str(target)), 1)
        assert target.read_text() == "precious"
        assert document(place, "db", "backup", str(target), "--force")["backup"] == str(target)
        assert document(target, "show", "AMD")["settings"] == FAST.to_dict()

    def test_a_backup_never_replaces_the_store(self, place: Path) -> None:
        before = digest(place)
        assert "the store itself" in refused(run(place, "db", "backup", str(place), "--force"), 2)
        assert digest(place) == before


SYMBOL_COMMANDS = (
    ("show",),
    ("explain",),
    ("history",),
    ("select", "--profile", "accuracy"),
    ("rollback",),
    ("pin", "--mode", "eager"),
    ("unpin",),
)
READING = (
    ("show", "AMD"),
    ("explain", "AMD"),
    ("list",),
    ("history",),
    ("select", "AMD", "--profile", "accuracy"),
    ("rollback", "AMD"),
    ("unpin", "AMD"),
    ("export",),
    ("db", "check"),
)
WRITING = (("pin", "AMD", "--mode", "eager"), ("db", "upgrade"))


class TestFaults:
    @pytest.mark.parametrize("symbol", ["../x", "A'; DROP TABLE", "", "A B", "É", "A" * 33, "-x\n"])
    @pytest.mark.parametrize("command", SYMBOL_COMMANDS, ids=lambda command: command[0])
    def test_what_is_no_symbol_is_refused(self, place: Path, command: tuple[str, ...], symbol: str) -> None:
        before = digest(place)
        assert "is not a symbol" in refused(run(place, *command, f"--symbol={symbol}"), 2)
        assert digest(place) == before

    @pytest.mark.parametrize("command", READING, ids=" ".join)
    def test_a_missing_store_is_named_and_not_made(self, tmp_path: Path, command: tuple[str, ...]) -> None:
        path = tmp_path / "none.db"
        assert str(path) in refused(run(path, *command), 1)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("command", [*READING, *WRITING], ids=" ".join)
    def test_garbage_is_named_and_left_as_it_is(self, tmp_path: Path, command: tuple[str, ...]) -> None:
        path = tmp_path / "garbage.db"
        path.write_bytes(b"not a database " * 1000)
        before = digest(path)
        assert str(path) in refused(run(path, *command), 1)
        assert digest(path) == before

    @pytest.mark.parametrize("command", [*READING, *WRITING], ids=" ".join)
    def test_a_database_of_something_else_is_left_as_it_is(
        self, tmp_path: Path, command: tuple[str, ...]
    ) -> None:
        path = tmp_path / "other.db"
        write(path, "CREATE TABLE trades (price REAL)")
        before = digest(path)
        assert str(path) in refused(run(path, *command), 1)
        assert digest(path) == before

    @pytest.mark.parametrize("command", [("rollback", "AMD"), *WRITING], ids=" ".join)
    def test_a_locked_store_is_named_and_left_as_it_is(
        self, place: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        impatient = functools.partial(storage_database.open_database, busy_timeout_s=0.1)
        monkeypatch.setattr("autotuner.store.open_database", impatient)
        monkeypatch.setattr("storage.database.open_database", impatient)
        before = digest(place)
        with closing(sqlite3.connect(place, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            line = refused(run(place, *command), 1)
        assert str(place) in line
        assert "locked" in line
        assert digest(place) == before

    @pytest.mark.parametrize(
        "command", [("show", "AMD"), ("select", "AMD", "--profile", "production")], ids=" ".join
    )
    def test_an_unknown_mode_in_the_store_is_named_with_its_remedy(
        self, place: Path, command: tuple[str, ...]
    ) -> None:
        measure(place, outcomes())
        poison(place, "AMD")
        before = digest(place)
        line = refused(run(place, *command), 1)
        assert "'warp'" in line
        assert "`autotune rollback AMD`" in line
        assert digest(place) == before


class TestText:
    @given(st.text())
    def test_stored_text_becomes_one_printable_line(self, text: str) -> None:
        line = plain(text)
        assert all(letter.isprintable() for letter in line)
        assert [letter for letter in line if not letter.isspace()] == [
            letter for letter in text if letter.isprintable() and not letter.isspace()
        ]
        assert plain(line) == line

    @given(st.text())
    def test_any_text_where_a_time_belongs_is_shown(self, text: str) -> None:
        assert all(letter.isprintable() for letter in moment(text))

    @given(ANY_JSON)
    def test_any_json_where_settings_belong_is_labelled(self, value: Any) -> None:
        assert all(letter.isprintable() for letter in label({"settings": value}))


class TestHelp:
    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_explains_itself_with_an_example(self, name: str) -> None:
        result = CliRunner().invoke(cli, [name, "--help"], prog_name="autotune")
        assert result.exit_code == 0
        assert f"  autotune {name}" in result.stdout
        assert "--db" in result.stdout

    def test_every_command_of_the_group_explains_itself_with_an_example(self) -> None:
        group = cli.get_command(click.Context(cli), "db")
        assert isinstance(group, click.Group)
        for name in group.commands:
            result = CliRunner().invoke(cli, ["db", name, "--help"], prog_name="autotune")
            assert f"  autotune db {name}" in result.stdout
            assert "--json" in result.stdout


class TestProcess:
    @pytest.fixture
    def environ(self, place: Path) -> dict[str, str]:
        return {**os.environ, "AUTOTUNE_DB": str(place)}

    def test_json_stands_alone_on_standard_output(self, environ: dict[str, str]) -> None:
        done = _process(["show", "AMD", "--json"], environ)
        assert done.returncode == 0
        assert json.loads(done.stdout)["settings"] == FAST.to_dict()
        assert done.stderr == ""

    def test_a_refusal_is_one_line_and_an_exit_code(self, environ: dict[str, str]) -> None:
        done = _process(["rollback", "A'; DROP TABLE promotions"], environ)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1

    def test_export_can_be_piped_into_import(self, environ: dict[str, str], tmp_path: Path) -> None:
        out = _process(["export"], environ)
        other = {**environ, "AUTOTUNE_DB": str(tmp_path / "other.db")}
        taken = _process(["import", "-"], other, stdin=out.stdout)
        assert taken.returncode == 0, taken.stderr
        assert lookup("AMD", db=other["AUTOTUNE_DB"]).settings == FAST


def _process(
    arguments: list[str], environ: dict[str, str], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from autotuner.cli import main; main()", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environ,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["show", "AMD"]], ids=" ".join)
def test_commands_that_only_read_load_no_scipy(place: Path, arguments: list[str]) -> None:
    program = "import sys; from autotuner.cli import main; sys.argv[1:] = sys.argv[2:]; main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program, "-", *arguments],
        env=os.environ | {"AUTOTUNE_DB": str(place)},
        check=True,
        capture_output=True,
        text=True,
    )

    assert "autotuner.cli" in done.stderr
    assert "scipy" not in done.stderr
    assert done.stdout
