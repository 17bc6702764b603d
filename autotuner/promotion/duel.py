"""The duel: fresh launches of challenger, champion and reference side by side, until the gain is settled."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from autotuner.figures import Figures, times
from autotuner.measurement.outcome import ArmLaunch, Block, Failed, Interval, Launch, effective_ms, together
from autotuner.measurement.runner import Runner
from autotuner.measurement.statistics import (
    ArmBlocks,
    EffectiveCost,
    launch_ratio,
    shape_timing,
)
from autotuner.promotion.duel_plan import DuelArm, DuelPlan, DuelResult
from autotuner.promotion.stage_one import STAGE1_SHARE, decided, simplest_of_equals, still_possible
from toto_core.settings import RuntimeSettings

ENOUGH_OF_LONGEST = 0.8
"""Share of the longest launch so far that must be left for another one."""
SPARE_LAUNCHES = 2
"""Launches that may be lost to a failing champion or reference before the duel gives up."""


def _quiet(_: str) -> None:
    pass


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
    on_progress: Callable[[str], None] = _quiet,
) -> DuelResult | None:
    """Fight the best of ``challengers`` against the champion, or against the reference when there is none.

    Stage 1 picks one challenger from launches of all of them; stage 2 launches it beside its opponent and the
    reference. A challenger that fails has lost; a launch in which another arm fails, or every arm, is
    dropped. Takes about ``seconds``; a failure is a verdict, never raised. None when no challenger differs
    from the opponent, so that there is nothing to fight.
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
                self.say(f"{name}: {failed_settings.label} failed: {_cause(arm)}")
        return launch

    def pick(self, contenders: list[DuelArm]) -> DuelArm:
        # Stage 1: launches of the challengers alone, until more of them would change nothing.
        left, scores = contenders, {arm.settings: list[float]() for arm in contenders}
        end, longest = self.clock() + STAGE1_SHARE * (self.end - self.clock()), 0.0
        for number in range(1, self.plan.stage1_launches + 1):
            begin = self.clock()
            if decided(left, scores) or end - begin < longest or end <= begin:
                break
            launch = self.launch("stage 1", left, blocks=self.plan.finalists_blocks, seconds=end - begin)
            longest = max(longest, self.clock() - begin)
            ran = [arm for arm in left if isinstance(launch.arm(arm.settings), ArmLaunch)]
            if not ran:  # it may be the machine's fault: stage 2 will tell
                break
            for arm in ran:
                scores[arm.settings].append(math.log(self.score(launch, arm)))
            left = still_possible(ran, scores)
            best = simplest_of_equals(left, scores).settings.label
            self.say(f"stage 1: {best} leads {len(left)} challengers after launch {number}")
        return simplest_of_equals(left, scores)

    def fight(self, challenger: DuelArm) -> Failed | None:
        # Stage 2: launches until a look settles it, the time is up, or the challenger fails.
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
            lost = _failed(launch, challenger)
            # A time-out of the challenger tells nothing when the launch itself had hardly enough time.
            if lost and not _all_failed(launch) and not (lost.kind == "timeout" and limit < 2 * longest):
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
        self.say(
            f"stage 2: after launch {launches} of {self.plan.stage2_launches}: {verdict}, gain {self.gain}"
        )
        if launches >= self.plan.stage2_launches:
            return True
        return launches in self.plan.looks_at and verdict in self.plan.early

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
            verdict, reason = "worse", f"failed in the duel: {_cause(lost)}"
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
            figures=self.figures((challenger, self.opponent, self.reference)) if launches >= 2 else {},
            reason=reason,
            detail=tuple(self.detail),
        )

    def figures(self, arms: Sequence[DuelArm]) -> dict[RuntimeSettings, Figures]:
        return {
            arm.settings: launch_figures(
                self.counted, arm.settings, reference=self.reference.settings, cost=self.cost, rng=self.rng
            )
            for arm in _distinct(arms)
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
    if settings == reference:
        ratio = Interval(estimate=1.0, low=1.0, high=1.0)
    else:
        theirs = [_blocks(launch, reference) for launch in launches]
        ratio = launch_ratio(theirs, [arm.blocks for arm in ran], cost=cost.time_alone, rng=rng)
    warm_ms = [arm.start_ms for arm in ran if arm.was_warm]
    by_shape = zip(*(arm.blocks for arm in ran), strict=True)
    timings = [shape_timing([block for blocks in shape for block in blocks]) for shape in by_shape]
    return replace(
        times(timings, cost.weights),
        stage="duel",
        launches=len(ran),
        ratio=ratio,
        warm_start_ms=statistics.median(warm_ms) if warm_ms else None,
        peak_bytes=max(arm.peak_bytes for arm in ran),
        compile_report=ran[-1].report,
        conditions=together([launch.conditions for launch in launches]),
    )


def _distinct(arms: Iterable[DuelArm]) -> list[DuelArm]:
    first: dict[RuntimeSettings, DuelArm] = {}
    for arm in arms:
        first.setdefault(arm.settings, arm)
    return list(first.values())


def _checked(arm: ArmLaunch | Failed, shapes: int) -> ArmLaunch | Failed:
    if isinstance(arm, Failed):
        return arm
    timed = [blocks for blocks in arm.blocks if blocks and all(map(_sound, blocks))]
    if len(arm.blocks) == len(timed) == shapes:
        return arm
    return Failed(kind="timeout", detail=f"{len(timed)} of {shapes} request shapes were timed")


def _sound(block: Block) -> bool:
    return bool(block) and all(0 < ms < math.inf for ms in block)


def _failed(launch: Launch, arm: DuelArm) -> Failed | None:
    found = launch.arm(arm.settings)
    return found if isinstance(found, Failed) else None


def _all_failed(launch: Launch) -> bool:
    return all(isinstance(arm, Failed) for arm in launch.arms)


def _cause(failed: Failed) -> str:
    return f"{failed.kind}: {failed.detail}" if failed.detail else failed.kind


def _blocks(launch: Launch, settings: RuntimeSettings) -> ArmBlocks:
    found = launch.arm(settings)
    return found.blocks if isinstance(found, ArmLaunch) else ()
