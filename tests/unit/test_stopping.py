from __future__ import annotations

import time

import numpy as np
import pytest

from autotuner.measurement.outcome import ArmBlocks
from autotuner.measurement.statistics import EffectiveCost
from autotuner.measurement.stopping import StopAfterStartingTime, StopWhenPrecise

BLOCKS = 24


def arm(ms: float, spread: float, rounds: int, seed: int) -> ArmBlocks:
    rng = np.random.default_rng(seed)
    return (tuple(tuple(ms * np.exp(spread * rng.standard_normal(4))) for _ in range(rounds)),)


def asked(spread: float, ms: float = 10.0, beat: float | None = None) -> list[int]:
    """The rounds after which it was enough, of one trial whose reference takes 10 ms."""
    enough = StopWhenPrecise(
        blocks=BLOCKS, width=0.04, cost=EffectiveCost(weights=(1.0,)), rng=np.random.default_rng(0), beat=beat
    )
    found = []
    for rounds in range(4, BLOCKS):
        blocks = (arm(ms, spread, BLOCKS, 1), arm(10.0, spread, BLOCKS, 2))
        if enough(rounds, [(shape[0][:rounds],) for shape in blocks]):
            found.append(rounds)
    return found


def test_a_narrow_interval_is_enough_at_the_first_planned_check() -> None:
    assert asked(0.001)[0] == BLOCKS // 3


def test_nothing_is_checked_between_the_planned_checks() -> None:
    assert set(asked(0.0001)) == {BLOCKS // 3, 2 * BLOCKS // 3}


def test_a_trial_that_cannot_reach_what_must_be_beaten_ends_early() -> None:
    assert asked(0.2, ms=100.0) == []
    assert asked(0.2, ms=100.0, beat=1.0)


def test_a_trial_that_may_still_win_goes_on() -> None:
    assert asked(0.2, beat=1.0) == []


@pytest.mark.parametrize(("second", "ends"), [(0.2, True), (0.05, False)])
def test_an_interval_that_stops_narrowing_is_enough(second: float, ends: bool) -> None:
    enough = StopWhenPrecise(
        blocks=BLOCKS, width=0.001, cost=EffectiveCost(weights=(1.0,)), rng=np.random.default_rng(0)
    )
    first_check, second_check = BLOCKS // 3, 2 * BLOCKS // 3
    assert not enough(first_check, [arm(10.0, 0.1, first_check, 1), arm(10.0, 0.1, first_check, 2)])

    assert (
        enough(second_check, [arm(10.0, second, second_check, 1), arm(10.0, second, second_check, 2)]) is ends
    )


def test_a_launch_that_took_long_to_start_is_timed_for_as_long() -> None:
    enough = StopAfterStartingTime(blocks=3, began=time.monotonic() - 0.2)

    assert not enough(3, [])
    time.sleep(0.25)
    assert not enough(2, [])
    assert enough(3, [])


def test_a_launch_has_a_most_of_blocks() -> None:
    assert StopAfterStartingTime(blocks=3, began=time.monotonic() - 1000.0).most == 24
