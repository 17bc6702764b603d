from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuner.errors import UsageError
from autotuner.measurement.outcome import Failed, Measured, Outcome, ShapeTiming, effective_ms
from autotuner.search.profiles import PROFILES, Limits, Profile, profile, seed_profile
from autotuner.search.scoring import (
    Constraint,
    break_even_calls,
    constraints,
    judge,
    miss_probability,
    rank,
    score,
)
from autotuner.workload import RequestShape, Workload
from tests.support.outcomes import measured, timing
from toto_core.settings import RuntimeSettings

ONE = Workload()
TWO = Workload(shapes=(RequestShape(weight=3), RequestShape(context_length=64, weight=1)))
EAGER = RuntimeSettings()
DEFAULT = RuntimeSettings(compile_mode="default")
TUNED = RuntimeSettings(compile_mode="max-autotune")
PRODUCTION = PROFILES["production"]

positive = st.floats(0.01, 1e4)


def test_the_profiles_are_the_promised_ones() -> None:
    table = {
        name: (entry.sigma_weight, entry.drift_budget, entry.quantile_limit, entry.searches)
        for name, entry in PROFILES.items()
    }

    assert table == {
        "production": (0.05, 0.01, 0.05, True),
        "accuracy": (0.75, 0.001, 0.01, True),
        "throughput": (0.0, 0.05, 0.10, True),
        "research": (0.0, 0.0, 0.0, False),
    }
    assert list(PROFILES) == [entry.name for entry in PROFILES.values()]


def test_an_unknown_profile_is_refused_with_the_names() -> None:
    with pytest.raises(UsageError, match="'fast'; choose one of production, accuracy, throughput, research"):
        profile("fast")


@pytest.mark.parametrize("field", ["sigma_weight", "drift_budget", "quantile_limit"])
def test_a_profile_with_a_negative_or_missing_number_is_refused(field: str) -> None:
    for wrong in (-1.0, math.nan):
        with pytest.raises(UsageError, match=f"profile production: {field}"):
            dataclasses.replace(PRODUCTION, **{field: wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("peak_bytes", 0), ("deadline_ms", 0.0), ("deadline_miss_target", 1.0), ("deadline_miss_target", -0.1)],
)
def test_a_limit_out_of_range_is_refused(field: str, wrong: float) -> None:
    with pytest.raises(UsageError, match=f"limits: {field}"):
        dataclasses.replace(Limits(), **{field: wrong})  # type: ignore[arg-type]


def broken(outcome: Measured, workload: Workload, profile: Profile, limits: Limits) -> list[Constraint]:
    kept = judge(outcome, workload, profile, limits).constraints
    return [constraint for constraint in kept if constraint.amount > 0]


def test_effective_time_weighs_shapes_jitter_and_cold_start() -> None:
    timings = (timing(100.0, 10.0), timing(20.0, 4.0))

    assert effective_ms(timings, (0.75, 0.25), 0.5, 30_000.0, 10_000) == pytest.approx(
        0.75 * 105 + 0.25 * 22 + 3
    )


def test_timings_of_other_shapes_than_the_workload_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        score(measured(timing(1.0)), TWO, PRODUCTION)


@given(positive, positive, positive)
def test_the_reference_scores_one_under_every_profile(p50: float, sigma: float, cold: float) -> None:
    same = timing(p50, sigma)
    outcome = measured(same, reference=(same,), cold_start_ms=cold, reference_cold_start_ms=cold)

    for entry in PROFILES.values():
        assert score(outcome, ONE, entry) == pytest.approx(1.0)


@given(positive, positive, st.floats(1.01, 10))
def test_faster_always_scores_better(p50: float, sigma: float, gain: float) -> None:
    slow, fast = measured(timing(p50 * gain, sigma)), measured(timing(p50, sigma))

    assert score(fast, ONE, PRODUCTION) < score(slow, ONE, PRODUCTION)


@pytest.mark.parametrize(
    ("drift", "expected"), [(0.0, 0.5), (0.005, 0.5 * 1.025), (0.01, 0.5 * 1.05), (0.3, 0.5 * 1.05)]
)
def test_drift_costs_up_to_five_percent_of_the_score(drift: float, expected: float) -> None:
    assert score(measured(drift=drift), ONE, PRODUCTION) == pytest.approx(expected)


