from __future__ import annotations

import math
import time
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pytest
import scipy.optimize  # noqa: F401 - so that no property's deadline is spent on importing it
from hypothesis import given
from hypothesis import strategies as st

from autotuner.measurement.outcome import ArmBlocks, Block, effective_ms
from autotuner.measurement.statistics import (
    EffectiveCost,
    launch_ratio,
    paired_ratio,
    shape_timing,
    student_quantile,
)
from autotuner.measurement.stopping import spending_confidences
from tests.support.simulated_noise import Noise

ONE_SHAPE = EffectiveCost(weights=(1.0,), sigma_weight=0.05)
DATASETS = 400
LEAST_COVERED = 0.92

times_ms = st.floats(0.01, 1e5)
blocks_of_calls = st.lists(st.lists(times_ms, min_size=1, max_size=5).map(tuple), min_size=2, max_size=12)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_shape_timing_pools_the_calls_of_all_blocks() -> None:
    timing = shape_timing([(1.0, 2.0), (3.0,), (4.0, 10.0)])

    assert timing.p50_ms == 3.0
    assert timing.p95_ms == pytest.approx(8.8)
    assert timing.sigma_ms == pytest.approx(math.sqrt(12.5))
    assert timing.calls == 5


def test_a_single_call_has_no_jitter() -> None:
    assert shape_timing([(7.0,)]).sigma_ms == 0.0


def test_a_disturbed_call_raises_sigma_and_leaves_the_median() -> None:
    calm, disturbed = shape_timing([(10.0,) * 20]), shape_timing([(10.0,) * 19, (30.0,)])

    assert (calm.p50_ms, calm.sigma_ms) == (10.0, 0.0)
    assert disturbed.p50_ms == 10.0
    assert disturbed.sigma_ms > 4.0


def test_timing_without_a_call_is_refused() -> None:
    with pytest.raises(ValueError, match="no timed call"):
        shape_timing([()])


def effective_of(blocks_by_shape: ArmBlocks, weights: Sequence[float], sigma_weight: float) -> float:
    return effective_ms([shape_timing(blocks) for blocks in blocks_by_shape], weights, sigma_weight)


def test_effective_time_weighs_shapes_and_their_jitter() -> None:
    quick, slow = [(1.0, 3.0)], [(10.0, 10.0)]

    assert effective_of([quick, slow], (0.25, 0.75), 0.5) == pytest.approx(8.0 + 0.5 * 0.25 * math.sqrt(2.0))


def test_blocks_for_another_number_of_shapes_are_refused() -> None:
    blocks = [(1.0,), (2.0,)]
    with pytest.raises(ValueError, match="1 request shapes where 2 have a weight"):
        paired_ratio([blocks], [blocks], cost=EffectiveCost(weights=(0.5, 0.5)), rng=rng())


@given(blocks=blocks_of_calls, factor=st.floats(0.1, 10.0), sigma_weight=st.floats(0.0, 1.0))
def test_effective_time_scales_with_the_times(
    blocks: list[Block], factor: float, sigma_weight: float
) -> None:
    scaled = [tuple(factor * ms for ms in block) for block in blocks]

    expected = factor * effective_of([blocks], (1.0,), sigma_weight)
    assert effective_of([scaled], (1.0,), sigma_weight) == pytest.approx(expected, rel=1e-9, abs=1e-6)


@given(ours=blocks_of_calls, theirs=blocks_of_calls, sigma_weight=st.floats(0.0, 1.0))
def test_the_ratio_is_that_of_the_effective_times_and_lies_in_its_interval(
    ours: list[Block], theirs: list[Block], sigma_weight: float
) -> None:
    cost = EffectiveCost(weights=(1.0,), sigma_weight=sigma_weight)
    count = min(len(ours), len(theirs))

    ratio = paired_ratio([theirs], [ours], cost=cost, rng=rng(), resamples=50)

    by_hand = [effective_of([blocks[:count]], (1.0,), sigma_weight) for blocks in (theirs, ours)]
    assert ratio.estimate == pytest.approx(by_hand[0] / by_hand[1], rel=1e-6)
    assert 0 <= ratio.low <= ratio.estimate * (1 + 1e-12)
    assert ratio.high >= ratio.estimate * (1 - 1e-12)


