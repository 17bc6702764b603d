from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import scipy.optimize  # noqa: F401 - so that no property's deadline is spent on importing it
from hypothesis import given
from hypothesis import strategies as st

from autotuner.measurement.outcome import (
    ArmLaunch,
    Block,
    ColdStart,
    Conditions,
    Failed,
    Interval,
    Launch,
    Outcome,
)
from autotuner.measurement.statistics import EffectiveCost
from autotuner.promotion.decision import decide
from autotuner.promotion.duel import launch_figures, run_duel
from autotuner.promotion.duel_plan import DuelArm, DuelPlan, DuelResult, decide_gain
from tests.support.simulated_noise import Noise
from toto_core.settings import RuntimeSettings

REFERENCE = RuntimeSettings()
CHAMPION = RuntimeSettings(compile_mode="default")
CHALLENGER = RuntimeSettings(compile_mode="default", precision="bf16", freezing=True)
RUNNER_UP = RuntimeSettings(compile_mode="default", precision="bf16")
THIRD = RuntimeSettings(precision="bf16")

COST = EffectiveCost(weights=(1.0,), sigma_weight=0.05)
PLAN = DuelPlan()
DUELS = 200
REALISTIC = Noise(call_sd=0.10, block_sd=0.02, disturbed=0.02, launch_sd=0.015)
"""14 % per pair of calls, launches of one setting a percent or two apart."""
QUIET = Noise(call_sd=0.003, block_sd=0.0, disturbed=0.0, launch_sd=0.0003)
CRASH = Failed(kind="crashed", detail="signal 11")


@dataclass(kw_only=True)
class SimulatedMachine:
    """A runner whose arms have known latencies; it is also the clock, at ten seconds a launch."""

    true_ms: dict[RuntimeSettings, float]
    noise: Noise = QUIET
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    failures: dict[tuple[int, RuntimeSettings], Failed] = field(default_factory=dict)
    seconds_per_launch: float = 10.0
    now: float = 100.0
    asked: list[tuple[tuple[RuntimeSettings, ...], int, float]] = field(default_factory=list)

    slots = 1

    def build(
        self, wanted: Sequence[RuntimeSettings], *, seconds: float, apart: bool = False
    ) -> Mapping[RuntimeSettings, ColdStart | Failed]:
        raise NotImplementedError

    def launch(self, arms: Sequence[RuntimeSettings], *, blocks: int, seconds: float) -> Launch:
        number = len(self.asked)
        self.asked.append((tuple(arms), blocks, seconds))
        self.now += self.seconds_per_launch
        timed = self.noise.launch(self.rng, tuple(self.true_ms[arm] for arm in arms), blocks=blocks)
        return Launch(
            settings=tuple(arms),
            arms=tuple(
                self.failures.get((number, settings))
                or ArmLaunch(start_ms=1000.0 + number, was_warm=True, blocks=(arm,), peak_bytes=number)
                for settings, arm in zip(arms, timed, strict=True)
            ),
        )

    def measure(
        self, settings: RuntimeSettings, *, seconds: float, beat: float | None = None, again: bool = False
    ) -> Outcome:
        raise AssertionError(f"a duel launches, it does not measure {settings.label} for {seconds} s")

    def close(self) -> None:
        return None

    def clock(self) -> float:
        return self.now


def machine(challenger_ms: float = 20.0, *, noise: Noise = QUIET, seed: int = 0) -> SimulatedMachine:
    return SimulatedMachine(
        true_ms={CHALLENGER: challenger_ms, CHAMPION: 20.0, REFERENCE: 50.0, RUNNER_UP: 19.0, THIRD: 40.0},
        noise=noise,
        rng=np.random.default_rng(seed),
    )


def fight_if_any(
    arena: SimulatedMachine,
    *,
    challengers: Sequence[RuntimeSettings | DuelArm] = (CHALLENGER,),
    champion: RuntimeSettings | None = CHAMPION,
    seconds: float = 1000.0,
    plan: DuelPlan = PLAN,
) -> DuelResult | None:
    return run_duel(
        arena,
        challengers=[c if isinstance(c, DuelArm) else DuelArm(settings=c) for c in challengers],
        champion=None if champion is None else DuelArm(settings=champion),
        reference=DuelArm(settings=REFERENCE),
        cost=COST,
        seconds=seconds,
        plan=plan,
        rng=arena.rng,
        clock=arena.clock,
    )


