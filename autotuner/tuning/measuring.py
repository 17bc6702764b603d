"""What measures: a symbol's prices and model, the search space, and a runner over it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from autotuner.environment import current_environment, spare_threads
from autotuner.measurement.process_runner import ProcessRunner, RunnerLimits
from autotuner.measurement.runner import Runner
from autotuner.measurement.statistics import EffectiveCost
from autotuner.paths import cache_folder, holds_artifacts, trial_artifacts
from autotuner.search.profiles import Limits, Profile
from autotuner.search.space import SearchSpace, search_space
from autotuner.serving.artifacts import CacheRefused, store
from autotuner.serving.manifest import Seal
from autotuner.store import Subject
from autotuner.workload import Workload
from toto_core.model_files import check_weights, digest, locate, read_config
from toto_core.series import PriceSeries, find_series
from toto_core.settings import RuntimeSettings


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A subject with its prices and the model's patch size in time steps."""

    subject: Subject
    series: PriceSeries
    patch_size: int


def prepare(symbol: str, workload: Workload, *, data: Path | None, device: str) -> Prepared:
    """Read prices and model. Raises ``SeriesError`` or ``CheckpointError``, each with one line."""
    minimum = workload.longest_context + workload.longest_prediction
    series = find_series(symbol, data, minimum_points=minimum)
    folder = locate(workload.model, revision=workload.revision)
    config = read_config(folder)
    check_weights(folder)
    subject = Subject(
        symbol=symbol,
        workload=workload,
        environment=current_environment(device),
        series_digest=series.digest,
        model_digest=digest(folder),
    )
    return Prepared(subject=subject, series=series, patch_size=config.patch_size)


_MEMORY_SHARE, _MEMORY_MOST = 0.6, 8 << 30
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A space and a runner over it; ``make_runner`` is given who hears what the runner does.

    ``exclusive`` says that measuring needs the device for itself, which a replay of recorded answers does not.
    ``hand_over`` gives production what compiling promoted settings left on disk, and says where that is;
    ``holds`` whether an earlier trial of some settings left anything there.
    """

    space: SearchSpace
    make_runner: Callable[[Say], Runner]
    clock: Callable[[], float] = time.monotonic
    exclusive: bool = True
    hand_over: Callable[[RuntimeSettings], tuple[Path, Seal] | None] = lambda _: None
    holds: Callable[[RuntimeSettings], bool] = lambda _: False


def process_bench(
    *,
    workload: Workload,
    profile: Profile,
    limits: Limits,
    device: str,
    series: PriceSeries,
    patch_size: int,
    seed: int,
    threads: int | None = None,
) -> Bench:
    """The real bench: child processes on this machine, of at most ``threads`` CPU threads each."""
    environment = current_environment(device)
    facts = workload.facts(device=device, threads=threads or spare_threads(), patch_size=patch_size)
    space = search_space(workload, facts)

    caches = cache_folder() / f"trials-{environment.fingerprint}-{workload.signature}"

    def make(say: Say) -> Runner:
        return ProcessRunner(
            workload=workload,
            close=series.close,
            last_fifth_start=series.last_fifth_start(),
            device=device,
            reference=space.reference,
            cost=effective_cost(workload, profile),
            limits=RunnerLimits(memory_bytes=_memory(limits)),
            caches=caches,
            seed=seed,
            say=say,
        )

    def hand_over(settings: RuntimeSettings) -> tuple[Path, Seal] | None:
        with contextlib.suppress(CacheRefused):  # production then compiles for itself, and says why
            if settings.compiled:
                return store(trial_artifacts(caches, settings), environment.fingerprint, settings.key)
        return None

    return Bench(
        space=space,
        make_runner=make,
        hand_over=hand_over,
        holds=lambda settings: holds_artifacts(caches, settings),
    )


def effective_cost(workload: Workload, profile: Profile) -> EffectiveCost:
    """How timed blocks become one effective time under a profile."""
    return EffectiveCost(
        weights=workload.weights,
        sigma_weight=profile.sigma_weight,
        calls_per_process=workload.calls_per_process,
    )


def _memory(limits: Limits) -> int:
    """Bytes one child may hold: what the machine can spare, but never less than a limit asks to compare with."""
    spare = min(_MEMORY_MOST, int(psutil.virtual_memory().total * _MEMORY_SHARE))
    return spare if limits.peak_bytes is None else max(limits.peak_bytes, spare)
