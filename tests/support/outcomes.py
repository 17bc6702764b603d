"""Small measurements for tests."""

from __future__ import annotations

from autotuner.measurement.outcome import Accuracy, Block, Interval, Measured, ShapeTiming
from autotuner.search.profiles import Limits, Profile
from autotuner.search.scoring import Constraint, judge
from autotuner.workload import Workload
from toto_core.compile_report import CompileReport


def timing(p50_ms: float, sigma_ms: float = 0.0) -> ShapeTiming:
    return ShapeTiming(p50_ms=p50_ms, p95_ms=p50_ms + 2 * sigma_ms, sigma_ms=sigma_ms, calls=80)


def measured(
    *timings: ShapeTiming,
    reference: tuple[ShapeTiming, ...] = (),
    drift: float = 0.0,
    quantile_shift: float = 0.0,
    cold_start_ms: float = 0.0,
    reference_cold_start_ms: float = 0.0,
    peak_bytes: int = 0,
    blocks: tuple[tuple[Block, ...], ...] = (),
) -> Measured:
    own = timings or (timing(50.0),)
    beside = reference or tuple(timing(100.0) for _ in own)
    ratio = beside[0].p50_ms / own[0].p50_ms
    return Measured(
        timings=own,
        reference_timings=beside,
        ratio=Interval(estimate=ratio, low=ratio, high=ratio),
        cold_start_ms=cold_start_ms,
        reference_cold_start_ms=reference_cold_start_ms,
        peak_bytes=peak_bytes,
        accuracy=Accuracy(
            mae=1.0,
            mae_reference=1.0,
            sigma_mae=0.0,
            drift=drift,
            quantile_shift=quantile_shift,
            windows=16,
            seeds=2,
        ),
        report=CompileReport(),
        blocks=blocks,
    )


def violations(outcome: Measured, workload: Workload, profile: Profile, limits: Limits) -> list[Constraint]:
    """The limits that are not kept."""
    return [each for each in judge(outcome, workload, profile, limits).constraints if each.amount > 0]