def fight(
    arena: SimulatedMachine,
    *,
    challengers: Sequence[RuntimeSettings | DuelArm] = (CHALLENGER,),
    champion: RuntimeSettings | None = CHAMPION,
    seconds: float = 1000.0,
    plan: DuelPlan = PLAN,
) -> DuelResult:
    result = fight_if_any(arena, challengers=challengers, champion=champion, seconds=seconds, plan=plan)
    assert result is not None
    return result


def times_promoted(
    true_ms: dict[RuntimeSettings, float],
    *,
    challengers: Sequence[RuntimeSettings] = (CHALLENGER,),
    champion: RuntimeSettings | None = CHAMPION,
    plan: DuelPlan = PLAN,
    duels: int = DUELS,
) -> int:
    promoted = 0
    for seed in range(duels):
        arena = machine(noise=REALISTIC, seed=seed)
        arena.true_ms |= true_ms
        result = fight(arena, champion=champion, challengers=challengers, plan=plan)
        decision = decide(result, champion=champion, reference=REFERENCE)
        promoted += decision.promoted and decision.settings in challengers
    return promoted


def ratio_of(result: DuelResult) -> Interval:
    """Reference time over the challenger's."""
    found = result.figures[result.challenger].ratio
    assert found is not None
    return found


def test_an_equal_challenger_is_hardly_ever_promoted() -> None:
    assert times_promoted({CHALLENGER: 20.0}) <= 3


def test_the_luckiest_of_three_equals_is_hardly_ever_promoted() -> None:
    equals = (CHALLENGER, RUNNER_UP, THIRD)

    assert times_promoted(dict.fromkeys(equals, 20.0), challengers=equals) <= 3


def test_an_equal_of_the_reference_is_hardly_ever_the_first_promoted() -> None:
    assert times_promoted({CHALLENGER: 50.0}, champion=None, duels=100) <= 1


def test_an_equal_challenger_is_hardly_ever_promoted_even_if_early_checks_may_promote() -> None:
    plan = replace(PLAN, early=("better", "same", "worse"))

    assert times_promoted({CHALLENGER: 20.0}, plan=plan, duels=100) <= 1


def test_a_challenger_ten_percent_faster_is_promoted() -> None:
    assert times_promoted({CHALLENGER: 18.0}) >= 0.9 * DUELS


def test_a_slower_challenger_is_never_promoted() -> None:
    assert times_promoted({CHALLENGER: 22.0}, duels=100) == 0


def test_the_gain_of_a_duel_that_may_end_early_covers_the_truth() -> None:
    covered = 0
    for seed in range(100):
        gain = fight(machine(19.0, noise=REALISTIC, seed=seed)).gain
        assert gain is not None
        covered += gain.low <= 0.05 <= gain.high

    assert covered >= 93


def test_finalists_fight_the_best_of_them_goes_on_and_who_is_far_behind_is_left_out() -> None:
    arena = machine(15.0)

    result = fight(arena, challengers=(RUNNER_UP, CHALLENGER, THIRD))

    stage1, stage2 = arena.asked[:3], arena.asked[3:]
    assert [launch[:2] for launch in stage1] == [((RUNNER_UP, CHALLENGER, THIRD), PLAN.finalists_blocks)] * 3
    assert [launch[:2] for launch in stage2] == [((CHALLENGER, CHAMPION, REFERENCE), PLAN.blocks)] * 5
    assert (result.challenger, result.opponent, result.verdict) == (CHALLENGER, CHAMPION, "better")


def test_finalists_that_are_close_get_every_launch_of_stage_one() -> None:
    arena = machine(19.3, noise=REALISTIC)

    fight(arena, challengers=(RUNNER_UP, CHALLENGER))

    stage1 = [launch for launch in arena.asked if launch[1] == PLAN.finalists_blocks]
    assert len(stage1) == PLAN.stage1_launches


