"""``ReplayRunner``: answers from a table of recorded measurements, with or without noise, without any model."""

from __future__ import annotations

import heapq
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from autotuner.measurement.outcome import (
    Accuracy,
    ArmBlocks,
    ArmLaunch,
    ColdStart,
    Conditions,
    Failed,
    Interval,
    Launch,
    Measured,
    Outcome,
    ShapeTiming,
)
from autotuner.measurement.recorded import Recorded, ReplayTable
from autotuner.measurement.statistics import shape_timing
from toto_core.compile_report import CompileReport
from toto_core.settings import RuntimeSettings

CALLS = 4
"""Timed calls of a block: five, of which the first is discarded."""
BESIDE = 1.2
"""How much longer a build takes with others beside it, one on every CPU.

Of two on two CPUs 0.96 [0.90, 1.03] was measured (decision 27); of more nothing, so this is on the careful side.
"""
BLOCKS = 20
"""Blocks per arm of a trial."""
_ACCURACY = ("mae", "mae_reference", "sigma_mae", "drift", "quantile_shift")

Milliseconds = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TimingNoise:
    """How timings scatter around what is recorded; all shares of the latency.

    ``per_call`` is log-normal, added to the recorded sigma, and each call remembers ``autocorrelation`` of
    the one before; ``launch`` is drawn once per arm and launch; a ``disturbed`` share of blocks takes 1.5 to
    3 times as long. ``exact`` gives recorded numbers back as they are.
    """

    per_call: float = 0.10
    autocorrelation: float = 0.3
    launch: float = 0.02
    disturbed: float = 0.05
    seed: int = 0
    exact: bool = False

    def __post_init__(self) -> None:
        if not (self.per_call >= 0 and self.launch >= 0):
            raise ValueError("noise: per_call and launch must be 0 or more")
        if not (0 <= self.autocorrelation < 1 and 0 <= self.disturbed <= 1):
            raise ValueError("noise: autocorrelation must be 0 to below 1, disturbed 0 to 1")

    @classmethod
    def none(cls) -> TimingNoise:
        """Exactly what is recorded."""
        return cls(exact=True)


