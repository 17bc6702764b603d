"""From a symbol's prices and model to a runner that is alone on its device, and gone when the work is done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autotuner.device_lock import Say, measure_alone
from autotuner.engines.interpreters import environment_of
from autotuner.engines.protocol import ModelIdentity, Traits
from autotuner.engines.registry import engine_for
from autotuner.environment import Environment, has_fp16_units, spare_memory, spare_threads
from autotuner.errors import AutotuneError
from autotuner.measurement.builds import build_slots
from autotuner.measurement.process_runner import ProcessRunner, RunnerLimits
from autotuner.measurement.runner import Runner
from autotuner.measurement.statistics import EffectiveCost
from autotuner.paths import cache_folder, headers_folder, holds_artifacts, trial_artifacts, trials_folder
from autotuner.search.profiles import Limits, Profile
from autotuner.search.space import SearchSpace, search_space
from autotuner.serving.artifacts import CacheRefused, refuse_foreign, refuse_noexec, store
from autotuner.serving.manifest import ManifestSummary
from autotuner.store import Store, Subject
from autotuner.tuning.budget import USUAL_SECONDS, expected_search, seconds_by_itself
from autotuner.workload import Workload
from storage.patience import RUN_SECONDS, patience
from toto_core.series import PriceSeries, PriceSource, find_series
from toto_core.settings import RuntimeSettings


@dataclass(frozen=True, kw_only=True)
class Measurable:
    """A workload on this machine: the model's files, what its engine can vary, and where it would run."""

    workload: Workload
    environment: Environment
    model: ModelIdentity
    traits: Traits

    def space(
        self, *, threads: int | None = None, fp16_units: bool, most_together: int | None = None
    ) -> SearchSpace:
        """What a search may try; see ``plan_measuring``."""
        facts = self.workload.facts(
            device=self.environment.device,
            threads=threads or spare_threads(self.environment.threads),
            patch_size=self.model.patch_size,
            **vars(self.traits),
            fp16_units=fp16_units,
            most_together=most_together,
        )
        return search_space(self.workload, facts)


def measurable(workload: Workload, *, device: str, there: Environment | None = None) -> Measurable:
    """Read the model, to measure here or ``there``.

    Raises ``CheckpointError`` or ``AutotuneError``, each with one line.
    """
    engine = engine_for(workload.model, workload.revision)
    model = engine.identity(workload.model, workload.revision)
    shortest = min(shape.context_length for shape in workload.shapes)
    if shortest < model.patch_size:
        raise AutotuneError(
            f"context length {shortest} is shorter than one patch of {workload.model}, {model.patch_size} time steps"
        )
    environment = there or environment_of(device, engine.name)
    return Measurable(workload=workload, environment=environment, model=model, traits=engine.traits(workload))


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A subject with its prices, the model's files and what its engine can vary."""

    subject: Subject
    series: PriceSeries
    measurable: Measurable


def prepare(symbol: str, workload: Workload, *, prices: PriceSource, device: str) -> Prepared:
    """Read prices and model. Raises ``SeriesError``, ``CheckpointError`` or ``AutotuneError``, each with one line."""
    minimum = workload.longest_context + workload.longest_prediction
    series = find_series(symbol, prices.path, minimum_points=minimum, options=prices.options)
    found = measurable(workload, device=device)
    subject = Subject(
        symbol=symbol,
        workload=workload,
        environment=found.environment,
        series_digest=series.digest,
        model_digest=found.model.digest,
    )
    return Prepared(subject=subject, series=series, measurable=found)


@dataclass(frozen=True, kw_only=True)
class MeasuringPlan:
    """A search space and how to get a runner over it; ``make_runner`` is given who hears what the runner does.

    ``device`` is what measuring needs for itself, None where answers are recorded and nothing is measured.
    ``hand_over`` gives production what compiling a promoted configuration left on disk, and says where that is;
    ``holds`` whether an earlier trial of a configuration left anything there. ``seconds`` is what a run may take
    that nobody gave a number, and ``why_seconds`` says why.
    """

    space: SearchSpace
    make_runner: Callable[[Say], Runner]
    clock: Callable[[], float] = time.monotonic
    device: str | None = None
    hand_over: Callable[[RuntimeSettings], tuple[Path, ManifestSummary] | None] = lambda _: None
    holds: Callable[[RuntimeSettings], bool] = lambda _: False
    seconds: float = USUAL_SECONDS
    why_seconds: str = ""


