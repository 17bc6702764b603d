"""Why a symbol should be tuned again: pure decisions, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from autotuner.environment import Environment
from autotuner.serving.failures import NOTHING_FAILED, Failures
from autotuner.store import Promotion

Kind = Literal[
    "quarantine",
    "environment",
    "never tuned",
    "drift",
    "recompiles",
    "latency",
    "model",
    "workload",
    "series",
    "age",
]
"""Kinds of triggers: what may be unsafe first, what is merely old last."""
MAXIMUM_AGE = timedelta(days=7)
FEWEST_CALLS = 20
"""A window of fewer calls does not count."""
SLACK, SHIFT_AT, MOST_OF_A_WINDOW = 1.10, 0.6, 0.2
"""Latency has shifted when the windows' excess over ``SLACK`` times the promise sums to ``SHIFT_AT``, in logarithms.

One window adds ``MOST_OF_A_WINDOW`` at most, so that no single bad minute is a shift: a CUSUM (Page 1954), bounded.
"""
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a symbol is due: the kind of trigger, and what was seen in one line.

    ``proven`` is False for what a single source says, which is enough to tune and not to take anything back.
    """

    kind: Kind
    text: str
    proven: bool = True


@dataclass(frozen=True, kw_only=True)
class LiveWindow:
    """What production saw of the promoted settings in one stretch of calls; times in milliseconds."""

    calls: int
    p50_ms: float
    p99_ms: float
    recompiles: int = 0
    limit_hits: int = 0
    eager_calls: int = 0


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Everything the triggers read; None and empty for what is not known.

    ``tuned_at`` is when a run last confirmed the promotion by finding nothing better.
    ``promised_p50_ms`` and ``promised_p99_ms`` are the upper ends of what was promoted. ``model_changed`` and
    ``workload_shifted`` say in a few words what changed. ``bucket`` and ``promoted_bucket`` are powers of two
    that the length of the series has reached. ``windows`` are of the promoted settings since the promotion,
    oldest first; ``failures`` what production noted since then. ``broken`` are the accuracy limits that did not
    hold on fresh prices.
    """

    promotion: Promotion | None
    environment: Environment
    now: datetime
    tuned_at: datetime | None = None
    promised_p50_ms: float | None = None
    promised_p99_ms: float | None = None
    model_changed: str | None = None
    workload_shifted: str | None = None
    bucket: int | None = None
    promoted_bucket: int | None = None
    windows: Sequence[LiveWindow] = ()
    failures: Failures = NOTHING_FAILED
    broken: Sequence[str] = ()


def reasons(situation: Situation, maximum_age: timedelta = MAXIMUM_AGE) -> tuple[Reason, ...]:
    """Every reason to tune; none when the symbol may stay as it is."""
    promotion = situation.promotion
    if promotion is None:
        return (Reason(kind="never tuned", text="never tuned"),)
    texts = {kind: check(situation) for kind, check in _CHECKS.items()}
    age = situation.now - max(promotion.promoted_at, situation.tuned_at or promotion.promoted_at)
    texts["age"] = f"last tuned {age.days} days ago" if age >= maximum_age else None
    proven = situation.failures.proven
    return tuple(
        Reason(kind=kind, text=text, proven=proven or kind != "quarantine")
        for kind, text in texts.items()
        if text is not None
    )


def shifted(ratios: Sequence[float]) -> bool:
    """Whether ``ratios`` (live over promised, oldest first) amount to a shift that still lasts."""
    total = 0.0
    for ratio in ratios:
        excess = math.log(ratio / SLACK) if ratio > 0 else 0.0
        # Bounded above as well: what has passed is forgotten within as many windows as it took to be seen.
        total = min(SHIFT_AT, max(0.0, total + min(MOST_OF_A_WINDOW, excess)))
    return total >= SHIFT_AT - _ROUNDING


def _environment(situation: Situation) -> str | None:
    if situation.promotion is None:
        return None
    differences = situation.environment.differences(situation.promotion.environment)
    return f"the environment changed ({'; '.join(differences)})" if differences else None


def _quarantine(situation: Situation) -> str | None:
    found, tuned_at = situation.failures, situation.tuned_at
    if found.newest is None or not (found.proven or tuned_at is None or found.newest > tuned_at):
        return None  # nothing failed, or a run has since looked at what one process alone said
    waits = f" ({found.waits_for})" if found.waits_for else ""
    return f"its settings failed in production {len(found.reasons)} times: {found.reasons[-1]}{waits}"


def _recompiles(situation: Situation) -> str | None:
    names = "recompiles", "limit_hits", "eager_calls"
    recompiles, hits, eager = (sum(getattr(each, name) for each in situation.windows) for name in names)
    if not (hits or recompiles or eager):
        return None
    return f"production saw {recompiles} recompiles, {hits} limit hits and {eager} eager calls"


def _latency(situation: Situation) -> str | None:
    counted = [window for window in situation.windows if window.calls >= FEWEST_CALLS]
    for name, promised, seen in (
        ("p50", situation.promised_p50_ms, [window.p50_ms for window in counted]),
        ("p99", situation.promised_p99_ms, [window.p99_ms for window in counted]),
    ):
        if promised and promised > 0 and shifted([each / promised for each in seen]):
            return f"live {name} of {seen[-1]:.3g} ms is past the promised {promised:.3g} ms"
    return None


def _series(situation: Situation) -> str | None:
    before, now = situation.promoted_bucket, situation.bucket
    if before is None or now is None or now <= before:
        return None
    return f"the series grew past {now:,} points (from {before:,})"


_CHECKS: dict[Kind, Callable[[Situation], str | None]] = {
    "environment": _environment,
    "quarantine": _quarantine,
    "recompiles": _recompiles,
    "latency": _latency,
    "drift": lambda s: f"on fresh prices: {'; '.join(s.broken)}" if s.broken else None,
    "model": lambda s: f"the model changed ({s.model_changed})" if s.model_changed else None,
    "series": _series,
    "workload": lambda s: f"the workload shifted ({s.workload_shifted})" if s.workload_shifted else None,
}
