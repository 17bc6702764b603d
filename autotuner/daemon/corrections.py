"""What a tick confirms or takes back in the ledger: trials that are over, and settings that regressed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from autotuner.daemon.canary import judge
from autotuner.daemon.observing import Observed
from autotuner.daemon.probation import why_roll_back
from autotuner.daemon.triggers import PAST_PROMISE, Reason
from autotuner.persistence import Promotion, Store
from autotuner.serving.canary import FIELD, on_trial

Log = Callable[..., None]


def settle_trial(store: Store, observed: Observed, now: datetime, log: Log) -> bool:
    """Confirm or take back a promotion that only a share of the processes has; whether that was done."""
    promotion = observed.situation.promotion
    before = None if promotion is None else on_trial(promotion.evidence)
    if promotion is None or before is None:
        return False
    found = judge(observed.situation.windows, observed.windows_before)
    if found.verdict == "wait":
        return False
    log("trial", symbol=observed.symbol, verdict=found.verdict, reason=found.text)
    if found.verdict == "roll back":
        _roll_back(store, promotion, found.text, now)
        return True
    kept = {name: value for name, value in promotion.evidence.items() if name != FIELD}
    reason = f"stood its trial in production: {found.text}"
    store.promote(
        replace(
            promotion,
            evidence=kept,
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
    because = promotion.evidence.get("because")
    if because is not None and PAST_PROMISE in because:
        return False
    earlier = store.records.promotions(promotion.symbol)
    return any(record.rolled_back_at is None and record.id != promotion.id for record in earlier)