def plan_measuring(
    prepared: Prepared,
    *,
    profile: Profile,
    limits: Limits = Limits(),
    seed: int = 0,
    threads: int | None = None,
    most_together: int | None = None,
) -> MeasuringPlan:
    """To measure for real: child processes on this machine, of at most ``threads`` CPU threads each.

    ``most_together`` is the most sample paths decoded together, where there is no memory for more. Raises
    ``CacheRefused`` when nothing that is compiled could be loaded.
    """
    subject, series = prepared.subject, prepared.series
    workload, environment = subject.workload, subject.environment
    device = environment.device
    space = prepared.measurable.space(
        threads=threads, fp16_units=has_fp16_units(), most_together=most_together
    )
    if profile.searches:
        refuse_noexec(cache_folder())
    caches = trials_folder(environment.fingerprint, workload.signature, subject.model_digest)
    for folder in (caches, headers_folder()) if profile.searches else ():
        refuse_foreign(folder.absolute())

    def make(say: Say) -> Runner:
        # A child may hold what the machine can spare, but never less than a limit asks to compare with.
        return ProcessRunner(
            workload=workload,
            close=series.close,
            last_fifth_start=series.last_fifth_start(),
            device=device,
            reference=space.reference,
            cost=effective_cost(workload, profile),
            limits=RunnerLimits(memory_bytes=max(limits.peak_bytes or 0, spare_memory())),
            caches=caches,
            seed=seed,
            say=say,
        )

    def hand_over(settings: RuntimeSettings) -> tuple[Path, ManifestSummary] | None:
        with contextlib.suppress(CacheRefused):  # production then compiles for itself, and says why
            if settings.compiled:
                return store(trial_artifacts(caches, settings), environment.fingerprint, settings.key)
        return None

    expected, seconds = search_and_run(space, prepared.measurable)
    return MeasuringPlan(
        space=space,
        make_runner=make,
        seconds=seconds,
        why_seconds=f"at most {seconds:.0f} s: a cold search here takes about {expected:.0f} s, then comes the duel",
        device=device,
        hand_over=hand_over,
        holds=lambda settings: holds_artifacts(trial_artifacts(caches, settings)),
    )


def search_and_run(space: SearchSpace, found: Measurable) -> tuple[float, float]:
    """What a cold search is expected to take, and what a run may take that nobody gave a number; seconds."""
    slots = build_slots(found.environment.device)
    expected = expected_search(space, slots=slots, weights_bytes=found.model.weights_bytes)
    return expected, seconds_by_itself(expected)


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """A runner at work; ``check`` raises ``AutotuneError`` once somebody else may measure on the device.

    Nothing is stored from then on.
    """

    runner: Runner
    check: Callable[[], None]


@contextlib.contextmanager
def measuring(
    plan: MeasuringPlan, store: Store, *, seconds: float, say: Say, say_steps: Say | None = None
) -> Iterator[Measuring]:
    """Measure alone on the plan's device inside the block; then its processes end and the device is free.

    However the block ends, and in that order. Waits up to ``seconds`` for whoever measures now. ``say_steps``
    hears what the runner does, ``say`` unless given. A store on a server that is away is waited for inside the block,
    because to measure again would cost more. Raises ``AutotuneError`` when the device is not free by
    then, ``StorageError`` when the store fails.
    """
    with contextlib.ExitStack() as stack:
        lease = None
        if plan.device is not None:
            lease = stack.enter_context(measure_alone(store.records, plan.device, seconds=seconds, say=say))
        runner = stack.enter_context(contextlib.closing(plan.make_runner(say_steps or say)))
        stack.enter_context(patience(RUN_SECONDS, say))
        yield Measuring(runner=runner, check=lease.check if lease else lambda: None)


def effective_cost(workload: Workload, profile: Profile) -> EffectiveCost:
    """How timed blocks become one effective time under a profile."""
    return EffectiveCost(
        weights=workload.weights,
        sigma_weight=profile.sigma_weight,
        calls_per_process=workload.calls_per_process,
    )
