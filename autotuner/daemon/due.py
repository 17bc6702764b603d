"""Whether a symbol is due by what the store alone says: its promotion, and the runs that confirmed it since."""

from __future__ import annotations

from datetime import datetime

from autotuner.daemon.triggers import Situation, reasons
from autotuner.identity import Environment
from autotuner.persistence import Promotion, Store


def why_due(store: Store, symbol: str, *, environment: Environment, now: datetime) -> str | None:
    """Why ``symbol`` is to be tuned, in a few words, None when it is not: what `autotune run --due` asks.

    Raises ``StorageError`` and ``AutotuneError`` of the store.
    """
    promotion = store.active(symbol)
    tuned_at = None if promotion is None else max(confirmations(store, promotion), default=None)
    situation = Situation(promotion=promotion, environment=environment, now=now, tuned_at=tuned_at)
    found = reasons(situation)
    return found[0].text if found else None


def confirmations(store: Store, promotion: Promotion) -> tuple[datetime, ...]:
    """When runs ended that left ``promotion`` in place, since it or a roll-back to it made it active."""
    ledger = store.records.promotions(promotion.symbol)
    rolled_back = (record.rolled_back_at for record in ledger if record.rolled_back_at is not None)
    since = max((promotion.promoted_at, *rolled_back))
    return tuple(
        run.finished_at
        for run in store.records.runs(promotion.symbol)
        if run.status == "finished"
        and run.finished_at is not None
        and run.finished_at > since
        and run.run_id != promotion.run_id
        and run.profile == promotion.profile
        and run.workload_signature == promotion.workload.signature
        and run.environment_fingerprint == promotion.environment.fingerprint
    )
