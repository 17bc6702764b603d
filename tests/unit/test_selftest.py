from __future__ import annotations

import math

import numpy as np
import pytest

from autotuner.commands.selftest import SelfTest, equal_arms, self_test, upper_bound
from autotuner.errors import AutotuneError
from autotuner.measurement.recorded import Recorded, ReplayTable
from autotuner.measurement.replay import ReplayRunner, TimingNoise
from autotuner.measurement.statistics import EffectiveCost
from toto_core.settings import RuntimeSettings

REFERENCE = RuntimeSettings(num_threads=2)
COST = EffectiveCost(weights=(1.0,), sigma_weight=0.05)


def outcome(noise: TimingNoise, *, seconds: float = 1000.0, second_is_slower: float = 1.0) -> SelfTest:
    first, second = equal_arms(REFERENCE)
    table = ReplayTable(
        entries={
            first: Recorded(latency_ms=(10.0,), sigma_ms=(0.5,), cost_s=5.0),
            second: Recorded(latency_ms=(10.0 * second_is_slower,), sigma_ms=(0.5,), cost_s=5.0),
        },
        reference=first,
    )
    runner = ReplayRunner(table, noise)
    return self_test(
        runner,
        REFERENCE,
        cost=COST,
        seconds=seconds,
        clock=runner.clock,
        say=lambda _: None,
        rng=np.random.default_rng(0),
        replays=120,
    )


def test_the_arms_have_distinct_keys_and_are_the_same_thing() -> None:
    first, second = equal_arms(REFERENCE)

    assert first.key != second.key
    assert not first.compiled
    assert not second.compiled


def test_a_quiet_machine_crowns_no_false_winner_and_proves_small_gains() -> None:
    found = outcome(TimingNoise(per_call=0.05, launch=0.005, disturbed=0.0))

    assert found.false_winner_rate == 0.0
    assert found.false_winner_bound < 0.03
    assert found.launches == 10
    assert found.smallest_detectable_gain is not None
    assert found.smallest_detectable_gain <= 0.08


def test_a_noisy_machine_crowns_hardly_any_and_says_that_it_sees_less() -> None:
    quiet = outcome(TimingNoise(per_call=0.05, launch=0.005, disturbed=0.0))
    noisy = outcome(TimingNoise(per_call=0.3, launch=0.08, disturbed=0.3, seed=3))

    assert noisy.false_winner_rate <= 0.05
    assert noisy.disturbed_blocks > quiet.disturbed_blocks
    assert (noisy.smallest_detectable_gain or 1.0) > (quiet.smallest_detectable_gain or 1.0)


def test_arms_that_differ_after_all_show_as_false_winners() -> None:
    # where the relabelling happens to agree with the truth in every launch, the faster arm wins
    found = outcome(TimingNoise(per_call=0.01, launch=0.001, disturbed=0.0), second_is_slower=1.5)

    assert found.false_winner_rate > 0.0


def test_too_little_time_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(AutotuneError, match="--timeout"):
        outcome(TimingNoise(), seconds=15.0)


@pytest.mark.parametrize(
    ("failures", "trials", "expected"),
    [(0, 400, 0.00746), (4, 1000, 0.00913), (1, 100, 0.0466), (5, 5, 1.0)],
)
def test_the_bound_is_that_of_clopper_and_pearson(failures: int, trials: int, expected: float) -> None:
    assert upper_bound(failures, trials) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("failures", "trials"), [(0, 400), (1, 100), (4, 1000), (17, 200)])
def test_at_the_bound_so_few_failures_come_five_times_in_a_hundred(failures: int, trials: int) -> None:
    rate = upper_bound(failures, trials)
    so_few = sum(math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(failures + 1))

    assert so_few == pytest.approx(0.05, abs=1e-9)