def test_the_drift_term_can_be_left_out() -> None:
    plain = dataclasses.replace(PRODUCTION, drift_term=False)

    assert score(measured(drift=0.01), ONE, plain) == pytest.approx(0.5)
    assert broken(measured(drift=0.02), ONE, plain, Limits())


def test_a_budget_of_nothing_divides_by_nothing() -> None:
    research = PROFILES["research"]

    assert score(measured(drift=0.0), ONE, research) == pytest.approx(0.5)
    assert score(measured(drift=1e-6), ONE, research) == pytest.approx(0.525)
    assert not broken(measured(), ONE, research, Limits())
    assert [c.name for c in broken(measured(drift=1e-6), ONE, research, Limits())] == ["drift"]


def test_constraints_come_with_the_relative_amount_they_are_missed_by() -> None:
    outcome = measured(drift=0.015, quantile_shift=0.025, peak_bytes=300)
    amounts = {c.name: c.amount for c in constraints(outcome, ONE, PRODUCTION, Limits(peak_bytes=200))}

    assert amounts == pytest.approx({"drift": 0.5, "quantile_shift": -0.5, "peak_bytes": 0.5})


def test_exactly_at_a_limit_is_kept() -> None:
    outcome = measured(drift=0.01, quantile_shift=0.05, peak_bytes=200)

    assert not broken(outcome, ONE, PRODUCTION, Limits(peak_bytes=200))


def test_the_deadline_is_judged_by_raw_calls_of_every_shape() -> None:
    often, never = ((10.0, 30.0), (10.0, 30.0)), ((10.0, 10.0), (10.0, 10.0))
    outcome = measured(timing(20.0), timing(10.0), blocks=(often, never))

    assert miss_probability(outcome, TWO, 25.0) == pytest.approx(0.75 * 0.5)
    assert [c.name for c in broken(outcome, TWO, PRODUCTION, Limits(deadline_ms=25.0))] == ["deadline_misses"]
    assert not broken(outcome, TWO, PRODUCTION, Limits(deadline_ms=25.0, deadline_miss_target=0.4))


def test_without_raw_calls_the_deadline_is_judged_by_the_95th_percentile() -> None:
    outcome = measured(timing(20.0, 5.0))

    assert miss_probability(outcome, ONE, 25.0) == 1.0
    assert miss_probability(outcome, ONE, 31.0) == 0.0


def test_an_infeasible_outcome_says_why_and_keeps_its_score() -> None:
    judged = judge(measured(drift=0.02, peak_bytes=3_000), ONE, PRODUCTION, Limits(peak_bytes=2_000))

    assert not judged.feasible
    assert judged.score == pytest.approx(0.525)
    assert judged.reasons == (
        "drift of 2.000% is above the limit of 1.000%",
        "peak memory of 3,000 bytes is above the limit of 2,000",
    )
    assert judged.amount == pytest.approx(1.0 + 0.5)


def test_a_failed_outcome_has_a_reason_and_no_score() -> None:
    judged = judge(Failed(kind="timeout", detail="after 60 s"), ONE, PRODUCTION, Limits())

    assert (judged.feasible, judged.score, judged.reasons) == (False, None, ("timeout: after 60 s",))
    assert judge(Failed(kind="timeout"), ONE, PRODUCTION, Limits()).reasons == ("timeout",)


@pytest.mark.parametrize(
    "outcome",
    [measured(timing(math.nan)), measured(drift=math.nan), measured(reference=(timing(0.0),))],
)
def test_a_measurement_that_is_not_finite_is_no_measurement(outcome: Outcome) -> None:
    judged = judge(outcome, ONE, PRODUCTION, Limits())

    assert (judged.feasible, judged.score) == (False, None)


def test_rank_puts_feasible_before_infeasible_before_failed() -> None:
    outcomes: dict[RuntimeSettings, Outcome] = {
        DEFAULT: Failed(kind="crashed"),
        TUNED: measured(timing(10.0), drift=0.5),
        RuntimeSettings(precision="bf16"): measured(timing(1.0), drift=0.02),
        EAGER: measured(timing(100.0)),
    }

    assert [r.settings.label for r in rank(outcomes, ONE, PRODUCTION, Limits())] == [
        "eager fp32",
        "eager bf16",
        "max-autotune fp32",
        "default fp32",
    ]


