"""Why a symbol should be tuned again: pure decisions, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from autotuner.environment import Environment
from autotuner.store import Promotion

Kind = Literal[
    "never tuned",
    "environment",
    "quarantine",
    "recompiles",
    "latency",
    "drift",
    "model",
    "series",
    "workload",
    "age",
]
MAXIMUM_AGE = timedelta(days=7)
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a symbol is due: the kind of trigger, and what was seen in one line."""

    kind: Kind
    text: str


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
    """Everything the triggers look at; None and empty for what is not known.

    ``tuned_at`` is when a run last confirmed the promotion by finding nothing better.
    ``promised_p50_ms`` and ``promised_p99_ms`` are the upper ends of what was promoted. ``model_changed`` and
    ``workload_shifted`` say in a few words what changed. ``bucket`` and ``promoted_bucket`` are powers of two
    that the length of the series has reached. ``windows`` are of the promoted settings since the promotion,
    oldest first; ``quarantines`` the causes noted since then. ``broken`` are the accuracy limits that did not hold
    on fresh prices.
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
    quarantines: Sequence[str] = ()
    broken: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Rules:
    """From when on something is a reason.

    A window counts from ``fewest_calls`` on. Latency has shifted when the windows' excess over ``slack`` times
    the promise sums to ``evidence`` on the log scale; one window adds ``most_of_one`` at most, so that no
    single bad minute is a shift (a CUSUM, Page 1954, with bounded steps).
    """

    maximum_age: timedelta = MAXIMUM_AGE
    fewest_calls: int = 20
    slack: float = 1.10
    evidence: float = 0.6
    most_of_one: float = 0.2


def reasons(situation: Situation, rules: Rules = Rules()) -> tuple[Reason, ...]:
    """Every reason to tune, the most pressing first; none when the symbol may stay as it is."""
    if situation.promotion is None:
        return (Reason(kind="never tuned", text="never tuned"),)
    found = (check(situation, rules) for check in _CHECKS)
    return tuple(reason for reason in found if reason is not None)


def shifted(ratios: Sequence[float], rules: Rules) -> bool:
    """Whether ``ratios`` (live over promised, oldest first) amount to a shift that still lasts."""
    total = 0.0
    for ratio in ratios:
        excess = math.log(ratio / rules.slack) if ratio > 0 else 0.0
        # Bounded above as well: what has passed is forgotten within as many windows as it took to be seen.
        total = min(rules.evidence, max(0.0, total + min(rules.most_of_one, excess)))
    return total >= rules.evidence - _ROUNDING


def _environment(situation: Situation, _: Rules) -> Reason | None:
    if situation.promotion is None:
        return None
    differences = situation.environment.differences(situation.promotion.environment)
    if not differences:
        return None
    return Reason(kind="environment", text=f"the environment changed ({'; '.join(differences)})")


def _quarantine(situation: Situation, _: Rules) -> Reason | None:
    if not situation.quarantines:
        return None
    text = (
        f"its settings failed in production {len(situation.quarantines)} times: {situation.quarantines[-1]}"
    )
    return Reason(kind="quarantine", text=text)


def _recompiles(situation: Situation, _: Rules) -> Reason | None:
    hits = sum(window.limit_hits for window in situation.windows)
    recompiles = sum(window.recompiles for window in situation.windows)
    eager = sum(window.eager_calls for window in situation.windows)
    if not (hits or recompiles or eager):
        return None
    text = f"production saw {recompiles} recompiles, {hits} limit hits and {eager} eager calls"
    return Reason(kind="recompiles", text=text)


def _latency(situation: Situation, rules: Rules) -> Reason | None:
    counted = [window for window in situation.windows if window.calls >= rules.fewest_calls]
    for name, promised, seen in (
        ("p50", situation.promised_p50_ms, [window.p50_ms for window in counted]),
        ("p99", situation.promised_p99_ms, [window.p99_ms for window in counted]),
    ):
        if promised is None or not promised > 0:
            continue
        if shifted([each / promised for each in seen], rules):
            text = f"live {name} of {seen[-1]:.3g} ms is past the promised {promised:.3g} ms"
            return Reason(kind="latency", text=text)
    return None


def _drift(situation: Situation, _: Rules) -> Reason | None:
    if not situation.broken:
        return None
    return Reason(kind="drift", text=f"on fresh prices: {'; '.join(situation.broken)}")


def _model(situation: Situation, _: Rules) -> Reason | None:
    if situation.model_changed is None:
        return None
    return Reason(kind="model", text=f"the model changed ({situation.model_changed})")


def _series(situation: Situation, _: Rules) -> Reason | None:
    before, now = situation.promoted_bucket, situation.bucket
    if before is None or now is None or now <= before:
        return None
    return Reason(kind="series", text=f"the series grew past {now:,} points (from {before:,})")


def _workload(situation: Situation, _: Rules) -> Reason | None:
    if situation.workload_shifted is None:
        return None
    return Reason(kind="workload", text=f"the workload shifted ({situation.workload_shifted})")


def _age(situation: Situation, rules: Rules) -> Reason | None:
    if situation.promotion is None:
        return None
    age = situation.now - max(
        situation.promotion.promoted_at, situation.tuned_at or situation.promotion.promoted_at
    )
    return Reason(kind="age", text=f"last tuned {age.days} days ago") if age >= rules.maximum_age else None


_CHECKS: tuple[Callable[[Situation, Rules], Reason | None], ...] = (
    _environment,
    _quarantine,
    _recompiles,
    _latency,
    _drift,
    _model,
    _series,
    _workload,
    _age,
)
