"""The configurations that no other beats in latency, jitter, drift and start-up time at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotuner.measurement.outcome import Measured
from autotuner.search.scoring import Ranked
from toto_core.settings import RuntimeSettings


@dataclass(frozen=True, kw_only=True)
class Point:
    """A measured configuration: weighted p50 and sigma(time), drift, and the start of a process; times in ms."""

    settings: RuntimeSettings
    p50_ms: float
    sigma_ms: float
    drift: float
    start_ms: float

    @property
    def costs(self) -> tuple[float, float, float, float]:
        """What all should be small."""
        return self.p50_ms, self.sigma_ms, self.drift, self.start_ms


def pareto_front(ranked: Sequence[Ranked], weights: Sequence[float]) -> tuple[Point, ...]:
    """The measured configurations within their limits that no other equals or beats in all four, fastest first.

    ``weights`` are those of the request shapes. Of those equal in all four the better ranked stays.
    """
    points = [
        _point(entry.settings, entry.outcome, weights)
        for entry in ranked
        if entry.judged.feasible and isinstance(entry.outcome, Measured)
    ]
    front = [
        point
        for place, point in enumerate(points)
        if not any(
            _beats(other, point) or (other.costs == point.costs and earlier < place)
            for earlier, other in enumerate(points)
        )
    ]
    return tuple(sorted(front, key=lambda point: point.costs))


def _beats(one: Point, other: Point) -> bool:
    return one.costs != other.costs and all(a <= b for a, b in zip(one.costs, other.costs, strict=True))


def _point(settings: RuntimeSettings, measured: Measured, weights: Sequence[float]) -> Point:
    weighted = list(zip(weights, measured.timings, strict=True))
    return Point(
        settings=settings,
        p50_ms=sum(weight * timing.p50_ms for weight, timing in weighted),
        sigma_ms=sum(weight * timing.sigma_ms for weight, timing in weighted),
        drift=measured.accuracy.drift,
        start_ms=measured.start_ms,
    )