def test_an_arm_beside_itself_has_a_ratio_of_exactly_one() -> None:
    (blocks,) = Noise().launch(rng(), (20.0,))

    ratio = paired_ratio([blocks], [blocks], cost=ONE_SHAPE, rng=rng())

    assert (ratio.estimate, ratio.low, ratio.high) == (1.0, 1.0, 1.0)


def test_what_slows_both_arms_of_a_block_does_not_widen_the_ratio() -> None:
    common, own = Noise(launch_sd=0.0, block_sd=0.0, disturbed=0.0, call_sd=0.01), rng(1)
    arms = common.launch(own, (20.0, 10.0))
    moods = own.uniform(1.0, 2.0, 12)
    slowed = [
        tuple(tuple(mood * ms for ms in block) for mood, block in zip(moods, arm, strict=True))
        for arm in arms
    ]
    shuffled = slowed[1][6:] + slowed[1][:6]
    time_alone = ONE_SHAPE.time_alone

    paired = paired_ratio([slowed[0]], [slowed[1]], cost=time_alone, rng=rng())
    unpaired = paired_ratio([slowed[0]], [shuffled], cost=time_alone, rng=rng())

    assert paired.high - paired.low < 0.5 * (unpaired.high - unpaired.low)
    assert paired.low <= 2.0 <= paired.high


def test_more_confidence_is_a_wider_interval() -> None:
    theirs, ours = Noise().launch(rng(), (20.0, 10.0))

    usual, sure = (
        paired_ratio([theirs], [ours], cost=ONE_SHAPE, rng=rng(), confidence=confidence)
        for confidence in (0.95, 0.99)
    )

    assert sure.low < usual.low < usual.high < sure.high


