"""Profiles (what one kind of user wants) and the limits that come from the machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from autotuner.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What one kind of user wants.

    ``sigma_weight`` is what a millisecond of jitter weighs against one of latency, ``drift_budget`` a share
    of the reference's MAE, ``quantile_limit`` a share of the reference's own 10-90 % spread. ``searches``
    False means the reference itself; ``drift_term`` False leaves the drift out of the score, not out of the
    limits. Raises ``UsageError`` for a negative number.
    """

    name: str
    sigma_weight: float
    drift_budget: float
    quantile_limit: float
    searches: bool = True
    drift_term: bool = True

    def __post_init__(self) -> None:
        for name in ("sigma_weight", "drift_budget", "quantile_limit"):
            if not getattr(self, name) >= 0:
                raise UsageError(
                    f"profile {self.name}: {name} must be 0 or more, not {getattr(self, name)!r}"
                )


PROFILES: Mapping[str, Profile] = {
    entry.name: entry
    for entry in (
        Profile(name="production", sigma_weight=0.05, drift_budget=0.01, quantile_limit=0.05),
        Profile(name="accuracy", sigma_weight=0.75, drift_budget=0.001, quantile_limit=0.01),
        Profile(name="throughput", sigma_weight=0.0, drift_budget=0.05, quantile_limit=0.10),
        Profile(name="research", sigma_weight=0.0, drift_budget=0.0, quantile_limit=0.0, searches=False),
    )
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that come from the machine and its user rather than from a profile; None for no limit."""

    peak_bytes: int | None = None
    deadline_ms: float | None = None
    deadline_miss_target: float = 0.01

    def __post_init__(self) -> None:
        for name, limit in (("peak_bytes", self.peak_bytes), ("deadline_ms", self.deadline_ms)):
            if limit is not None and not limit > 0:
                raise UsageError(f"limits: {name} must be above 0, not {limit!r}")
        if not 0 <= self.deadline_miss_target < 1:
            raise UsageError(
                f"limits: deadline_miss_target must be from 0 to below 1, not {self.deadline_miss_target!r}"
            )


def profile(name: str) -> Profile:
    """The profile called ``name``. Raises ``UsageError`` that lists the names."""
    try:
        return PROFILES[name]
    except KeyError:
        raise UsageError(f"no profile {name!r}; choose one of {', '.join(PROFILES)}") from None


def seed_profile(base: Profile) -> Profile:
    """``base`` for tables measured without common noise, whose drift is mostly sampling noise.

    Budget 5 % of the price level, no drift term in the score, no limit on the quantile shift.
    """
    return replace(base, drift_budget=0.05, drift_term=False, quantile_limit=math.inf)
