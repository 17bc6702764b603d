from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.search.gain_model import Outlook, Tried, left_open, most_promising, outlooks, settled
from tests.support.study_tables import SPACE
from toto_core.settings import RuntimeSettings

KEYS = SPACE.keys
EAGER = SPACE.reference
FROZEN = SPACE.canonical(RuntimeSettings(compile_mode="default", freezing=True, num_threads=2))
BF16 = EAGER.replace(precision="bf16")


def outlook_of(settings: RuntimeSettings, tried: dict[RuntimeSettings, Tried]) -> Outlook:
    (found,) = outlooks([settings], tried)
    return found


def test_what_is_like_a_winner_promises_more_than_what_is_like_a_loser() -> None:
    like_it = FROZEN.replace(num_threads=1)
    won = outlook_of(like_it, {EAGER: Tried(score=1.0), FROZEN: Tried(score=0.3)})
    lost = outlook_of(like_it, {EAGER: Tried(score=1.0), FROZEN: Tried(score=3.0)})

    assert won.gain > lost.gain
    assert won.chance > lost.chance


def test_what_failed_rules_out_what_is_like_it() -> None:
    unlike = outlook_of(FROZEN, {EAGER: Tried(score=1.0)})
    like = outlook_of(FROZEN, {EAGER: Tried(score=1.0), FROZEN.replace(num_threads=1): Tried(score=None)})

    assert like.gain < unlike.gain


def test_what_broke_a_limit_was_fast_all_the_same() -> None:
    beside = {EAGER: Tried(score=1.0), FROZEN.replace(precision="bf16"): Tried(score=0.2, feasible=False)}
    slow = {EAGER: Tried(score=1.0), FROZEN.replace(precision="bf16"): Tried(score=2.0, feasible=False)}

    assert outlook_of(FROZEN, beside).gain > outlook_of(FROZEN, slow).gain


def test_the_more_is_known_around_a_key_the_less_it_may_still_gain() -> None:
    tried = {EAGER: Tried(score=1.0)}
    before = outlook_of(FROZEN, tried)
    around = {key: Tried(score=1.2) for key in KEYS if key.compiled and key != FROZEN}

    assert outlook_of(FROZEN, tried | around).chance < before.chance / 2


def test_cheap_settings_come_before_dear_ones_that_promise_the_same() -> None:
    dear = FROZEN.replace(compile_mode="max-autotune")
    found = outlooks([dear, FROZEN], {EAGER: Tried(score=1.0)})

    assert most_promising(found, seconds_left=1e6) == FROZEN
    assert found[0].seconds > found[1].seconds


@pytest.mark.parametrize(("device", "seconds"), [("cpu", [24, 24, 50, 8]), ("cuda", [35, 50, 85, 8])])
def test_what_a_trial_costs_before_any_was_seen_is_the_devices(device: str, seconds: list[float]) -> None:
    modes = ("default", "reduce-overhead", "max-autotune", "eager")
    keys = [RuntimeSettings(compile_mode=mode) for mode in modes]

    assert [each.seconds for each in outlooks(keys, {}, device=device)] == pytest.approx(seconds)


def test_what_does_not_fit_into_the_time_left_is_not_begun() -> None:
    found = outlooks(
        [FROZEN, BF16], {EAGER: Tried(score=1.0), FROZEN.replace(num_threads=1): Tried(score=0.2)}
    )

    assert most_promising(found, seconds_left=1e6) == FROZEN
    assert most_promising(found, seconds_left=10.0) == BF16
    assert most_promising(found, seconds_left=0.1) is None


def test_what_trials_took_is_learned() -> None:
    seen = {EAGER: Tried(score=1.0), FROZEN.replace(num_threads=1): Tried(score=1.0, seconds=300.0)}

    assert outlook_of(FROZEN, seen).seconds > 2 * outlook_of(FROZEN, {EAGER: Tried(score=1.0)}).seconds


def test_a_search_is_settled_when_the_chances_together_are_small() -> None:
    def at(chance: float) -> Outlook:
        return Outlook(settings=EAGER, gain=0.0, chance=chance, seconds=1.0)

    assert settled([at(0.01), at(0.02)], 0.05)
    assert not settled([at(0.03), at(0.03)], 0.05)
    assert not settled([at(0.0)], 0.0)


@given(
    scores=st.dictionaries(
        st.sampled_from(KEYS), st.one_of(st.none(), st.floats(0.01, 100.0)), min_size=1, max_size=12
    )
)
def test_outlooks_are_finite_and_probabilities_whatever_was_tried(
    scores: dict[RuntimeSettings, float | None],
) -> None:
    untried = [key for key in KEYS if key not in scores]
    found = outlooks(untried, {key: Tried(score=score) for key, score in scores.items()})

    assert [each.settings for each in found] == untried
    for each in found:
        assert math.isfinite(each.gain)
        assert each.gain >= 0
        assert 0 <= each.chance <= 1
        assert each.seconds > 0


def test_what_is_left_open_is_counted_until_the_rest_is_unlikely_enough() -> None:
    looks = [
        Outlook(settings=settings, gain=0.1, chance=chance, seconds=seconds)
        for settings, chance, seconds in zip(SPACE.keys, (0.04, 0.5, 0.2), (10.0, 40.0, 30.0), strict=False)
    ]

    found = left_open(looks, 0.05)

    assert found is not None
    assert (found.configurations, found.likeliest, found.seconds) == (3, SPACE.keys[1], 70.0)
    assert found.chance == pytest.approx(1 - 0.96 * 0.5 * 0.8)
    unlikely = left_open(looks[:1], 0.05)
    assert unlikely is not None
    assert unlikely.seconds == 0.0  # settled as it is
    assert left_open([], 0.05) is None


def test_nothing_known_leaves_every_chance_open() -> None:
    assert not settled(outlooks(KEYS, {}), 0.05)
    assert outlook_of(FROZEN, {}).chance == pytest.approx(0.85, abs=0.01)
