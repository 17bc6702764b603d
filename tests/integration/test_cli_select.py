from __future__ import annotations

from pathlib import Path

import pytest

from autotuner.measurement.outcome import Failed
from autotuner.serving.lookup import lookup
from autotuner.store import Store
from tests.support.invoking import document, refused, run
from tests.support.outcomes import measured, timing
from tests.support.promoted_store import FAST, STEADY, digest, measure, outcomes, promotion, reference

pytestmark = pytest.mark.usefixtures("no_variables")


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
