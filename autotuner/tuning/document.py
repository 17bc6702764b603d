"""What a run came to, and what is promoted, as the plain documents that commands print with ``--json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autotuner.figures import Figures
from autotuner.measurement.outcome import Measured
from autotuner.search.profiles import Profile
from autotuner.search.scoring import break_even_calls
from autotuner.workload import Workload

if TYPE_CHECKING:  # these need optuna, scipy and SQLAlchemy, which most commands do not
    from autotuner.promotion.decision import Decision
    from autotuner.search.search import StudyResult
    from autotuner.store import Promotion


def fastest_once_running(study: StudyResult, workload: Workload, profile: Profile) -> dict[str, Any] | None:
    """The feasible settings with the least time a request once started, and from how many calls they pay.

    None when nothing beats the reference once running. Search figures: they rank and promise nothing.
    """
    found = []
    for entry in study.ranked:
        if entry.judged.feasible and isinstance(entry.outcome, Measured):
            calls = break_even_calls(entry.outcome, workload, profile)
            if calls is not None:
                found.append((entry, entry.outcome, calls))
    if not found:
        return None
    entry, measured, calls = max(found, key=lambda each: each[1].ratio.low)
    return {
        "settings": entry.settings.to_dict(),
        "ratio": dataclasses.asdict(measured.ratio),
        "start_ms": measured.start_ms,
        "break_even_calls": round(calls),
    }


def run_document(
    *,
    symbol: str,
    profile: Profile,
    workload: Workload,
    decision: Decision,
    figures: Figures,
    study: StudyResult,
    distinct_keys: int,
    run_id: str,
    selftest: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything a run came to, in plain values; the fields are documented in the README."""
    failed = dict(study.failed)
    return {
        "symbol": symbol,
        "profile": profile.name,
        "model": workload.model,
        "workload": workload.to_dict() | {"signature": workload.signature},
        "settings": decision.settings.to_dict(),
        **figures.to_dict(),
        "trials": {
            "total": study.total,
            "measured": study.measured,
            "failed": failed,
            "reused": study.reused,
            "distinct_keys": distinct_keys,
            "ended_because": study.ended_because,
        },
        "decision": {"verdict": decision.verdict, "reason": decision.reason},
        "promoted": decision.promoted,
        "fastest_once_running": fastest_once_running(study, workload, profile),
        "selftest": selftest,
        "run_id": run_id,
    }


def promotion_document(promotion: Promotion, *, source: str) -> dict[str, Any]:
    """A stored promotion in the same form, with ``source`` and ``since``."""
    return {
        "symbol": promotion.symbol,
        "profile": promotion.profile,
        "model": promotion.workload.model,
        "workload": promotion.workload.to_dict() | {"signature": promotion.workload.signature},
        "settings": promotion.settings.to_dict(),
        **promotion.figures.to_dict(),
        "decision": {"verdict": promotion.verdict, "reason": promotion.reason},
        "promoted": promotion.rolled_back_at is None,
        "run_id": promotion.run_id,
        "source": source,
        "since": promotion.promoted_at.isoformat(),
    }