def test_of_equals_in_stage_one_the_simplest_goes_on() -> None:
    arena = machine(18.9)

    result = fight(arena, challengers=(CHALLENGER, RUNNER_UP))

    assert RUNNER_UP.complexity < CHALLENGER.complexity
    assert result.challenger == RUNNER_UP


def test_stage_one_says_who_leads_when_that_changes_and_how_many_launches_it_took() -> None:
    name = CHALLENGER.label

    result = fight(machine(15.0), challengers=(RUNNER_UP, CHALLENGER, THIRD))

    assert [line for line in result.detail if line.startswith("stage 1")] == [
        f"stage 1: {name} leads 3 challengers after launch 1",
        f"stage 1: {name} is the only challenger left after launch 3",
        f"stage 1: {name} goes on to stage 2, launches taken: 3",
    ]


def test_stage_one_ends_in_time_for_stage_two() -> None:
    arena = machine(19.0, noise=REALISTIC)

    result = fight(arena, challengers=(RUNNER_UP, CHALLENGER), seconds=90.0)

    assert sum(launch[1] == PLAN.finalists_blocks for launch in arena.asked) == 4
    assert result.launches == 5


def test_a_single_challenger_goes_straight_to_stage_two() -> None:
    arena = machine(15.0)

    fight(arena, challengers=(CHALLENGER, CHAMPION, CHALLENGER))

    assert [launch[0] for launch in arena.asked] == [(CHALLENGER, CHAMPION, REFERENCE)] * 5


@pytest.mark.parametrize(("champion", "same"), [(CHAMPION, CHAMPION), (None, REFERENCE)])
def test_without_a_challenger_that_differs_there_is_no_duel(
    champion: RuntimeSettings | None, same: RuntimeSettings
) -> None:
    arena = machine()

    assert fight_if_any(arena, challengers=(same,), champion=champion) is None
    assert arena.asked == []


def test_the_reference_may_challenge_a_champion() -> None:
    arena = machine()
    arena.true_ms[REFERENCE] = 10.0

    result = fight(arena, challengers=(REFERENCE,))

    assert [launch[0] for launch in arena.asked] == [(REFERENCE, CHAMPION)] * 5
    assert result.verdict == "better"
    assert result.figures[REFERENCE].ratio == Interval(estimate=1.0, low=1.0, high=1.0)


def test_without_a_champion_the_opponent_is_the_reference() -> None:
    result = fight(machine(20.0), champion=None)

    assert (result.opponent, result.verdict) == (REFERENCE, "better")
    assert result.gain is not None
    assert result.gain.estimate == pytest.approx(0.6, abs=0.01)
    ratio = ratio_of(result)
    assert ratio.estimate == pytest.approx(2.5, rel=0.01)
    assert ratio.low < ratio.estimate < ratio.high


@pytest.mark.parametrize(
    ("challenger_ms", "verdict", "launches"), [(20.0, "same", 3), (30.0, "worse", 3), (15.0, "better", 5)]
)
def test_what_cannot_be_promoted_ends_early_and_what_can_takes_every_launch(
    challenger_ms: float, verdict: str, launches: int
) -> None:
    result = fight(machine(challenger_ms))

    assert (result.verdict, result.launches) == (verdict, launches)
    assert result.short_of_launches == (launches < 5)


def test_a_plan_may_let_an_early_check_promote() -> None:
    result = fight(machine(10.0), plan=DuelPlan(early=("better", "same", "worse")))

    assert (result.verdict, result.launches) == ("better", 3)


def test_figures_are_of_stage_two_alone() -> None:
    result = fight(machine(15.0), challengers=(CHALLENGER, THIRD))

    assert list(result.figures) == [CHALLENGER, CHAMPION, REFERENCE]
    ours = result.figures[CHALLENGER]
    assert (ours.stage, ours.launches, ours.warm_start_ms, ours.peak_bytes) == ("duel", 5, 1005.0, 7)
    assert ours.shapes[0].calls == 5 * PLAN.blocks * 4
    assert ours.shapes[0].p50_ms == ours.p50_ms == pytest.approx(15.0, rel=0.01)
    assert ours.drift is None


