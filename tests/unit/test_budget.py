from __future__ import annotations

from dataclasses import replace

import pytest

from autotuner.search.gain_model import LeftOpen
from autotuner.search.space import search_space
from autotuner.tuning.budget import (
    DUEL_SHARE,
    MOST_SECONDS,
    USUAL_SECONDS,
    duel_seconds,
    expected_search,
    search_seconds,
    seconds_by_itself,
    seconds_to_settle,
    trial_seconds,
)
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings

TOTO_MINI, LARGE = 6_800_000, 605_000_000


def expected(*, slots: int, weights: int = TOTO_MINI, device: str = "cpu") -> float:
    workload = Workload()
    facts = workload.facts(device=device, threads=1, patch_size=64)
    return expected_search(search_space(workload, facts), slots=slots, weights_bytes=weights)


def test_the_model_that_ships_is_expected_to_fit_into_the_usual_time_on_two_cpus() -> None:
    assert seconds_by_itself(expected(slots=2)) == USUAL_SECONDS


@pytest.mark.parametrize("slots", [1, 2])
def test_a_large_model_on_few_cpus_gets_more_time(slots: int) -> None:
    assert seconds_by_itself(expected(slots=slots, weights=LARGE)) == MOST_SECONDS


def test_more_cpus_and_less_weight_are_expected_to_take_less() -> None:
    few, many = expected(slots=2), expected(slots=16)
    assert many < few < expected(slots=2, weights=LARGE)
    assert many > 0


def test_a_gpu_has_an_expectation_of_its_own() -> None:
    assert expected(slots=1, device="cuda") > 0


def test_what_settles_a_search_leaves_its_duel_time() -> None:
    left = LeftOpen(configurations=3, likeliest=RuntimeSettings(), chance=0.5, seconds=120.0)
    needed = seconds_to_settle(left)
    assert needed is not None
    assert search_seconds(needed) >= 120.0
    assert seconds_to_settle(replace(left, seconds=0.0)) is None  # as good as known


def test_a_duel_is_left_its_share_or_what_its_launches_take_where_processes_start_soon() -> None:
    assert duel_seconds(300.0, None) == DUEL_SHARE * 300.0
    assert duel_seconds(300.0, 16.7) == DUEL_SHARE * 300.0
    assert duel_seconds(300.0, 4.0) == pytest.approx(84.0)  # seven launches of three arms


def test_a_trial_leaves_time_for_others_until_hardly_any_is_left() -> None:
    assert [trial_seconds(left) for left in (1_000.0, 200.0, 90.0, 30.0)] == [150.0, 100.0, 60.0, 30.0]