@given(st.permutations([EAGER, DEFAULT, TUNED]), st.floats(0, 9e-10), st.floats(0, 9e-10))
def test_equal_scores_go_by_simplicity(order: list[RuntimeSettings], more: float, less: float) -> None:
    p50 = {EAGER: 50.0 * (1 + more), DEFAULT: 50.0 * (1 + less), TUNED: 50.0}
    outcomes = {settings: measured(timing(p50[settings])) for settings in order}

    assert [r.settings for r in rank(outcomes, ONE, PRODUCTION, Limits())] == [EAGER, DEFAULT, TUNED]


def test_a_real_difference_beats_simplicity() -> None:
    outcomes = {EAGER: measured(timing(50.01)), TUNED: measured(timing(50.0))}

    assert rank(outcomes, ONE, PRODUCTION, Limits())[0].settings == TUNED


def test_another_profile_re_scores_what_was_measured() -> None:
    outcomes = {
        TUNED: measured(timing(40.0, 60.0), drift=0.0005),
        DEFAULT: measured(timing(60.0, 1.0), drift=0.0005),
        RuntimeSettings(compile_mode="default", precision="bf16"): measured(timing(20.0), drift=0.03),
    }
    best = {
        name: rank(outcomes, ONE, entry, Limits())[0].settings.label
        for name, entry in PROFILES.items()
        if entry.searches
    }

    assert best == {
        "production": "max-autotune fp32",
        "accuracy": "default fp32",
        "throughput": "default bf16",
    }


def test_research_runs_the_reference_alone() -> None:
    threads = EAGER.replace(num_threads=2)
    outcomes = {TUNED: measured(timing(1.0)), EAGER: measured(timing(100.0)), threads: measured(timing(90.0))}
    ranked = rank(outcomes, ONE, PROFILES["research"], Limits(), reference=EAGER)

    assert [(r.settings, r.judged.feasible) for r in ranked if r.judged.feasible] == [(EAGER, True)]
    assert ranked[0].settings == EAGER
    assert "runs the reference alone" in ranked[1].judged.reasons[0]
    unnamed = rank(outcomes, ONE, PROFILES["research"], Limits())
    assert {r.settings for r in unnamed if r.judged.feasible} == {EAGER, threads}


def test_the_profile_for_unpaired_tables_widens_the_budget_and_leaves_the_rest() -> None:
    widened = seed_profile(PROFILES["accuracy"])

    assert widened == Profile(
        name="accuracy", sigma_weight=0.75, drift_budget=0.05, quantile_limit=math.inf, drift_term=False
    )
    assert not broken(measured(drift=0.05, quantile_shift=9.0), ONE, widened, Limits())


def test_a_start_is_paid_back_after_the_calls_that_save_as_much() -> None:
    outcome = dataclasses.replace(
        measured(),
        timings=(ShapeTiming(p50_ms=2.0, p95_ms=2.0, sigma_ms=0.0, calls=4),),
        reference_timings=(ShapeTiming(p50_ms=4.0, p95_ms=4.0, sigma_ms=0.0, calls=4),),
        cold_start_ms=40_100.0,
        warm_start_ms=10_100.0,
        reference_cold_start_ms=100.0,
    )
    assert break_even_calls(outcome, Workload(), PROFILES["production"]) == pytest.approx(5_000.0)
    slower = dataclasses.replace(outcome, reference_timings=outcome.timings)
    assert break_even_calls(slower, Workload(), PROFILES["production"]) is None


@pytest.mark.parametrize(("calls", "best"), [(1_000, "eager"), (100_000, "default")])
def test_a_process_that_makes_few_calls_is_right_to_stay_eager(calls: int, best: str) -> None:
    slow = ShapeTiming(p50_ms=4.0, p95_ms=4.0, sigma_ms=0.0, calls=4)
    eager = dataclasses.replace(
        measured(),
        timings=(slow,),
        reference_timings=(slow,),
        cold_start_ms=100.0,
        warm_start_ms=None,
        reference_cold_start_ms=100.0,
    )
    compiled = dataclasses.replace(
        eager,
        timings=(dataclasses.replace(slow, p50_ms=2.0),),
        cold_start_ms=40_000.0,
        warm_start_ms=10_000.0,
    )
    outcomes = {RuntimeSettings(): eager, RuntimeSettings(compile_mode="default"): compiled}
    ranked = rank(outcomes, Workload(calls_per_process=calls), PROFILES["production"], Limits())
    assert ranked[0].settings.compile_mode == best
