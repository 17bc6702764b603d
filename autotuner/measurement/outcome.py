"""What comes of a trial (``Measured | Failed``) or of a launch, and the JSON of a measurement."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from autotuner.serving.plain_values import items, number, whole
from toto_core.compile_report import CompileReport
from toto_core.settings import RuntimeSettings

FAILURE_KINDS = (
    "timeout",
    "out_of_memory",
    "crashed",
    "compile_error",
    "drift_exceeded",
    "not_compiled",
    "unstable",
    "not_reproducible",
)

Block = tuple[float, ...]
"""Milliseconds of the calls of one timed block, its first call already discarded."""
ArmBlocks = Sequence[Sequence[Block]]
"""Raw blocks of one arm of one launch or trial, indexed [shape][block]."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True, kw_only=True)
class ShapeTiming:
    """Steady-state latency of one request shape, milliseconds: median, 95th and 99th percentile, deviation."""

    p50_ms: float
    p95_ms: float
    sigma_ms: float
    calls: int
    p99_ms: float | None = None


def effective_ms(
    timings: Sequence[ShapeTiming],
    weights: Sequence[float],
    sigma_weight: float,
    start_ms: float = 0.0,
    calls_per_process: int = 1,
) -> float:
    """Milliseconds one request costs: weighted p50, plus weighted jitter, plus its share of the start.

    ``timings`` and ``weights`` hold one entry per request shape. Raises ``ValueError`` when their numbers
    differ.
    """
    steady = sum(w * (t.p50_ms + sigma_weight * t.sigma_ms) for t, w in zip(timings, weights, strict=True))
    return steady + start_ms / calls_per_process


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """A start with an empty compile cache, in ``ms``; meanwhile at most ``beside`` other configurations compiled."""

    ms: float
    beside: int = 0


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Errors against realised prices, and how far numerics moved the forecast.

    ``mae`` and ``mae_reference`` are mean absolute errors of the median forecast, in price units, over the same
    rolling-origin windows and noise; ``sigma_mae`` is the standard deviation of ``mae`` over noise seeds;
    ``drift`` the upper 95 % bound of |mae - mae_reference| / mae_reference; ``quantile_shift`` the largest
    |q - q_reference| over the reference's own 10-90 % spread, both judged on the worst of all, calm and
    volatile windows. ``drift_exact`` and ``quantile_shift_exact`` are the same against float64 on the same
    noise, None where that was not measured.
    """

    mae: float
    mae_reference: float
    sigma_mae: float
    drift: float
    quantile_shift: float
    windows: int
    seeds: int
    drift_exact: float | None = None
    quantile_shift_exact: float | None = None


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What else the machine did meanwhile.

    ``load_average`` at the end; ``foreign_cpu_seconds`` of other processes; ``foreign_gpu_processes``, the
    most seen at once on the device; ``clock_share``, the slowest clock seen over the fastest (1 where no
    clock can be read); ``disturbed_blocks`` of ``blocks`` were kept although one of these disturbed them.
    """

    load_average: float = 0.0
    foreign_cpu_seconds: float = 0.0
    disturbed_blocks: int = 0
    blocks: int = 0
    foreign_gpu_processes: int = 0
    clock_share: float = 1.0

    def __str__(self) -> str:
        parts = [
            f"load average {self.load_average:.1f}",
            f"{self.disturbed_blocks} of {self.blocks} blocks disturbed by others",
        ]
        if self.foreign_gpu_processes:
            parts.append(f"{self.foreign_gpu_processes} foreign GPU processes")
        if self.clock_share < 1:
            parts.append(f"clock down to {self.clock_share:.0%}")
        return ", ".join(parts)


