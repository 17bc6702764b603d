"""``ProcessRunner``: outcomes from child processes, of which only one computes at any time."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autotuner.errors import AutotuneError
from autotuner.measurement.accuracy import ShapeForecasts, merge_accuracy, read_forecasts
from autotuner.measurement.builds import Built, build_slots
from autotuner.measurement.child.copies import Copies
from autotuner.measurement.child.handle import ChildError, not_compiled
from autotuner.measurement.outcome import ArmLaunch, Failed, Launch, Measured, Outcome
from autotuner.measurement.placement import LAUNCHING_CPUS
from autotuner.measurement.rounds import Rounds, TimedRounds
from autotuner.measurement.starter import Starter
from autotuner.measurement.statistics import EffectiveCost, paired_ratio, shape_timing
from autotuner.measurement.stopping import StopAfterStartingTime, StopWhenPrecise
from autotuner.workload import Workload
from toto_core.held_folders import HeldFolder
from toto_core.settings import RuntimeSettings

_FORECASTS_MAY_TAKE = 2.0
"""Times as long as the reference took for its forecasts: what is kept of a trial's time for its own."""
_STARTING_SECONDS = 4.0
"""What starting a process takes here without compiling: as long may quick calls of a trial be timed."""
_GRACE_SECONDS = 2.0
"""A launch that used its time up may still say what compiling did."""


@dataclass(frozen=True, kw_only=True)
class RunnerLimits:
    """What a trial may take: blocks of each arm, memory of a child, seconds to reach a steady state."""

    blocks: int = 24
    memory_bytes: int
    warm_up_seconds: float = 20.0
    enough_width: float = 0.04