class ReplayRunner:
    """A ``Runner`` whose ``clock`` moves by the recorded cost of what it is asked.

    Answers depend on the noise's seed, the configuration, and how often it was asked for; not on what was asked of
    other configurations in between.
    """

    def __init__(self, table: ReplayTable, noise: TimingNoise | None = None, *, cpus: int = 1) -> None:
        self._table = table
        self.slots = cpus
        self._noise = noise or TimingNoise()
        self._asked: Counter[RuntimeSettings] = Counter()
        self.seconds_spent = 0.0

    def clock(self) -> float:
        """Simulated seconds since the start."""
        return self.seconds_spent

    def measure(
        self, settings: RuntimeSettings, *, seconds: float, beat: float | None = None, again: bool = False
    ) -> Outcome:
        """What is recorded of ``settings``; a timeout when that costs more than ``seconds``.

        A recorded trial was timed to its end, whatever there is to ``beat``.
        """
        entry = self._table.entries.get(settings)
        cost = 0.0 if entry is None else entry.launch_s if again else entry.cost_s
        found = self._within(seconds, cost) or self._table.find(settings)
        if isinstance(found, Failed):
            return found
        reference = self._table.entries[self._table.reference]
        warm = found.was_warm or (again and settings.compiled)
        rng = self._randomness(settings)
        own_blocks, disturbed = self._blocks(rng, found, BLOCKS)
        reference_blocks, also_disturbed = self._blocks(rng, reference, BLOCKS)
        return Measured(
            timings=self._timings(found, own_blocks),
            reference_timings=self._timings(reference, reference_blocks),
            ratio=_ratio(own_blocks, reference_blocks),
            cold_start_ms=None if warm else found.start_ms,
            warm_start_ms=found.start_ms if warm else None,
            reference_cold_start_ms=reference.start_ms,
            peak_bytes=found.peak_bytes,
            accuracy=Accuracy(windows=16, seeds=2, **{name: getattr(found, name) for name in _ACCURACY}),
            report=_report(settings),
            conditions=Conditions(disturbed_blocks=disturbed + also_disturbed, blocks=2 * BLOCKS),
            blocks=own_blocks,
            reference_blocks=reference_blocks,
        )

    def build(
        self, wanted: Sequence[RuntimeSettings], *, seconds: float, apart: bool = False
    ) -> Mapping[RuntimeSettings, ColdStart | Failed]:
        """What compiling is recorded to take, longer where builds run side by side."""
        beside = min(self.slots, len(wanted)) - 1
        slower = BESIDE if beside > 0 else 1.0
        free, built = [0.0] * self.slots, dict[RuntimeSettings, ColdStart | Failed]()
        for settings in wanted:
            begins = heapq.heappop(free)
            if begins >= seconds:
                break
            entry = self._table.entries.get(settings)
            takes = 0.0 if entry is None else slower * (entry.cost_s - entry.launch_s)
            heapq.heappush(free, min(seconds, begins + takes))
            found = self._table.find(settings)
            if begins + takes <= seconds:
                built[settings] = (
                    found if isinstance(found, Failed) else ColdStart(ms=1000.0 * takes, beside=beside)
                )
            elif settings == wanted[0]:
                built[settings] = Failed(kind="timeout", detail=f"not built within {seconds:.0f} s")
        self.seconds_spent += max(free)
        return built

    def launch(self, arms: Sequence[RuntimeSettings], *, blocks: int, seconds: float) -> Launch:
        """``blocks`` blocks of every arm; each launch draws its own effect for each arm."""
        cost = sum(entry.launch_s for arm in arms if (entry := self._table.entries.get(arm)))
        late = self._within(seconds, cost)
        launched: list[ArmLaunch | Failed] = []
        disturbed = 0
        for arm in arms:
            found = late or self._table.find(arm)
            if isinstance(found, Failed):
                launched.append(found)
                continue
            raw, marked = self._blocks(self._randomness(arm), found, blocks)
            disturbed += marked
            launched.append(
                ArmLaunch(
                    start_ms=found.start_ms,
                    was_warm=arm.compiled,
                    blocks=raw,
                    peak_bytes=found.peak_bytes,
                    report=_report(arm),
                )
            )
        timed = sum(isinstance(arm, ArmLaunch) for arm in launched)
        conditions = Conditions(disturbed_blocks=disturbed, blocks=blocks * timed)
        return Launch(settings=tuple(arms), arms=tuple(launched), conditions=conditions)

    def close(self) -> None:
        """Nothing to end."""

    def _within(self, seconds: float, cost_s: float) -> Failed | None:
        self.seconds_spent += min(seconds, cost_s)
        if cost_s <= seconds:
            return None
        return Failed(kind="timeout", detail=f"takes {cost_s:g} s, only {seconds:g} s were left")

    def _randomness(self, settings: RuntimeSettings) -> np.random.Generator:
        self._asked[settings] += 1
        return np.random.default_rng(
            (self._noise.seed, zlib.crc32(settings.key.encode()), self._asked[settings])
        )

    def _blocks(self, rng: np.random.Generator, entry: Recorded, blocks: int) -> tuple[ArmBlocks, int]:
        """Raw blocks of every shape, and how many of the blocks were disturbed."""
        recorded = tuple(zip(entry.latency_ms, entry.sigma_ms, strict=True))
        if self._noise.exact:
            return tuple(_as_tuples(_exact_blocks(*shape, blocks)) for shape in recorded), 0
        launch = np.exp(self._noise.launch * rng.standard_normal())
        disturbed = rng.random(blocks) < self._noise.disturbed
        slower = launch * np.where(disturbed, rng.uniform(1.5, 3.0, blocks), 1.0)
        calls = (self._calls(rng, *shape, blocks) for shape in recorded)
        return tuple(_as_tuples(slower[:, None] * times) for times in calls), int(disturbed.sum())

    def _calls(self, rng: np.random.Generator, latency: float, sigma: float, blocks: int) -> Milliseconds:
        """Log-normal, autocorrelated milliseconds with median ``latency``, shape (blocks, ``CALLS``)."""
        steps = rng.standard_normal(blocks * CALLS)
        kept = self._noise.autocorrelation
        fresh = np.sqrt(1 - kept**2)
        for i in range(1, steps.size):
            steps[i] = kept * steps[i - 1] + fresh * steps[i]
        variation = self._noise.per_call**2 + (sigma / latency) ** 2
        times: Milliseconds = latency * np.exp(np.sqrt(np.log1p(variation)) * steps)
        return times.reshape(blocks, CALLS)

    def _timings(self, entry: Recorded, shapes: ArmBlocks) -> tuple[ShapeTiming, ...]:
        timings = [replace(shape_timing(blocks), p99_ms=None) for blocks in shapes]
        if not self._noise.exact:
            return tuple(timings)
        recorded = zip(timings, entry.latency_ms, entry.sigma_ms, strict=True)
        return tuple(replace(timing, p50_ms=p50, sigma_ms=sigma) for timing, p50, sigma in recorded)


def _exact_blocks(latency: float, sigma: float, blocks: int) -> Milliseconds:
    """Blocks whose pooled median is ``latency`` and whose sample standard deviation is ``sigma``.

    One call of every block is late, so that blocks are equal and all times positive: with n calls, k of them
    late by h, the sample variance is h² k (n - k) / (n (n - 1)).
    """
    calls = blocks * CALLS
    late = sigma * np.sqrt(calls * (calls - 1) / (blocks * (calls - blocks))) if calls > 1 else 0.0
    times = np.full((blocks, CALLS), latency, dtype=np.float64)
    times[:, -1] += late
    return times


def _ratio(own: ArmBlocks, reference: ArmBlocks) -> Interval:
    """Reference time over own time: geometric mean over paired blocks, with its 95 % interval."""
    logs = np.log(np.median(reference, axis=2)) - np.log(np.median(own, axis=2))
    half = 1.96 * float(logs.std(ddof=1)) / np.sqrt(logs.size)
    low, middle, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
    return Interval(estimate=float(middle), low=float(low), high=float(high))


def _report(settings: RuntimeSettings) -> CompileReport:
    return CompileReport(requested=settings.compiled, graphs=int(settings.compiled))


def _as_tuples(times: Milliseconds) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(block) for block in times.tolist())
