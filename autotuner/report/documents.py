"""What the store holds and what a lookup answers, as the plain documents that commands print."""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from autotuner.errors import AutotuneError
from autotuner.figures import FiguresError, figures_from_json
from autotuner.record_mapping import stored_of
from autotuner.serving.lookup import Resolution
from autotuner.tuning.document import promotion_document
from storage.records import PinRecord, PromotionRecord, RunRecord, UnpinRecord

if TYPE_CHECKING:
    from autotuner.store import Promotion, Store

_AS_STORED = ("id", "run_id", "symbol", "profile", "kind", "verdict", "reason", "rolled_back_reason")


def active_document(promotion: Promotion, pin: PinRecord | None) -> dict[str, Any]:
    """A promotion with its symbol's pin under ``pinned``, None for none."""
    document = promotion_document(promotion, source="promotion")
    return document | {"pinned": None if pin is None else pin_document(pin)}


def stored_document(store: Store, record: PromotionRecord, pin: PinRecord | None) -> dict[str, Any]:
    """The document of a promotion; one that cannot be read says so under ``error`` and hides no other symbol."""
    try:
        with stored_of(record.symbol):
            return active_document(store.read(record), pin)
    except AutotuneError as error:
        return {"symbol": record.symbol, "error": " ".join(str(error).split())}


def brief_document(store: Store, record: PromotionRecord, pin: PinRecord | None) -> dict[str, Any]:
    """What a listing shows of a promotion, with its settings as they are: thousands are read for one listing."""
    try:
        promotion = store.read(record)
    except AutotuneError as error:
        return {"symbol": record.symbol, "error": " ".join(str(error).split())}
    ratio = promotion.figures.ratio
    return {
        "symbol": record.symbol,
        "profile": promotion.profile,
        "settings": promotion.settings,
        "ratio": None if ratio is None else vars(ratio),
        "p50_ms": promotion.figures.p50_ms,
        "since": promotion.promoted_at.isoformat(),
        "pinned": None if pin is None else pin_document(pin),
    }


def pinned_document(pin: PinRecord) -> dict[str, Any]:
    """A symbol that is pinned and was never promoted."""
    found = pin_document(pin)
    common = {"symbol": pin.symbol, "profile": None, "source": "pin", "since": found["since"]}
    return common | {"settings": found["settings"], "pinned": found}


def pin_document(pin: PinRecord) -> dict[str, Any]:
    """What a symbol is pinned to; settings that cannot be read are given as they are stored."""
    return {
        "settings": json.loads(pin.settings_json),
        "reason": pin.reason,
        "since": pin.pinned_at.isoformat(),
    }


def lookup_document(found: Resolution) -> dict[str, Any]:
    """What a lookup answers here, from where, and why each earlier step missed."""
    return {
        "settings": found.settings.to_dict(),
        "source": found.source,
        "since": found.since,
        "reasons": list(found.reasons),
    }


def differs(found: Resolution, promotion: Promotion) -> bool:
    """Whether a lookup answers anything else than the promotion."""
    return found.source != "promotion" or found.settings != promotion.settings


def history(
    promotions: Sequence[PromotionRecord],
    pins: Iterable[PinRecord | UnpinRecord],
    runs: Iterable[RunRecord],
) -> list[dict[str, Any]]:
    """Promotions, pins and the runs that promoted nothing, oldest first."""
    promoted = {promotion.run_id for promotion in promotions}
    events = [(promotion.promoted_at, promotion_event(promotion)) for promotion in promotions]
    events += [(pin.pinned_at, _pin_event(pin)) for pin in pins]
    events += [(run.started_at, _run_event(run)) for run in runs if run.run_id not in promoted]
    return [event for _, event in sorted(events, key=operator.itemgetter(0))]


def promotion_event(promotion: PromotionRecord) -> dict[str, Any]:
    """One line of the ledger; its settings are as they are stored, readable or not."""
    return {name: getattr(promotion, name) for name in _AS_STORED} | {
        "event": "promotion",
        "at": promotion.promoted_at.isoformat(),
        "settings": json.loads(promotion.settings_json),
        "ratio": _ratio(promotion.evidence_json),
        "workload": promotion.workload_signature,
        "environment": promotion.environment_fingerprint,
        "rolled_back_at": promotion.rolled_back_at and promotion.rolled_back_at.isoformat(),
    }


def _ratio(evidence_json: str) -> dict[str, float] | None:
    """The stored ratio, None where none is stored and where the figures cannot be read."""
    try:
        ratio = figures_from_json(evidence_json).ratio
    except FiguresError:
        return None
    return None if ratio is None else dataclasses.asdict(ratio)


def _pin_event(pin: PinRecord | UnpinRecord) -> dict[str, Any]:
    return {
        "event": "pinned" if isinstance(pin, PinRecord) else "unpinned",
        "at": pin.pinned_at.isoformat(),
        "symbol": pin.symbol,
        "reason": pin.reason,
        "settings": json.loads(pin.settings_json) if isinstance(pin, PinRecord) else None,
    }


def _run_event(run: RunRecord) -> dict[str, Any]:
    summary = json.loads(run.summary_json) if run.summary_json else None
    fields = summary if isinstance(summary, dict) else {}
    decision = fields.get("decision")
    decided = decision if isinstance(decision, dict) else {}
    return {name: getattr(run, name) for name in ("run_id", "symbol", "profile", "status")} | {
        "event": "run",
        "at": run.started_at.isoformat(),
        "finished_at": run.finished_at and run.finished_at.isoformat(),
        "verdict": decided.get("verdict"),
        "reason": decided.get("reason") or "",
        "settings": fields.get("settings"),
    }