def test_the_ratio_is_the_geometric_mean_of_the_launches_that_are_kept() -> None:
    figures = fight(machine(15.0), challengers=(CHALLENGER,)).figures[CHALLENGER]

    assert figures.ratio is not None
    assert len(figures.launch_ratios) == figures.launches
    assert np.exp(np.mean(np.log(figures.launch_ratios))) == pytest.approx(figures.ratio.estimate)


def test_figures_weigh_request_shapes_and_add_up_what_disturbed_the_launches() -> None:
    launches = [
        Launch(
            settings=(REFERENCE, CHALLENGER),
            arms=(
                ArmLaunch(start_ms=10.0, blocks=(((4.0, 4.0),) * 4, ((8.0, 8.0),) * 4)),
                ArmLaunch(
                    start_ms=start_ms,
                    was_warm=True,
                    reproduced=True,
                    blocks=(((1.0, 3.0),) * 4, ((4.0, 4.0),) * 4),
                    peak_bytes=peak,
                ),
            ),
            conditions=Conditions(load_average=load, disturbed_blocks=1, blocks=8),
        )
        for start_ms, peak, load in ((100.0, 5, 0.5), (300.0, 9, 2.0))
    ]

    found = launch_figures(
        launches,
        CHALLENGER,
        reference=REFERENCE,
        cost=EffectiveCost(weights=(0.75, 0.25)),
        rng=np.random.default_rng(0),
    )

    assert [shape.p50_ms for shape in found.shapes] == [2.0, 4.0]
    assert found.p50_ms == 0.75 * 2.0 + 0.25 * 4.0
    assert found.ratio is not None
    assert found.ratio.estimate == pytest.approx((0.75 * 4 + 0.25 * 8) / 2.5)
    assert (found.launches, found.reproduced) == (2, 2)
    assert (found.warm_start_ms, found.peak_bytes) == (200.0, 9)
    assert found.conditions == Conditions(load_average=2.0, disturbed_blocks=2, blocks=16)


def test_the_score_counts_start_and_drift() -> None:
    slow_to_start = DuelArm(settings=CHALLENGER, start_ms=100_000.0)
    drifting = DuelArm(settings=CHALLENGER, drift_factor=1.05)

    starting, drifted = (fight(machine(10.0), challengers=(arm,)) for arm in (slow_to_start, drifting))

    assert starting.gain is not None
    assert starting.gain.estimate == pytest.approx(0.0, abs=0.01)
    assert drifted.gain is not None
    assert drifted.gain.estimate == pytest.approx(1 - 0.5 * 1.05, abs=0.01)
    assert ratio_of(starting).estimate == pytest.approx(5.0, rel=0.01)


def test_the_ratio_is_of_time_alone_whatever_jitter_weighs() -> None:
    jittery = ArmLaunch(start_ms=1.0, blocks=(((10.0, 10.0, 10.0, 30.0),) * 24,))

    class Jittery(SimulatedMachine):
        def launch(self, arms: Sequence[RuntimeSettings], *, blocks: int, seconds: float) -> Launch:
            launch = super().launch(arms, blocks=blocks, seconds=seconds)
            return replace(launch, arms=(jittery, *launch.arms[1:]))

    result = fight(Jittery(true_ms=machine().true_ms))

    assert result.gain is not None
    assert result.gain.estimate < 0.49
    assert ratio_of(result).estimate == pytest.approx(5.0, rel=0.01)


def test_when_the_time_holds_three_launches_the_verdict_stands_on_three() -> None:
    result = fight(machine(10.0), seconds=35.0)

    assert (result.verdict, result.launches, result.short_of_launches) == ("better", 3, True)
    assert result.detail[-1] == "stage 2: the time was up after 3 launches"


