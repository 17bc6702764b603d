"""What a tick confirms or takes back in the ledger: trials that are over, and settings that regressed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from autotuner.daemon.situation import Observed
from autotuner.daemon.triggers import Kind, LiveWindow, Reason
from autotuner.store import Promotion, Store

Verdict = Literal["wait", "confirm", "roll back"]


@dataclass(frozen=True, kw_only=True)
class CanaryRules:
    """A trial is judged on ``windows`` of each side, of ``fewest_calls`` each; ``slower`` is what is too slow."""

    windows: int = 5
    fewest_calls: int = 20
    slower: float = 1.05


@dataclass(frozen=True, kw_only=True)
class TrialVerdict:
    """The verdict and what it rests on, in one line."""

    verdict: Verdict
    text: str


def judge(
    new: Sequence[LiveWindow], old: Sequence[LiveWindow], rules: CanaryRules | None = None
) -> TrialVerdict:
    """*roll back* when calls take longer under the new settings than before, *confirm* when they do not.

    Medians over windows of each window's p50, so that a few bad minutes decide nothing; and of the p99, where
    twice as long is too slow. *wait* until both sides have been seen enough.
    """
    rules = rules or CanaryRules()
    ours, theirs = ([w for w in side if w.calls >= rules.fewest_calls] for side in (new, old))
    if min(len(ours), len(theirs)) < rules.windows:
        return TrialVerdict(
            verdict="wait", text=f"{len(ours)} and {len(theirs)} of {rules.windows} windows each were seen"
        )
    p50 = _ratio([w.p50_ms for w in ours], [w.p50_ms for w in theirs])
    p99 = _ratio([w.p99_ms for w in ours], [w.p99_ms for w in theirs])
    text = f"p50 {p50:.2f} and p99 {p99:.2f} times that of the settings before, over {len(ours)} windows"
    slow = p50 > rules.slower or p99 > 2.0
    return TrialVerdict(verdict="roll back" if slow else "confirm", text=text)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return math.exp(statistics.median(map(math.log, ours)) - statistics.median(map(math.log, theirs)))


PROBATION = timedelta(days=1)
"""How long after its promotion a regression is blamed on the new settings rather than on the world."""
UNSAFE: tuple[Kind, ...] = ("quarantine", "drift")
"""Triggers that say the settings themselves are unsafe, whenever they were promoted."""


def why_roll_back(
    promotion: Promotion, reasons: Sequence[Reason], *, now: datetime, has_previous: bool
) -> str | None:
    """Why ``promotion`` is taken out of use, None when it stays.

    Settings that fail in production, or whose forecasts broke a limit on fresh prices, always go: what is left is
    the promotion before them, or the safe default.
    Latency past the promise and recompiles take back what is still on probation and has a predecessor;
    afterwards they are reasons to tune, because the predecessor is no better known.
    """
    for reason in reasons:
        if reason.kind in UNSAFE:
            return reason.text
        on_probation = now - promotion.promoted_at < PROBATION
        if reason.kind in ("latency", "recompiles") and on_probation and has_previous:
            return reason.text
    return None


Log = Callable[..., None]


def settle_trial(store: Store, observed: Observed, now: datetime, log: Log) -> bool:
    """Confirm or take back a promotion that only a share of the processes has; whether that was done."""
    promotion = observed.situation.promotion
    if promotion is None or promotion.figures.canary is None:
        return False
    found = judge(observed.situation.windows, observed.windows_before)
    if found.verdict == "wait":
        return False
    log("trial", symbol=observed.symbol, verdict=found.verdict, reason=found.text)
    if found.verdict == "roll back":
        _roll_back(store, promotion, found.text, now)
        return True
    reason = f"stood its trial in production: {found.text}"
    store.promote(
        replace(
            promotion,
            figures=replace(promotion.figures, canary=None),
            verdict="confirmed",
            reason=reason,
            promoted_at=now,
            kind="select",
            id=None,
            run_id=None,
        )
    )
    return True


def take_back(store: Store, observed: Observed, reasons: Sequence[Reason], now: datetime, log: Log) -> bool:
    """Take an unsafe or regressed promotion out of use, if ``reasons`` ask for it; whether that was done."""
    promotion = observed.situation.promotion
    if promotion is None or promotion.id is None:
        return False
    why = why_roll_back(promotion, reasons, now=now, has_previous=_has_previous(store, promotion))
    if why is None:
        return False
    _roll_back(store, promotion, why, now)
    log("rolled_back", symbol=observed.symbol, settings=promotion.settings.label, reason=why)
    return True


def _roll_back(store: Store, promotion: Promotion, why: str, now: datetime) -> None:
    # Settings that stood a trial have two lines in the ledger: what is unsafe must not come back by the other one.
    same = True
    while same:
        _, active = store.records.roll_back(
            promotion.symbol,
            why,
            now,
            profile=promotion.profile,
            workload_signature=promotion.workload.signature,
            environment_fingerprint=promotion.environment.fingerprint,
        )
        same = active is not None and active.settings_key == promotion.settings.key
    store.publish()


def _has_previous(store: Store, promotion: Promotion) -> bool:
    """Whether there is something to go back to that was not left because production was slow under it."""
    if "latency" in promotion.figures.triggers:
        return False
    earlier = store.records.promotions(promotion.symbol)
    return any(record.rolled_back_at is None and record.id != promotion.id for record in earlier)