def test_two_blocks_that_differ_leave_the_ratio_unsure() -> None:
    theirs: list[Block] = [(20.0,), (30.0,)]

    ratio = paired_ratio([theirs], [[(10.0,), (10.0,)]], cost=ONE_SHAPE.time_alone, rng=rng())

    assert ratio.low < 2.0
    assert ratio.high > 3.0


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        ([[(1.0,)]], [[(1.0,)]], "at least two blocks"),
        ([[]], [[(1.0,)]], "no timed block"),
        ([[(1.0,), ()]], [[(1.0,), (1.0,)]], "must hold calls"),
        ([[(1.0,), (0.0,)]], [[(1.0,), (1.0,)]], "finite time above 0"),
        ([[(1.0,), (math.nan,)]], [[(1.0,), (1.0,)]], "finite time above 0"),
        ([[(1.0,), (1.0,)]] * 2, [[(1.0,), (1.0,)]] * 2, "2 request shapes where 1"),
    ],
)
def test_blocks_that_give_no_ratio_are_refused(
    theirs: list[list[Block]], ours: list[list[Block]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        paired_ratio(theirs, ours, cost=ONE_SHAPE, rng=rng())


def test_six_shapes_of_sixty_blocks_are_resampled_a_thousand_times_in_a_blink() -> None:
    cost = EffectiveCost(weights=(1 / 6,) * 6, sigma_weight=0.05)
    theirs, ours = ([Noise().launch(rng(i), (20.0,), blocks=60)[0] for i in range(6)] for _ in range(2))
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        paired_ratio(theirs, ours, cost=cost, rng=rng())
        seconds.append(time.process_time() - begin)

    assert min(seconds) < 0.06


@pytest.mark.parametrize("bimodal", [False, True])
@pytest.mark.parametrize("blocks", [12, 60])
def test_the_interval_of_one_launch_covers_the_true_ratio(blocks: int, bimodal: bool) -> None:
    noise, draws = Noise(launch_sd=0.0, bimodal=bimodal), rng(2)
    covered = 0
    for _ in range(DATASETS):
        theirs, ours = noise.launch(draws, (20.0, 16.0), blocks=blocks)
        ratio = paired_ratio([theirs], [ours], cost=ONE_SHAPE, rng=draws, resamples=300)
        covered += ratio.low <= 1.25 <= ratio.high

    assert covered >= 0.9 * DATASETS


@pytest.mark.parametrize("bimodal", [False, True])
@pytest.mark.parametrize("sigma_weight", [0.05, 0.75])
@pytest.mark.parametrize("launches", [3, 5])
def test_the_interval_of_few_launches_covers_the_true_ratio(
    launches: int, sigma_weight: float, bimodal: bool
) -> None:
    cost = EffectiveCost(weights=(1.0,), sigma_weight=sigma_weight)
    noise, draws = Noise(bimodal=bimodal), rng(3)
    covered = 0
    for _ in range(DATASETS):
        pairs = [noise.launch(draws, (20.0, 16.0)) for _ in range(launches)]
        theirs, ours = ([[pair[arm]] for pair in pairs] for arm in (0, 1))
        ratio = launch_ratio(theirs, ours, cost=cost, rng=draws)
        covered += ratio.low <= 1.25 <= ratio.high

    assert covered >= LEAST_COVERED * DATASETS


def test_one_launch_alone_is_surer_than_it_may_be_when_launches_differ() -> None:
    noise, draws = Noise(launch_sd=0.03, call_sd=0.05, block_sd=0.0, disturbed=0.0), rng(4)
    covered = 0
    for _ in range(DATASETS):
        theirs, ours = noise.launch(draws, (20.0, 16.0), blocks=60)
        ratio = paired_ratio([theirs], [ours], cost=ONE_SHAPE, rng=draws, resamples=300)
        covered += ratio.low <= 1.25 <= ratio.high

    assert covered < 0.6 * DATASETS


def test_launches_that_agree_by_luck_are_as_unsure_as_their_blocks() -> None:
    theirs, ours = Noise().launch(rng(5), (20.0, 16.0))

    lucky = launch_ratio([[theirs]] * 3, [[ours]] * 3, cost=ONE_SHAPE, rng=rng())

    assert lucky.high / lucky.low > 1.02


def test_the_start_is_spread_over_the_calls_of_a_process() -> None:
    cost = EffectiveCost(weights=(1.0,), calls_per_process=1000)
    flat = [[((10.0,),) * 4]] * 2

    ratio = launch_ratio(flat, flat, cost=cost, rng=rng(), start_ms=(0.0, 2500.0))

    assert ratio.estimate == pytest.approx(10.0 / 12.5)


def test_one_launch_is_too_few_for_an_interval() -> None:
    with pytest.raises(ValueError, match="two or more launches"):
        launch_ratio([[[(1.0,)]]], [[[(1.0,)]]], cost=ONE_SHAPE, rng=rng())


@pytest.mark.parametrize(
    "fields",
    [
        {"weights": ()},
        {"weights": (0.5, -0.5)},
        {"weights": (math.nan,)},
        {"weights": (1.0,), "sigma_weight": -0.1},
        {"weights": (1.0,), "calls_per_process": 0},
    ],
)
def test_a_cost_that_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^cost: "):
        EffectiveCost(**fields)  # type: ignore[arg-type]


# NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.2, upper critical values of Student's t.
@pytest.mark.parametrize(
    ("probability", "df", "published"),
    [
        (0.90, 1, 3.078),
        (0.95, 2, 2.920),
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 3, 3.182),
        (0.975, 4, 2.776),
        (0.975, 9, 2.262),
        (0.975, 30, 2.042),
        (0.975, 100, 1.984),
        (0.99, 5, 3.365),
        (0.995, 2, 9.925),
        (0.995, 4, 4.604),
        (0.999, 10, 4.144),
    ],
)
def test_student_quantiles_are_the_published_ones(probability: float, df: int, published: float) -> None:
    assert student_quantile(probability, df) == pytest.approx(published, abs=6e-4)


@given(probability=st.floats(0.001, 0.999))
def test_student_quantiles_have_their_closed_forms(probability: float) -> None:
    one, two = (student_quantile(probability, df) for df in (1, 2))

    assert one == pytest.approx(math.tan(math.pi * (probability - 0.5)), rel=1e-9, abs=1e-9)
    closed = (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    assert two == pytest.approx(closed, rel=1e-9, abs=1e-9)


@given(probability=st.floats(0.001, 0.999), df=st.integers(1, 60))
def test_student_quantiles_are_symmetric_and_wider_than_normal(probability: float, df: int) -> None:
    quantile = student_quantile(probability, df)

    assert quantile == pytest.approx(-student_quantile(1 - probability, df), rel=1e-6, abs=1e-9)
    assert abs(quantile) >= abs(NormalDist().inv_cdf(probability)) - 1e-9


@pytest.mark.parametrize(("probability", "df"), [(0.0, 3), (1.0, 3), (0.9, 0)])
def test_a_quantile_that_does_not_exist_is_refused(probability: float, df: int) -> None:
    with pytest.raises(ValueError, match=r"^student: "):
        student_quantile(probability, df)


def z_of(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


# O'Brien-Fleming-type spending, two-sided 5 %: Reboussin, DeMets, Kim and Lan (2000), program ld98.
@pytest.mark.parametrize(
    ("checks", "published"),
    [
        (1, (1.960,)),
        (2, (2.963, 1.969)),
        (3, (3.710, 2.511, 1.993)),
        (5, (4.877, 3.357, 2.680, 2.290, 2.031)),
    ],
)
def test_the_checks_have_the_published_boundaries(checks: int, published: tuple[float, ...]) -> None:
    assert [z_of(c) for c in spending_confidences(checks)] == pytest.approx(published, abs=1e-3)


def test_all_checks_together_err_no_more_than_promised() -> None:
    fractions = (0.6, 0.8, 1.0)
    boundaries = np.array([z_of(c) for c in spending_confidences(3, 0.05, fractions)])
    steps = np.sqrt(np.diff((0.0, *fractions)))
    walk = np.cumsum(steps * rng(6).standard_normal((400_000, 3)), axis=1) / np.sqrt(fractions)

    assert np.any(np.abs(walk) > boundaries, axis=1).mean() == pytest.approx(0.05, abs=0.0015)


def test_a_very_early_check_still_has_an_interval() -> None:
    (first, *_) = spending_confidences(3, 0.05, (0.05, 0.5, 1.0))

    assert 0.999999 < first < 1
    assert math.isfinite(student_quantile((1 + first) / 2, 2))


@given(checks=st.integers(1, 6), alpha=st.sampled_from([0.01, 0.05, 0.1]))
def test_every_check_is_at_least_as_sure_as_a_single_one(checks: int, alpha: float) -> None:
    confidences = spending_confidences(checks, alpha)

    assert len(confidences) == checks
    assert all(confidence >= 1 - alpha - 1e-9 for confidence in confidences)
    assert list(confidences) == sorted(confidences, reverse=True)


@pytest.mark.parametrize(
    ("checks", "alpha", "fractions"),
    [
        (0, 0.05, None),
        (3, 0.0, None),
        (3, 1.0, None),
        (2, 0.05, (0.5, 0.9)),
        (2, 0.05, (1.0,)),
        (3, 0.05, (0.5, 0.5, 1.0)),
    ],
)
def test_checks_that_make_no_plan_are_refused(
    checks: int, alpha: float, fractions: tuple[float, ...] | None
) -> None:
    with pytest.raises(ValueError, match=r"^checks: "):
        spending_confidences(checks, alpha, fractions)
