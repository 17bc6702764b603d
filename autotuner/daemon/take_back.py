"""What a tick confirms or takes back in the ledger: canaries that were seen enough, and what regressed."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from autotuner.daemon.intake import Log, say_once
from autotuner.daemon.situation import Observed, live_windows
from autotuner.daemon.triggers import FEWEST_CALLS, Kind, LiveWindow, Reason
from autotuner.store import Promotion, Store
from storage.errors import NotFound

Verdict = Literal["wait", "confirm", "roll back"]
CANARY_WINDOWS = 5
"""A canary is judged on so many windows of each side, of ``FEWEST_CALLS`` each."""
_P50_SLOWER, _P99_SLOWER = 1.05, 2.0
"""Times what it was before: too slow."""


@dataclass(frozen=True, kw_only=True)
class CanaryVerdict:
    """The verdict and what it rests on, in one line."""

    verdict: Verdict
    text: str


def judge(new: Sequence[LiveWindow], old: Sequence[LiveWindow]) -> CanaryVerdict:
    """*roll back* when calls take longer under the canary than before, *confirm* when they do not.

    Medians over windows of each window's p50, so that a few bad minutes decide nothing; and of the p99, where
    twice as long is too slow. *wait* until both sides have been seen enough.
    """
    ours, theirs = ([w for w in side if w.calls >= FEWEST_CALLS] for side in (new, old))
    if min(len(ours), len(theirs)) < CANARY_WINDOWS:
        seen = f"{len(ours)} and {len(theirs)} of {CANARY_WINDOWS} windows each were seen"
        return CanaryVerdict(verdict="wait", text=seen)
    p50, p99 = (_ratio(ours, theirs, name) for name in ("p50_ms", "p99_ms"))
    text = f"p50 {p50:.2f} and p99 {p99:.2f} times that of the configuration before, over {len(ours)} windows"
    slow = p50 > _P50_SLOWER or p99 > _P99_SLOWER
    return CanaryVerdict(verdict="roll back" if slow else "confirm", text=text)


def _ratio(ours: Sequence[LiveWindow], theirs: Sequence[LiveWindow], name: str) -> float:
    mine, before = (statistics.median(math.log(getattr(w, name)) for w in side) for side in (ours, theirs))
    return math.exp(mine - before)


PROBATION = timedelta(days=1)
"""How long after its promotion a regression is blamed on what was promoted rather than on the world."""
UNSAFE: tuple[Kind, ...] = ("quarantine", "drift")
"""Triggers that say that the configuration itself is unsafe, whenever it was promoted."""

ASKING: tuple[Kind, ...] = (*UNSAFE, "latency", "recompiles")
"""Triggers for which a promotion may be taken out of use: the last two while it is on probation."""


def why_roll_back(
    promotion: Promotion, reasons: Sequence[Reason], *, now: datetime, has_previous: bool
) -> str | None:
    """Why ``promotion`` is taken out of use, None when it stays.

    What fails in production, as more than one source says, or breaks an accuracy limit on fresh prices, always goes:
    what is left is the promotion before it, or the safe default. Latency past the promise and recompiles take back
    what is still on probation and has a predecessor; afterwards they are reasons to tune, because the predecessor is
    no better known.
    """
    on_probation = has_previous and now - promotion.promoted_at < PROBATION
    asking = ASKING if on_probation else UNSAFE
    return next((reason.text for reason in reasons if reason.kind in asking and reason.proven), None)


def settle_canary(store: Store, observed: Observed, now: datetime, log: Log) -> bool:
    """Confirm or take back a promotion that only a share of the processes has; whether that was done."""
    promotion = observed.promotion
    if promotion is None or promotion.figures.canary is None:
        return False
    found = judge(observed.situation.windows, live_windows(observed.before))
    if found.verdict == "wait":
        return False
    if found.verdict == "roll back":
        if not _roll_back(store, promotion, found.text, now):
            return False
        log("canary", symbol=observed.symbol, verdict=found.verdict, reason=found.text)
        return True
    confirmed = replace(
        promotion,
        figures=replace(promotion.figures, canary=None),
        verdict="confirmed",
        reason=f"held as a canary in production: {found.text}",
        promoted_at=now,
        kind="select",
        id=None,
        run_id=None,
    )
    try:
        store.promote(confirmed, instead_of=promotion.id)
    except NotFound:  # something else was promoted since it was looked at
        return False
    log("canary", symbol=observed.symbol, verdict=found.verdict, reason=found.text)
    return True


def take_back(store: Store, observed: Observed, reasons: Sequence[Reason], now: datetime, log: Log) -> bool:
    """Take an unsafe or regressed promotion out of use, if ``reasons`` ask for it; whether that was done."""
    promotion = observed.promotion
    if promotion is None or promotion.id is None:
        return False
    why = why_roll_back(promotion, reasons, now=now, has_previous=_has_previous(store, promotion))
    if why is None:
        for reason in reasons:
            if not reason.proven:
                say_once(
                    log,
                    "unproven",
                    (observed.symbol, promotion.environment.fingerprint, reason.text),
                    symbol=observed.symbol,
                    reason=reason.text,
                )
        return False
    if not _roll_back(store, promotion, why, now):
        return False
    log("rolled_back", symbol=observed.symbol, settings=promotion.settings.label, reason=why)
    return True


def _roll_back(store: Store, promotion: Promotion, why: str, now: datetime) -> bool:
    """Whether it was taken back: not what another daemon or a person has made active since it was judged."""
    with contextlib.suppress(NotFound):
        # A confirmed canary has two lines in the ledger: what is unsafe must not come back by the other one.
        store.records.roll_back(
            reason=why,
            now=now,
            every_line=True,
            only=promotion.id,
            profile=promotion.profile,
            **promotion.keys,
        )
        return True
    return False


def _has_previous(store: Store, promotion: Promotion) -> bool:
    """Whether there is something to go back to that was not left because production was slow under it."""
    if "latency" in promotion.figures.triggers:
        return False
    wanted = promotion.profile, promotion.workload.signature, promotion.environment.fingerprint
    return any(
        record.rolled_back_at is None
        and record.settings_key != promotion.settings.key  # else it would go, too
        and (record.profile, record.workload_signature, record.environment_fingerprint) == wanted
        for record in store.records.promotions(promotion.symbol)
    )
