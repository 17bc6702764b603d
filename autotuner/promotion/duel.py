"""Fights a duel: fresh launches of challenger, champion and reference side by side, until the gain is clear."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from autotuner.figures import Figures, times
from autotuner.measurement.outcome import (
    ArmBlocks,
    ArmLaunch,
    Failed,
    Interval,
    Launch,
    effective_ms,
    together,
)
from autotuner.measurement.runner import Runner
from autotuner.measurement.statistics import EffectiveCost, each_launch, launch_ratio, shape_timing
from autotuner.promotion.duel_plan import DuelArm, DuelLook, DuelPlan, DuelResult
from autotuner.promotion.stage_one import STAGE1_SHARE, decided, simplest_of_equals, still_possible
from toto_core.settings import RuntimeSettings

ENOUGH_OF_LONGEST = 0.8
"""Share of the longest launch so far that must be left for another one."""
SPARE_LAUNCHES = 2
"""Launches that may be lost to a failing champion or reference before the duel gives up."""


def run_duel(
    runner: Runner,
    *,
    challengers: Sequence[DuelArm],
    champion: DuelArm | None,
    reference: DuelArm,
    cost: EffectiveCost,
    seconds: float,
    plan: DuelPlan,
    rng: np.random.Generator,
    clock: Callable[[], float] = time.monotonic,
    on_progress: Callable[[str], None] = lambda _: None,
    on_look: Callable[[DuelLook], None] = lambda _: None,
) -> DuelResult | None:
    """Fight the best of ``challengers`` against the champion, or against the reference when there is none.

    Stage 1 picks one challenger from launches of all of them; stage 2 launches it beside its opponent and the
    reference. A challenger that fails has lost; a launch in which another arm fails, or every arm, is
    dropped. Takes about ``seconds``; a failure is a verdict, never raised. None when no challenger differs
    from the opponent.
    """
    opponent = champion or reference
    contenders = [arm for arm in _distinct(challengers) if arm.settings != opponent.settings]
    if not contenders:
        return None
    duel = _Duel(
        runner=runner,
        opponent=opponent,
        reference=reference,
        cost=cost,
        plan=plan,
        rng=rng,
        clock=clock,
        end=clock() + seconds,
        on_progress=on_progress,
        on_look=on_look,
    )
    challenger = duel.pick(contenders)
    return duel.result(challenger, duel.fight(challenger))


@dataclass(kw_only=True)
class _Duel:
    runner: Runner
    opponent: DuelArm
    reference: DuelArm
    cost: EffectiveCost
    plan: DuelPlan
    rng: np.random.Generator
    clock: Callable[[], float]
    end: float
    on_progress: Callable[[str], None]
    on_look: Callable[[DuelLook], None]
    detail: list[str] = field(default_factory=list)
    counted: list[Launch] = field(default_factory=list)
    gain: Interval | None = None

    def say(self, line: str) -> None:
        self.detail.append(line)
        self.on_progress(line)

    def launch(self, name: str, arms: Iterable[DuelArm], *, blocks: int, seconds: float) -> Launch:
        settings = [arm.settings for arm in _distinct(arms)]
        launch = self.runner.launch(settings, blocks=blocks, seconds=seconds)
        launch = replace(launch, arms=tuple(_checked(arm, len(self.cost.weights)) for arm in launch.arms))
        for failed_settings, arm in zip(launch.settings, launch.arms, strict=True):
            if isinstance(arm, Failed):
                self.say(f"{name}: {failed_settings.label} failed: {arm}")
        return launch

    def pick(self, contenders: list[DuelArm]) -> DuelArm:
        # Stage 1: launches of the challengers alone, until more of them would change nothing.
        left, scores = contenders, {arm.settings: list[float]() for arm in contenders}
        end, longest = self.clock() + STAGE1_SHARE * (self.end - self.clock()), 0.0
        launches, standing = 0, ""
        while launches < self.plan.stage1_launches and not decided(left, scores):
            begin = self.clock()
            if end - begin < longest or end <= begin:
                break
            ran = self.compare(left, scores, end - begin)
            longest = max(longest, self.clock() - begin)
            if not ran:  # it may be the machine's fault: stage 2 will tell
                break
            launches += 1
            left = still_possible(ran, scores)
            before, standing = standing, simplest_of_equals(left, scores).settings.label
            standing += f" leads {len(left)} challengers" if len(left) > 1 else " is the only challenger left"
            if standing != before:
                self.say(f"stage 1: {standing} after launch {launches}")
        challenger = simplest_of_equals(left, scores)
        if launches:
            self.say(f"stage 1: {challenger.settings.label} goes on to stage 2, launches taken: {launches}")
        return challenger

    def compare(
        self, left: list[DuelArm], scores: dict[RuntimeSettings, list[float]], seconds: float
    ) -> list[DuelArm]:
        # One launch of stage 1: adds its log scores and returns the arms that ran.
        launch = self.launch("stage 1", left, blocks=self.plan.finalists_blocks, seconds=seconds)
        ran = [arm for arm in left if isinstance(launch.arm(arm.settings), ArmLaunch)]
        for arm in ran:
            scores[arm.settings].append(math.log(self.score(launch, arm)))
        return ran

    def fight(self, challenger: DuelArm) -> Failed | None:
        # Stage 2: launches until a check settles it, the time is up, or the challenger fails.
        arms = (challenger, self.opponent, self.reference)
        longest, dropped = 0.0, 0
        while dropped <= SPARE_LAUNCHES:
            begin = self.clock()
            # Until there are enough launches, one that hangs must leave time for the others.
            limit = (self.end - begin) / max(1, self.plan.minimum_launches - len(self.counted))
            # A launch takes what time it has for timing, so a little less than the longest one took is enough.
            if limit <= 0 or self.end - begin < ENOUGH_OF_LONGEST * longest:
                self.say(f"stage 2: the time was up after {len(self.counted)} launches")
                return None
            launch = self.launch("stage 2", arms, blocks=self.plan.blocks, seconds=limit)
            lost = launch.arm(challenger.settings)
            if isinstance(lost, Failed) and _counts(lost, launch, had_time=limit >= 2 * longest):
                return lost
            longest = max(longest, self.clock() - begin)
            if any(isinstance(arm, Failed) for arm in launch.arms):
                dropped += 1
                continue
            self.counted.append(launch)
            if self.settled(challenger):
                return None
        return None

    def settled(self, challenger: DuelArm) -> bool:
        launches = len(self.counted)
        if launches < 2:
            return False
        self.gain = self.gained(challenger)
        verdict = self.plan.verdict(self.gain, launches)
        planned = self.plan.stage2_launches
        look = DuelLook(launch=launches, launches=planned, verdict=verdict, gain=self.gain)
        self.say(str(look))
        self.on_look(look)
        if launches >= self.plan.stage2_launches:
            return True
        return launches in self.plan.checked_after and verdict in self.plan.early

    def gained(self, challenger: DuelArm) -> Interval:
        ratio = launch_ratio(
            [_blocks(launch, self.opponent.settings) for launch in self.counted],
            [_blocks(launch, challenger.settings) for launch in self.counted],
            cost=self.cost,
            rng=self.rng,
            confidence=self.plan.confidence(len(self.counted)),
            start_ms=(self.opponent.start_ms, challenger.start_ms),
        )
        factor = challenger.drift_factor / self.opponent.drift_factor
        return Interval(
            estimate=1 - factor / ratio.estimate, low=1 - factor / ratio.low, high=1 - factor / ratio.high
        )

    def score(self, launch: Launch, arm: DuelArm) -> float:
        cost, timings = self.cost, [shape_timing(blocks) for blocks in _blocks(launch, arm.settings)]
        own = effective_ms(timings, cost.weights, cost.sigma_weight, arm.start_ms, cost.calls_per_process)
        return own * arm.drift_factor

    def result(self, challenger: DuelArm, lost: Failed | None) -> DuelResult:
        launches = len(self.counted)
        gain, wanted = self.gain, self.plan.minimum_launches
        verdict, reason = "ambiguous", ""
        if lost is not None:
            verdict, reason = "worse", f"failed in the duel: {lost}"
        elif gain is None or launches < wanted:
            reason = f"{launches} of at least {wanted} launches came of the duel; {self.detail[-1]}"
        else:
            verdict = self.plan.verdict(gain, launches)
        return DuelResult(
            challenger=challenger.settings,
            opponent=self.opponent.settings,
            verdict=verdict,
            gain=gain,
            launches=launches,
            short_of_launches=launches < self.plan.stage2_launches,
            figures=self.figures(challenger) if launches >= 2 else {},
            reason=reason,
            detail=tuple(self.detail),
        )

    def figures(self, challenger: DuelArm) -> dict[RuntimeSettings, Figures]:
        reference, arms = self.reference.settings, (challenger, self.opponent, self.reference)
        return {
            arm: launch_figures(self.counted, arm, reference=reference, cost=self.cost, rng=self.rng)
            for arm in dict.fromkeys(arm.settings for arm in arms)
        }


def launch_figures(
    launches: Sequence[Launch],
    settings: RuntimeSettings,
    *,
    reference: RuntimeSettings,
    cost: EffectiveCost,
    rng: np.random.Generator,
) -> Figures:
    """What two launches or more measured of ``settings``, which ran beside ``reference`` in all of them.

    The ratio is of time alone: sigma and start are left out. Accuracy is left to the search's trial, because
    more launches do not change a forecast.
    """
    ran = [arm for launch in launches if isinstance(arm := launch.arm(settings), ArmLaunch)]
    warm_ms = [arm.start_ms for arm in ran if arm.was_warm]
    by_shape = zip(*(arm.blocks for arm in ran), strict=True)
    timings = [shape_timing([*itertools.chain.from_iterable(shape)]) for shape in by_shape]
    return replace(
        times(timings, cost.weights),
        stage="duel",
        launches=len(ran),
        ratio=_ratio(launches, settings, reference, cost, rng),
        launch_ratios=each_launch(*_beside(launches, reference, settings), cost=cost.time_alone),
        reproduced=sum(arm.reproduced for arm in ran) or None,
        warm_start_ms=statistics.median(warm_ms) if warm_ms else None,
        peak_bytes=max(arm.peak_bytes for arm in ran),
        compile_report=ran[-1].report,
        conditions=together([launch.conditions for launch in launches]),
    )


def _ratio(
    launches: Sequence[Launch],
    settings: RuntimeSettings,
    reference: RuntimeSettings,
    cost: EffectiveCost,
    rng: np.random.Generator,
) -> Interval:
    if settings == reference:
        return Interval(estimate=1.0, low=1.0, high=1.0)
    return launch_ratio(*_beside(launches, reference, settings), cost=cost.time_alone, rng=rng)


def _beside(
    launches: Sequence[Launch], reference: RuntimeSettings, settings: RuntimeSettings
) -> tuple[list[ArmBlocks], list[ArmBlocks]]:
    theirs, ours = ([_blocks(launch, arm) for launch in launches] for arm in (reference, settings))
    return theirs, ours


def _distinct(arms: Iterable[DuelArm]) -> list[DuelArm]:
    first: dict[RuntimeSettings, DuelArm] = {}
    for arm in arms:
        first.setdefault(arm.settings, arm)
    return list(first.values())


def _checked(arm: ArmLaunch | Failed, shapes: int) -> ArmLaunch | Failed:
    if isinstance(arm, Failed):
        return arm
    timed = [
        shape
        for shape in arm.blocks
        if shape and all(block and all(0 < ms < math.inf for ms in block) for block in shape)
    ]
    if len(arm.blocks) == len(timed) == shapes:
        return arm
    return Failed(kind="timeout", detail=f"{len(timed)} of {shapes} request shapes were timed")


def _counts(lost: Failed, launch: Launch, *, had_time: bool) -> bool:
    # A time-out tells nothing when the launch itself had hardly enough time; nor does a failure of every arm.
    return (had_time or lost.kind != "timeout") and any(isinstance(arm, ArmLaunch) for arm in launch.arms)


def _blocks(launch: Launch, settings: RuntimeSettings) -> ArmBlocks:
    found = launch.arm(settings)
    return found.blocks if isinstance(found, ArmLaunch) else ()