@pytest.mark.parametrize(("seconds", "launches"), [(0.0, 0), (12.0, 1), (22.0, 2)])
def test_fewer_launches_than_needed_settle_nothing(seconds: float, launches: int) -> None:
    arena = machine(10.0)
    arena.seconds_per_launch = 8.5

    result = fight(arena, seconds=seconds)

    assert (result.verdict, result.launches) == ("ambiguous", launches)
    assert result.reason.startswith(f"{launches} of at least 3 launches came of the duel; stage 2: the time")
    assert (result.gain is None) == (launches < 2)
    assert bool(result.figures) == (launches >= 2)


def test_a_launch_that_hangs_leaves_time_for_the_others() -> None:
    arena = machine(10.0)

    fight(arena, seconds=90.0)

    assert arena.asked[0][2] == pytest.approx(30.0)


def test_stage_one_takes_no_more_than_its_share_of_the_time() -> None:
    arena = machine(10.0)

    fight(arena, challengers=(CHALLENGER, RUNNER_UP), seconds=90.0)

    assert arena.asked[0][2] == pytest.approx(45.0)


@pytest.mark.parametrize("launch", [0, 1, 4])
def test_a_challenger_that_fails_has_lost(launch: int) -> None:
    arena = machine(10.0)
    arena.failures = {(launch, CHALLENGER): CRASH}

    result = fight(arena)

    assert (result.verdict, result.launches) == ("worse", launch)
    assert result.reason == "failed in the duel: crashed: signal 11"
    assert len(arena.asked) == launch + 1


def test_a_launch_in_which_every_arm_fails_is_nobodys_fault() -> None:
    arena = machine(10.0)
    arena.failures = {(1, arm): CRASH for arm in (CHALLENGER, CHAMPION, REFERENCE)}

    result = fight(arena)

    assert (result.verdict, result.launches, len(arena.asked)) == ("better", 5, 6)


@pytest.mark.parametrize("arm", [CHAMPION, REFERENCE])
def test_a_launch_in_which_another_arm_fails_is_dropped(arm: RuntimeSettings) -> None:
    arena = machine(10.0)
    arena.failures = {(1, arm): CRASH}

    result = fight(arena)

    assert (result.verdict, result.launches, len(arena.asked)) == ("better", 5, 6)


def test_an_opponent_that_always_fails_ends_the_duel_without_a_verdict() -> None:
    arena = machine(10.0)
    arena.failures = {(launch, CHAMPION): CRASH for launch in range(20)}

    result = fight(arena)

    assert (result.verdict, result.gain, len(arena.asked)) == ("ambiguous", None, 3)
    assert result.reason.endswith("stage 2: default fp32 failed: crashed: signal 11")


@pytest.mark.parametrize("blocks", [(), ((),), (((),),), (((1.0,),),) * 2, (((0.0,),),), (((math.nan,),),)])
def test_an_arm_that_timed_nothing_sound_has_failed(blocks: tuple[tuple[Block, ...], ...]) -> None:
    class Cut(SimulatedMachine):
        def launch(self, arms: Sequence[RuntimeSettings], *, blocks: int, seconds: float) -> Launch:
            launch = super().launch(arms, blocks=blocks, seconds=seconds)
            return replace(launch, arms=(cut, *launch.arms[1:]))

    cut = ArmLaunch(start_ms=1.0, blocks=blocks)
    result = fight(Cut(true_ms=machine().true_ms))

    assert result.verdict == "worse"
    assert "of 1 request shapes were timed" in result.reason


def test_a_time_out_counts_only_when_there_was_time() -> None:
    late = Failed(kind="timeout", detail="55 s")
    hanging, cut_short = machine(10.0), machine(10.0)
    for arena in (hanging, cut_short):
        arena.failures = {(4, CHALLENGER): late}

    assert fight(hanging, seconds=1000.0).verdict == "worse"
    result = fight(cut_short, seconds=55.0)
    assert (result.verdict, result.launches) == ("better", 4)


def test_a_finalist_that_fails_in_stage_one_is_out() -> None:
    arena = machine(10.0)
    arena.failures = {(0, CHALLENGER): CRASH}

    result = fight(arena, challengers=(CHALLENGER, RUNNER_UP))

    assert result.challenger == RUNNER_UP
    assert "stage 1: default bf16 freezing=True failed: crashed: signal 11" in result.detail


