"""The options of ``autotune run`` that hold for all its symbols, and the request they make of one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner.errors import UsageError, one_line

if TYPE_CHECKING:
    from autotuner.tuning.request import TuneRequest
    from autotuner.workload import Workload
    from toto_core.prices.options import PriceSource


DEFAULT_PROFILE = "production"
_WORKLOAD_OPTIONS = (
    *("models", "workload_file", "context_length", "prediction_length", "num_samples", "calls_per_process"),
    "concurrency",
)


@dataclass(frozen=True, kw_only=True)
class TunedAs:
    """What a symbol was last tuned for, and on which prices."""

    profile: str
    workload: Workload
    prices: PriceSource


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of one ``run`` that hold for all its symbols."""

    prices: PriceSource
    profile: str | None
    models: tuple[str, ...]
    max_mae: float | None
    max_quantile_loss: float | None
    context_length: int | None
    prediction_length: int | None
    num_samples: int | None
    workload_file: Path | None
    calls_per_process: int | None
    concurrency: int | None
    deadline_ms: float | None
    memory_limit_mb: int | None
    trials: int
    seconds: float | None
    device: str
    because: str | None
    triggers: tuple[str, ...]
    canary: float
    threads: int | None
    seed: int
    resume: bool
    fresh: bool
    replay: Path | None


def requests_of(symbol: str, options: RunOptions, before: TunedAs | None = None) -> tuple[TuneRequest, ...]:
    """What one symbol's run is asked to do, once for each model; where no option says it, as ``before``.

    Raises ``UsageError`` for options that contradict each other.
    """
    models = tuple(dict.fromkeys(options.models)) or (None,)
    if len(models) > 1 and options.replay:
        raise UsageError("--replay answers for one model: give one --model")
    if len(models) == 1 and (options.max_mae is not None or options.max_quantile_loss is not None):
        raise UsageError("--max-mae and --max-quantile-loss choose between models: give --model again")
    return tuple(_request(symbol, options, before, model) for model in models)


def _request(symbol: str, options: RunOptions, before: TunedAs | None, model: str | None) -> TuneRequest:
    from autotuner.search.profiles import Limits, profile
    from autotuner.tuning.request import TuneRequest

    return TuneRequest(
        symbol=symbol,
        workload=before.workload if before and _of_any_workload(options) else _workload(options, model),
        profile=profile(options.profile or (before.profile if before else DEFAULT_PROFILE)),
        limits=Limits(peak_bytes=peak_bytes(options), deadline_ms=options.deadline_ms),
        prices=options.prices.or_else(before.prices) if before else options.prices,
        device=options.device,
        trials=options.trials,
        seconds=options.seconds,
        seed=options.seed,
        threads=options.threads,
        because=None if options.because is None else one_line(options.because),
        triggers=options.triggers,
        canary=options.canary,
        resume=options.resume,
        reuse=not options.fresh,
    )


def peak_bytes(options: RunOptions) -> int | None:
    """The memory limit given; else, in a container with one, what a process may hold there."""
    from autotuner.environment import spare_memory
    from toto_core.container import container_limits

    if options.memory_limit_mb is not None:
        return options.memory_limit_mb << 20
    measured_here = (
        options.replay is None and options.device == "cpu"
    )  # a GPU's memory is not the container's
    return spare_memory() if measured_here and container_limits().memory_bytes else None


def _of_any_workload(options: RunOptions) -> bool:
    return all(getattr(options, name) in (None, ()) for name in _WORKLOAD_OPTIONS)


def _workload(options: RunOptions, model: str | None) -> Workload:
    from autotuner.workload import RequestShape, Workload, read_workload

    lengths = {"context_length": options.context_length, "prediction_length": options.prediction_length}
    given: dict[str, Any] = {name: value for name, value in lengths.items() if value is not None}
    if options.num_samples is not None:
        given["num_samples"] = options.num_samples or None  # 0 asks for the mean path
    if options.workload_file and given:
        raise UsageError(f"--workload and --{next(iter(given)).replace('_', '-')} contradict each other")
    file, shapes = options.workload_file, (RequestShape(**given),)
    workload = read_workload(file) if file else Workload(shapes=shapes)
    return dataclasses.replace(
        workload,
        model=model or workload.model,
        calls_per_process=options.calls_per_process or workload.calls_per_process,
        concurrency=options.concurrency or workload.concurrency,
    )