def together(conditions: Sequence[Conditions]) -> Conditions:
    """The conditions of several launches as one: sums of work and blocks, the worst of everything else."""
    return Conditions(
        load_average=max(each.load_average for each in conditions),
        foreign_cpu_seconds=sum(each.foreign_cpu_seconds for each in conditions),
        disturbed_blocks=sum(each.disturbed_blocks for each in conditions),
        blocks=sum(each.blocks for each in conditions),
        foreign_gpu_processes=max(each.foreign_gpu_processes for each in conditions),
        clock_share=min(each.clock_share for each in conditions),
    )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One configuration, measured beside the reference in the same stretch of time.

    ``timings`` and ``reference_timings`` hold one entry per request shape of the workload, ``ratio`` is the
    reference's time over the configuration's (above 1 is faster), block ``i`` of ``blocks`` and of
    ``reference_blocks`` were taken side by side. ``cold_start_ms`` began with an empty
    compile cache, while at most ``built_beside`` other configurations were compiled, ``warm_start_ms`` with a
    filled one; None is what was not measured. Raises ``ValueError`` when both are.
    """

    timings: tuple[ShapeTiming, ...]
    reference_timings: tuple[ShapeTiming, ...]
    ratio: Interval
    cold_start_ms: float | None
    reference_cold_start_ms: float
    peak_bytes: int
    accuracy: Accuracy
    report: CompileReport
    conditions: Conditions = Conditions()
    blocks: ArmBlocks = ()
    reference_blocks: ArmBlocks = ()
    warm_start_ms: float | None = None
    built_beside: int = 0

    def __post_init__(self) -> None:
        if self.cold_start_ms is None and self.warm_start_ms is None:
            raise ValueError("measured: needs a cold or a warm start")

    @property
    def was_warm(self) -> bool:
        """Whether ``start_ms`` began with a filled compile cache."""
        return self.warm_start_ms is not None

    @property
    def cold_start(self) -> ColdStart | None:
        """Its start with an empty compile cache, None where that was not measured."""
        return (
            None if self.cold_start_ms is None else ColdStart(ms=self.cold_start_ms, beside=self.built_beside)
        )

    def started_cold(self, start: ColdStart | None) -> Measured:
        """The same with that start, None for one that was not measured."""
        if start is None:
            return dataclasses.replace(self, cold_start_ms=None, built_beside=0)
        return dataclasses.replace(self, cold_start_ms=start.ms, built_beside=start.beside)

    @property
    def start_ms(self) -> float:
        """What a production process pays once: the winner's compile cache is handed to it, so the warm start."""
        paid = self.cold_start_ms if self.warm_start_ms is None else self.warm_start_ms
        assert paid is not None
        return paid


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A trial that gave no measurement: ``kind`` is one of ``FAILURE_KINDS``, ``detail`` one line of cause."""

    kind: str
    detail: str = ""

    def __post_init__(self) -> None:
        if self.kind not in FAILURE_KINDS:
            raise ValueError(f"failure kind must be one of {', '.join(FAILURE_KINDS)}, not {self.kind!r}")
        object.__setattr__(self, "detail", " ".join(self.detail.split())[:500])

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


Outcome = Measured | Failed


@dataclass(frozen=True, kw_only=True)
class ArmLaunch:
    """One arm of one launch.

    ``was_warm`` says that its start found a filled compile cache; ``reproduced`` that it answered a fixed request
    bit for bit as the process that compiled did.
    """

    start_ms: float
    was_warm: bool = False
    reproduced: bool = False
    blocks: ArmBlocks
    peak_bytes: int = 0
    report: CompileReport = CompileReport()


@dataclass(frozen=True, kw_only=True)
class Launch:
    """Fresh processes of several arms, in the order they were asked for.

    Block ``i`` of every measured arm was taken side by side with block ``i`` of the others.
    """

    settings: tuple[RuntimeSettings, ...]
    arms: tuple[ArmLaunch | Failed, ...]
    conditions: Conditions = Conditions()

    def arm(self, settings: RuntimeSettings) -> ArmLaunch | Failed:
        """The arm of ``settings``. Raises ``KeyError`` when it took no part."""
        for candidate, arm in zip(self.settings, self.arms, strict=True):
            if candidate == settings:
                return arm
        raise KeyError(settings.label)


_MOST_SHAPES, _MOST_BLOCKS = 1_000, 100_000
_Fields = TypeVar("_Fields", ShapeTiming, Interval, Accuracy, Conditions)
_NUMBERS = ("cold_start_ms", "reference_cold_start_ms", "warm_start_ms", "peak_bytes")


def measured_to_json(measured: Measured) -> str:
    """One line of JSON with every raw block."""
    fields = dataclasses.asdict(measured)
    if not measured.built_beside:  # as versions before had it
        del fields["built_beside"]
    return json.dumps(fields, separators=(",", ":"))


def measured_from_json(text: str) -> Measured:
    """The inverse of ``measured_to_json``. Raises ``ValueError`` when the text is no measurement."""
    try:
        values: dict[str, Any] = json.loads(text)
        return Measured(
            timings=_each(ShapeTiming, values["timings"]),
            reference_timings=_each(ShapeTiming, values["reference_timings"]),
            ratio=_of(Interval, values["ratio"]),
            accuracy=_of(Accuracy, values["accuracy"]),
            report=CompileReport.from_dict(values["report"]),
            conditions=_of(Conditions, values["conditions"]),
            blocks=_blocks(values["blocks"]),
            reference_blocks=_blocks(values["reference_blocks"]),
            built_beside=whole(values.get("built_beside", 0), "built_beside"),
            **{name: _number(Measured, name, values[name]) for name in _NUMBERS},
        )
    except Exception as error:  # what another version or a stranger wrote can fail in any way
        raise ValueError(f"not a measurement: {error!r}") from None


def _each(kind: type[_Fields], raw: object) -> tuple[_Fields, ...]:
    return tuple(_of(kind, fields) for fields in items(raw, "timings", _MOST_SHAPES))


def _of(kind: type[_Fields], raw: dict[str, object]) -> _Fields:
    return kind(**{name: _number(kind, name, value) for name, value in raw.items()})


def _number(kind: type, name: str, value: object) -> Any:
    """A number as it is, or None where the field may be; neither text nor what no float can hold."""
    if value is not None or not kind.__annotations__[name].endswith("| None"):
        number(value, name)
    return value


def _blocks(raw: object) -> tuple[tuple[Block, ...], ...]:
    return tuple(
        tuple(_block(block) for block in items(shape, "blocks", _MOST_BLOCKS))
        for shape in items(raw, "blocks", _MOST_SHAPES)
    )


def _block(raw: object) -> Block:
    calls = items(raw, "block", _MOST_BLOCKS)
    if not set(map(type, calls)) <= {int, float}:
        raise ValueError("a block must hold numbers")
    found = tuple(map(float, calls))
    if not all(map(math.isfinite, found)):
        raise ValueError("a block must hold finite numbers")
    return found
