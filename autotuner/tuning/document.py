"""What a run came to, as the plain document that ``run --json`` prints and the ledger keeps as evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autotuner.measurement.outcome import ArmLaunch, Interval, Launch, Measured, ShapeTiming, together
from autotuner.measurement.statistics import EffectiveCost, launch_ratio, shape_timing
from autotuner.promotion.decision import Decision
from autotuner.search.profiles import Profile
from autotuner.search.scoring import break_even_calls
from autotuner.search.search import StudyResult
from autotuner.store import Promotion
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings


def search_figures(measured: Measured, workload: Workload) -> dict[str, Any]:
    """The figures of a search trial; ``stage`` says that they only rank and promise nothing."""
    return {
        "stage": "search",
        "launches": 1,
        "ratio": _interval(measured.ratio),
        **_times(measured.timings, workload),
        **_accuracy(measured),
    }


def duel_figures(
    settings: RuntimeSettings,
    *,
    reference: RuntimeSettings,
    stage2: Sequence[Launch],
    measured: Measured | None,
    workload: Workload,
    rng: np.random.Generator,
) -> dict[str, Any] | None:
    """The figures of fresh launches, None when the settings or the reference did not run in two of them.

    Accuracy and the cold start come from the search's trial: more launches do not change a forecast, and a
    launch of the duel starts with a filled compile cache (``warm_start_ms``, None for what compiles nothing).
    """
    pairs = [
        (launch.arm(reference), launch.arm(settings)) for launch in stage2 if settings in launch.settings
    ]
    usable = [(r, s) for r, s in pairs if isinstance(r, ArmLaunch) and isinstance(s, ArmLaunch)]
    if len(usable) < 2:
        return None
    cost = EffectiveCost(weights=workload.weights)
    blocks = [arm.blocks for _, arm in usable]
    warm_ms = [arm.start_ms for _, arm in usable if arm.was_warm]
    if settings == reference:
        ratio = Interval(estimate=1.0, low=1.0, high=1.0)
    else:
        ratio = launch_ratio([r.blocks for r, _ in usable], blocks, cost=cost, rng=rng)
    timings = [
        shape_timing([block for arm in blocks for block in arm[shape]])
        for shape in range(len(workload.shapes))
    ]
    return {
        "stage": "duel",
        "launches": len(usable),
        "ratio": _interval(ratio),
        **_times(timings, workload),
        **(_accuracy(measured) if measured else {"compile_report": usable[-1][1].report.to_dict()}),
        "warm_start_ms": float(np.median(warm_ms)) if warm_ms else None,
        "conditions": dataclasses.asdict(together([launch.conditions for launch in stage2])),
    }


def fastest_once_running(study: StudyResult, workload: Workload, profile: Profile) -> dict[str, Any] | None:
    """The feasible settings with the least time a request once started, and from how many calls they pay.

    None when nothing beats the reference once running. Search figures: they rank and promise nothing.
    """
    found = []
    for entry in study.ranked:
        if entry.judged.feasible and isinstance(entry.outcome, Measured):
            calls = break_even_calls(entry.outcome, workload, profile)
            if calls is not None:
                found.append((entry, entry.outcome, calls))
    if not found:
        return None
    entry, measured, calls = max(found, key=lambda each: each[1].ratio.low)
    return {
        "settings": entry.settings.to_dict(),
        "ratio": _interval(measured.ratio),
        "start_ms": measured.start_ms,
        "break_even_calls": round(calls),
    }


def run_document(
    *,
    symbol: str,
    profile: Profile,
    workload: Workload,
    decision: Decision,
    figures: Mapping[str, Any],
    study: StudyResult,
    distinct_keys: int,
    run_id: str,
    selftest: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything a run came to, in plain values; the fields are documented in the README."""
    failed = dict(study.failed)
    return {
        "symbol": symbol,
        "profile": profile.name,
        "model": workload.model,
        "workload": workload.to_dict() | {"signature": workload.signature},
        "settings": decision.settings.to_dict(),
        **figures,
        "trials": {
            "total": study.total,
            "measured": study.measured,
            "failed": failed,
            "reused": study.reused,
            "distinct_keys": distinct_keys,
            "ended_because": study.ended_because,
        },
        "decision": {"verdict": decision.verdict, "reason": decision.reason},
        "promoted": decision.promoted,
        "fastest_once_running": fastest_once_running(study, workload, profile),
        "selftest": selftest,
        "run_id": run_id,
    }


def promotion_document(promotion: Promotion, *, source: str) -> dict[str, Any]:
    """A stored promotion in the same form, with ``source`` and ``since``."""
    return {
        "symbol": promotion.symbol,
        "profile": promotion.profile,
        "model": promotion.workload.model,
        "workload": promotion.workload.to_dict() | {"signature": promotion.workload.signature},
        "settings": promotion.settings.to_dict(),
        **promotion.evidence,
        "decision": {"verdict": promotion.verdict, "reason": promotion.reason},
        "promoted": promotion.rolled_back_at is None,
        "run_id": promotion.run_id,
        "source": source,
        "since": promotion.promoted_at.isoformat(),
    }


def _times(timings: Sequence[ShapeTiming], workload: Workload) -> dict[str, Any]:
    """Weighted over request shapes, and each shape's own under ``shapes``."""

    def mean(values: list[float]) -> float:
        return float(np.average(values, weights=workload.weights))

    p99_ms = [t.p99_ms for t in timings if t.p99_ms is not None]
    return {
        "p50_ms": mean([t.p50_ms for t in timings]),
        "p95_ms": mean([t.p95_ms for t in timings]),
        "p99_ms": mean(p99_ms) if len(p99_ms) == len(timings) else None,
        "sigma_time_ms": mean([t.sigma_ms for t in timings]),
        "shapes": [dataclasses.asdict(timing) for timing in timings],
    }


def _accuracy(measured: Measured) -> dict[str, Any]:
    accuracy = measured.accuracy
    return {
        "drift": accuracy.drift,
        "quantile_shift": accuracy.quantile_shift,
        "mae": accuracy.mae,
        "mae_reference": accuracy.mae_reference,
        "sigma_mae": accuracy.sigma_mae,
        "cold_start_ms": measured.cold_start_ms,
        "warm_start_ms": measured.warm_start_ms,
        "peak_bytes": measured.peak_bytes,
        "compile_report": measured.report.to_dict(),
        "conditions": dataclasses.asdict(measured.conditions),
    }


def _interval(interval: Interval) -> dict[str, float]:
    return dataclasses.asdict(interval)