class ProcessRunner:
    """Measures configurations of one symbol and workload on one device, each arm in a process of its own.

    ``close`` (price history) is float64 (time,). ``caches`` is a folder for compile caches, one for each
    configuration: a trial starts with an empty one, to measure the cold start; later launches find it filled.
    ``say`` hears what goes on, one line at a time. Raises ``AutotuneError`` when the reference itself cannot
    be measured.
    """

    def __init__(
        self,
        *,
        workload: Workload,
        close: npt.NDArray[np.float64],
        last_fifth_start: int,
        device: str,
        reference: RuntimeSettings,
        cost: EffectiveCost,
        limits: RunnerLimits,
        caches: Path,
        seed: int = 0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._workload = workload
        self._device = device
        self._reference_settings = reference
        self._cost = cost
        self._limits = limits
        self._order = random.Random(seed)  # noqa: S311 - the order of arms, not a secret
        self._rng = np.random.default_rng(seed)
        self._say = say
        self._folder = HeldFolder()
        self._starter = Starter(
            workload=workload,
            device=device,
            caches=caches,
            series_file=self._folder.path / "close.npy",
            last_fifth_start=last_fifth_start,
            memory_bytes=limits.memory_bytes,
            warm_up_seconds=limits.warm_up_seconds,
        )
        np.save(self._starter.series_file, close)
        self._reference: Copies | None = None
        self._theirs: Sequence[ShapeForecasts] = ()
        self._exact: Sequence[ShapeForecasts] = ()
        self._forecast_seconds = 0.0
        self._children = ExitStack()

    def measure(
        self, settings: RuntimeSettings, *, seconds: float, beat: float | None = None, again: bool = False
    ) -> Outcome:
        """One trial beside the reference; see ``Runner``."""
        deadline = time.monotonic() + seconds
        with ExitStack() as children:
            try:
                reference = self._ensure_reference(deadline)
                self._say(f"starting {settings.label}")
                arm = self._starter.start(settings, children, deadline, empty=not again)
                arm.wait_ready(deadline)
                failed = not_compiled(settings, arm.report, self._device)
                outcome = failed or self._measure_beside(reference, arm, deadline, beat)
                if isinstance(outcome, Failed) or outcome.was_warm or not settings.compiled:
                    return outcome
                if outcome.ratio.estimate < 1.0:  # it will not win, so nobody needs its warm start
                    return outcome
                arm.close()
                warm_ms = self._warm_start(settings, children, deadline)
                return dataclasses.replace(outcome, warm_start_ms=warm_ms)
            except ChildError as error:
                if error.failed.kind == "timeout":
                    return Failed(kind="timeout", detail=f"not done within {seconds:.0f} s")
                return error.failed

    @property
    def slots(self) -> int:
        """Builds that run at a time; see ``Runner``."""
        return build_slots(self._device)

    def build(
        self, wanted: Sequence[RuntimeSettings], *, seconds: float, apart: bool = False
    ) -> Mapping[RuntimeSettings, Built]:
        """Compile side by side; see ``Runner``. What an earlier run has built is found again."""
        return self._starter.build(wanted, slots=self.slots, seconds=seconds, apart=apart, say=self._say)

    def launch(self, arms: Sequence[RuntimeSettings], *, blocks: int, seconds: float) -> Launch:
        """Fresh processes of all arms, timed in rounds; see ``Runner``."""
        began = time.monotonic()
        deadline = began + seconds
        with ExitStack() as children:
            started = [self._start_or_fail(settings, children, deadline) for settings in arms]
            running = [arm for arm in started if isinstance(arm, Copies)]
            self._say(f"timing {len(running)} configurations side by side")
            longer = StopAfterStartingTime(blocks=blocks, began=began)
            taken = self._rounds(running, deadline).take(longer.most, longer, least=blocks)
            ended = {
                id(arm): _launched(arm, self._device, index, taken, deadline)
                for index, arm in enumerate(running)
            }
            results = tuple(arm if isinstance(arm, Failed) else ended[id(arm)] for arm in started)
        return Launch(settings=tuple(arms), arms=results, conditions=taken.conditions)

    def close(self) -> None:
        """End every child process and remove temporary files."""
        self._children.close()
        self._reference = None
        self._folder.remove()

    def _measure_beside(self, reference: Copies, arm: Copies, deadline: float, beat: float | None) -> Outcome:
        self._say("timing it beside the reference")
        reserve = _FORECASTS_MAY_TAKE * self._forecast_seconds
        rounds = self._rounds((arm, reference), deadline - reserve)
        blocks, width, cost = self._limits.blocks, self._limits.enough_width, self._cost.time_alone
        enough = StopWhenPrecise(blocks=blocks, width=width, cost=cost, rng=self._rng, beat=beat)
        longer = StopAfterStartingTime(blocks=blocks, began=time.monotonic() - _STARTING_SECONDS)
        taken = rounds.take(longer.most, lambda *so_far: enough(*so_far) or longer(*so_far), least=blocks)
        if 0 in taken.failed:
            return taken.failed[0]
        if taken.failed:  # the next trial starts another reference
            return Failed(kind="unstable", detail=f"the reference beside it failed: {taken.failed[1].kind}")
        own_blocks, reference_blocks = taken.blocks
        ours = read_forecasts(arm.forecasts(deadline))
        arm.refresh(deadline)
        if isinstance(ours, Failed):
            return ours
        return Measured(
            timings=tuple(shape_timing(shape) for shape in own_blocks),
            reference_timings=tuple(shape_timing(shape) for shape in reference_blocks),
            ratio=paired_ratio(reference_blocks, own_blocks, cost=cost, rng=self._rng),
            cold_start_ms=None if arm.was_warm else arm.start_ms,
            warm_start_ms=arm.start_ms if arm.was_warm else None,
            reference_cold_start_ms=reference.start_ms,
            peak_bytes=arm.peak_bytes,
            accuracy=merge_accuracy(
                ours, self._theirs, self._exact, weights=self._workload.weights, rng=self._rng
            ),
            report=arm.report,
            conditions=taken.conditions,
            blocks=own_blocks,
            reference_blocks=reference_blocks,
        )

    def _warm_start(self, settings: RuntimeSettings, children: ExitStack, deadline: float) -> float | None:
        """Start once more with the compile cache filled; None when time or the process fails it."""
        self._say("starting it again with its compile cache filled")
        try:
            arm = self._starter.start(settings, children, deadline, empty=False)
            return arm.start_ms if arm.was_warm else None
        except ChildError:
            return None

    def _rounds(self, arms: Sequence[Copies], deadline: float) -> Rounds:
        return Rounds(
            arms,
            shapes=len(self._workload.shapes),
            order=self._order,
            deadline=deadline,
            device=self._device,
            width=self._width(arms),
        )

    def _width(self, arms: Sequence[Copies]) -> int:
        """CPUs that a round is kept on, 0 for all."""
        if self._device != "cpu":
            return LAUNCHING_CPUS
        return self._workload.concurrency * max((arm.settings.num_threads or 0 for arm in arms), default=0)

    def _ensure_reference(self, deadline: float) -> Copies:
        if self._reference is not None and self._reference.alive:
            return self._reference
        self._say(f"starting the reference, {self._reference_settings.label}")
        try:
            arm = self._starter.start(self._reference_settings, self._children, deadline, empty=True)
            arm.wait_ready(deadline)
            asked = time.monotonic()
            self._theirs = _standard(arm.forecasts(deadline))
            self._forecast_seconds = time.monotonic() - asked
            self._exact = _standard(arm.forecasts(deadline, exact=True))
        except ChildError as error:
            if error.failed.kind == "timeout":
                raise  # too little time for a trial says nothing of the reference
            raise AutotuneError(f"the reference (eager fp32) cannot be measured: {error}") from None
        self._reference = arm
        return arm

    def _start_or_fail(
        self, settings: RuntimeSettings, children: ExitStack, deadline: float
    ) -> Copies | Failed:
        self._say(f"launching {settings.label}")
        try:
            arm = self._starter.start(settings, children, deadline, empty=False)
            arm.wait_ready(deadline)
        except ChildError as error:
            return error.failed
        failed = not_compiled(settings, arm.report, self._device)
        if failed is not None:
            arm.close()
        return failed or arm


def _standard(forecasts: list[dict[str, Any]]) -> Sequence[ShapeForecasts]:
    """Forecasts that every other is compared with."""
    found = read_forecasts(forecasts)
    if isinstance(found, Failed):
        raise AutotuneError(f"the reference's forecasts cannot be used: {found.detail}")
    return found


def _launched(
    arm: Copies, device: str, index: int, taken: TimedRounds, deadline: float
) -> ArmLaunch | Failed:
    if index in taken.failed:
        return taken.failed[index]
    try:
        arm.refresh(deadline + _GRACE_SECONDS)
    except ChildError as error:
        return error.failed
    return not_compiled(arm.settings, arm.report, device) or ArmLaunch(
        start_ms=arm.start_ms,
        was_warm=arm.was_warm,
        reproduced=arm.reproduced,
        blocks=taken.blocks[index],
        peak_bytes=arm.peak_bytes,
        report=arm.report,
    )
