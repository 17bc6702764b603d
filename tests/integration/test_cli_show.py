from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autotuner.environment import current_environment
from autotuner.store import Store
from tests.support.invoking import document, refused, run
from tests.support.outcomes import measured, timing
from tests.support.promoted_store import (
    EAGER,
    FAST,
    NOW,
    STEADY,
    measure,
    poison,
    promotion,
)

pytestmark = pytest.mark.usefixtures("no_variables")

DAMAGED = (
    "[1]",
    '"fast"',
    '{"ratio": {"estimate": "fast"}}',
    '{"p50_ms": true}',
    f'{{"mae": {"9" * 400}}}',
    '{"conditions": "quiet"}',
    '{"compile_report": []}',
    '{"canary": {"share": 2, "previous": {}}}',
    f'{{"drift": {"[" * 400}{"]" * 400}}}',
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

    def test_figures_that_are_missing_are_left_out(self, place: Path) -> None:
        poison(place, settings=FAST.to_json(), evidence='{"launches": null}')
        shown = run(place, "show", "AMD")
        assert shown.exit_code == 0
        assert "faster" not in shown.stdout
        assert "p50" not in shown.stdout

    @pytest.mark.parametrize("text", DAMAGED)
    @pytest.mark.parametrize("command", ["show", "explain", "select"])
    def test_figures_that_cannot_be_read_are_one_line_that_says_what_to_do(
        self, place: Path, text: str, command: str
    ) -> None:
        poison(place, settings=FAST.to_json(), evidence=text)
        measure(place, {EAGER: measured(timing(4.0))})
        extra = ("--profile", "production") if command == "select" else ()
        line = refused(run(place, command, "AMD", *extra), 1)
        assert "cannot be read" in line
        assert "autotune rollback AMD" in line

    @pytest.mark.parametrize("text", DAMAGED)
    def test_figures_that_cannot_be_read_hide_no_other_symbol_and_can_be_taken_back(
        self, place: Path, text: str
    ) -> None:
        with Store(str(place)) as store:
            store.promote(promotion("MSFT", STEADY))
        poison(place, settings=FAST.to_json(), evidence=text)
        assert json.loads(run(place, "list", "--json").stdout)["symbols"][1]["settings"] == STEADY.to_dict()
        assert "AMD cannot be read" in run(place, "list").stderr
        assert document(place, "history", "AMD")["history"][-1]["ratio"] is None
        assert run(place, "rollback", "AMD").exit_code == 0
        assert "cannot be read" not in run(place, "list").stderr

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