def test_when_every_finalist_fails_again_the_first_of_them_has_lost() -> None:
    arena = machine(10.0)
    arena.failures = {(launch, arm): CRASH for launch in (0, 1) for arm in (CHALLENGER, RUNNER_UP)}

    result = fight(arena, challengers=(CHALLENGER, RUNNER_UP))

    assert (result.challenger, result.verdict, len(arena.asked)) == (CHALLENGER, "worse", 2)
    assert not result.figures


def test_a_stage_one_in_which_nothing_ran_leaves_the_order_of_the_search() -> None:
    arena = machine(10.0)
    arena.failures = {(0, arm): CRASH for arm in (CHALLENGER, RUNNER_UP)}

    result = fight(arena, challengers=(RUNNER_UP, CHALLENGER))

    assert (result.challenger, result.launches) == (RUNNER_UP, 5)


def test_equal_seeds_give_equal_results() -> None:
    first, second = (fight(machine(15.0, noise=REALISTIC, seed=7)) for _ in range(2))

    assert first == second


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.03, 0.5, "better"),
        (0.029, 0.5, "ambiguous"),
        (-0.03, 0.03, "same"),
        (0.01, 0.02, "same"),
        (-0.02, -0.01, "same"),
        (-0.031, -0.001, "worse"),
        (-0.5, 0.0, "ambiguous"),
        (-0.031, 0.031, "ambiguous"),
    ],
)
def test_verdicts_at_their_borders(low: float, high: float, verdict: str) -> None:
    gain = Interval(estimate=(low + high) / 2, low=low, high=high)

    assert decide_gain(gain, gain_needed=0.03, equal=0.03) == verdict


@given(bounds=st.tuples(st.floats(-1, 1), st.floats(-1, 1)), shift=st.floats(0, 0.5))
def test_a_higher_gain_never_has_a_lower_verdict(bounds: tuple[float, float], shift: float) -> None:
    low, high = sorted(bounds)
    gain = Interval(estimate=low, low=low, high=high)
    higher = Interval(estimate=low + shift, low=low + shift, high=high + shift)
    before, after = (decide_gain(g, gain_needed=0.03, equal=0.03) for g in (gain, higher))

    assert not (before == "better" and after != "better")
    assert not (after == "worse" and before in {"better", "ambiguous"})


def test_checks_lie_between_the_fewest_and_the_most_launches() -> None:
    assert PLAN.checked_after == (3, 4, 5)
    assert DuelPlan(minimum_launches=3, stage2_launches=9).checked_after == (3, 6, 9)
    assert DuelPlan(checks=1).checked_after == (5,)
    assert DuelPlan(minimum_launches=5, stage2_launches=5).checked_after == (5,)


def test_early_checks_ask_for_more_confidence() -> None:
    levels = [PLAN.confidence(launches) for launches in (2, 3, 4, 5, 6)]

    assert levels == pytest.approx([0.9924, 0.9924, 0.9779, 0.9577, 0.9577], abs=1e-4)


@given(launches=st.integers(2, 12), most=st.integers(2, 9), checks=st.integers(1, 5))
def test_more_launches_never_ask_for_more_confidence(launches: int, most: int, checks: int) -> None:
    plan = DuelPlan(minimum_launches=2, stage2_launches=most, checks=checks)
    levels = [plan.confidence(count) for count in range(1, launches + 1)]

    assert all(late <= early for early, late in itertools.pairwise(levels))
    assert all(0.95 - 1e-9 <= level < 1 for level in levels)


@pytest.mark.parametrize(
    "fields",
    [
        {"blocks": 0},
        {"checks": 0},
        {"minimum_launches": 1},
        {"minimum_launches": 6},
        {"gain": 0.0},
        {"equal": 1.0},
        {"early": ("good",)},
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^duel: "):
        DuelPlan(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", [{"start_ms": -1.0}, {"drift_factor": 0.0}])
def test_an_arm_that_makes_no_sense_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^duel: eager fp32: "):
        DuelArm(settings=REFERENCE, **fields)
