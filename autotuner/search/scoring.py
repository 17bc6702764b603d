"""Judges outcomes under a profile: one score, the limits that must be kept, and a ranking."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autotuner.measurement.outcome import Failed, Measured, Outcome, effective_ms
from autotuner.search.profiles import Limits, Profile
from autotuner.workload import Workload
from toto_core.settings import RuntimeSettings

TIE = 1e-9
"""Scores closer than this are equal, and the simpler configuration comes first."""
DRIFT_SHARE = 0.05
"""What drifting by the whole budget costs: five percent of the score."""


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """A measured value beside its limit."""

    name: str
    value: float
    limit: float

    @property
    def amount(self) -> float:
        """How far beyond the limit, relative to it; 0 or less when it is kept, absolute for a limit of 0."""
        return self.value / self.limit - 1 if self.limit > 0 else self.value

    def __str__(self) -> str:
        if self.name == "peak_bytes":
            return f"peak memory of {self.value:,.0f} bytes is above the limit of {self.limit:,.0f}"
        what = self.name.replace("_", " ")
        return f"{what} of {self.value:.3%} is above the limit of {self.limit:.3%}"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An outcome under a profile: ``score`` below 1 beats the reference, None when there is none."""

    feasible: bool
    score: float | None
    reasons: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = ()

    @property
    def amount(self) -> float:
        """Sum of what the broken constraints are broken by."""
        return sum(max(0.0, constraint.amount) for constraint in self.constraints)


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A configuration with its outcome and what that is worth."""

    settings: RuntimeSettings
    outcome: Outcome
    judged: Judged


def score(measured: Measured, workload: Workload, profile: Profile) -> float:
    """``effective_ms`` over the reference's, times 1 to 1.05 by the share of the drift budget that is used.

    Below 1 is better than the reference; the inverse is the effective speed-up. Raises ``ValueError`` when
    the measurement has other request shapes than the workload.
    """
    weights, calls = workload.weights, workload.calls_per_process
    own = effective_ms(measured.timings, weights, profile.sigma_weight, measured.start_ms, calls)
    reference = effective_ms(
        measured.reference_timings, weights, profile.sigma_weight, measured.reference_cold_start_ms, calls
    )
    ratio = own / reference if reference > 0 else math.inf
    return ratio * drift_factor(measured.accuracy.drift, profile)


def drift_factor(drift: float, profile: Profile) -> float:
    """What a drift multiplies a score by: 1 to 1.05 by the share of the budget that is used."""
    if not profile.drift_term or drift <= 0:
        return 1.0
    return 1 + DRIFT_SHARE * (min(1.0, drift / profile.drift_budget) if profile.drift_budget > 0 else 1.0)


def break_even_calls(measured: Measured, workload: Workload, profile: Profile) -> float | None:
    """Calls a process must make before this configuration costs less than the reference, start included.

    None when it is not faster once running. The drift factor is left out.
    """
    weights, sigma = workload.weights, profile.sigma_weight
    own = effective_ms(measured.timings, weights, sigma)
    reference = effective_ms(measured.reference_timings, weights, sigma)
    if own >= reference:
        return None
    return max(0.0, measured.start_ms - measured.reference_cold_start_ms) / (reference - own)


def constraints(
    measured: Measured, workload: Workload, profile: Profile, limits: Limits
) -> tuple[Constraint, ...]:
    """Every limit that applies, kept or not."""
    accuracy = measured.accuracy
    found = [
        Constraint(name="drift", value=accuracy.drift, limit=profile.drift_budget),
        Constraint(name="quantile_shift", value=accuracy.quantile_shift, limit=profile.quantile_limit),
    ]
    if limits.peak_bytes is not None:
        found.append(Constraint(name="peak_bytes", value=measured.peak_bytes, limit=limits.peak_bytes))
    if limits.deadline_ms is not None:
        missed = miss_probability(measured, workload, limits.deadline_ms)
        found.append(Constraint(name="deadline_misses", value=missed, limit=limits.deadline_miss_target))
    return tuple(found)


def miss_probability(measured: Measured, workload: Workload, deadline_ms: float) -> float:
    """Share of requests slower than ``deadline_ms``, from the raw calls, weighted over request shapes.

    A shape without raw calls counts as missing always when its 95th percentile does, else never.
    """
    total = 0.0
    for index, (timing, weight) in enumerate(zip(measured.timings, workload.weights, strict=True)):
        blocks = measured.blocks[index] if index < len(measured.blocks) else ()
        calls = [call for block in blocks for call in block]
        late = [call > deadline_ms for call in calls] or [timing.p95_ms > deadline_ms]
        total += weight * sum(late) / len(late)
    return total


def judge(outcome: Outcome, workload: Workload, profile: Profile, limits: Limits) -> Judged:
    """What ``outcome`` is worth; a failed trial and a measurement that is not finite have no score."""
    if isinstance(outcome, Failed):
        return Judged(feasible=False, score=None, reasons=(str(outcome),))
    value = score(outcome, workload, profile)
    kept = constraints(outcome, workload, profile, limits)
    if not all(map(math.isfinite, (value, *(constraint.amount for constraint in kept)))):
        return Judged(feasible=False, score=None, reasons=("the measurement is not finite",))
    reasons = tuple(str(constraint) for constraint in kept if constraint.amount > 0)
    return Judged(feasible=not reasons, score=value, reasons=reasons, constraints=kept)


def rank(
    outcomes: Mapping[RuntimeSettings, Outcome],
    workload: Workload,
    profile: Profile,
    limits: Limits,
    *,
    reference: RuntimeSettings | None = None,
) -> tuple[Ranked, ...]:
    """Best first: feasible by score, then by how little a limit is broken, then failed ones.

    Equal scores go by complexity, simpler first. Under a profile that does not search only ``reference`` is
    feasible (uncompiled fp32 when it is not named).
    """
    ranked = []
    for settings, outcome in outcomes.items():
        judged = judge(outcome, workload, profile, limits)
        plain = not settings.compiled and settings.precision == "fp32"
        if not profile.searches and not (settings == reference if reference else plain):
            reason = f"profile {profile.name} runs the reference alone"
            judged = replace(judged, feasible=False, reasons=(*judged.reasons, reason))
        ranked.append(Ranked(settings=settings, outcome=outcome, judged=judged))
    return _best_first(ranked)


def _place(judged: Judged) -> tuple[int, float]:
    if judged.score is None:
        return 2, 0.0
    return (0, judged.score) if judged.feasible else (1, judged.amount)


def _best_first(ranked: Sequence[Ranked]) -> tuple[Ranked, ...]:
    places: dict[RuntimeSettings, tuple[int, float]] = {}
    first = -1, 0.0  # of those that count as equal
    for entry in sorted(ranked, key=lambda entry: _place(entry.judged)):
        group, value = _place(entry.judged)
        if group != first[0] or value - first[1] > TIE:
            first = group, value
        places[entry.settings] = first
    return tuple(sorted(ranked, key=lambda e: (places[e.settings], e.settings.complexity, e.settings.key)))
