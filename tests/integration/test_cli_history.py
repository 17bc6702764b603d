from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autotuner.store import Store
from tests.support.invoking import document, refused, run
from tests.support.promoted_store import BF16, FAST, STEADY, measure, outcomes, poison, promotion

pytestmark = pytest.mark.usefixtures("no_variables")


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
            last = store.records.runs("AMD")[-1]
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
