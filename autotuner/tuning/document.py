"""What a run came to, and what is promoted, as the plain documents that commands print with ``--json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotuner.figures import Figures
from autotuner.measurement.outcome import Measured
from autotuner.search.profiles import Profile
from autotuner.search.scoring import Ranked, break_even_calls
from autotuner.sources.origin import provenance
from autotuner.workload import Workload
from toto_core.prices.options import EMBEDDED
from toto_core.settings import RuntimeSettings

if TYPE_CHECKING:  # these need optuna, scipy and SQLAlchemy, which most commands do not
    from autotuner.promotion.decision import Decision
    from autotuner.search.gain_model import LeftOpen
    from autotuner.search.search import SearchResult
    from autotuner.store import Promotion
    from autotuner.tuning.request import TuneRequest
    from toto_core.series import PriceSeries


def pay_offs(
    ranked: Iterable[Ranked], workload: Workload, profile: Profile
) -> list[tuple[RuntimeSettings, Measured, float]]:
    """What keeps its limits and beats the reference once running, and from how many calls of a process it pays."""
    return [
        (entry.settings, entry.outcome, calls)
        for entry in ranked
        if entry.judged.feasible and isinstance(entry.outcome, Measured)
        if (calls := break_even_calls(entry.outcome, workload, profile)) is not None
    ]


def fastest_once_running(study: SearchResult, workload: Workload, profile: Profile) -> dict[str, Any] | None:
    """What keeps its limits with the least time a request once started, and from how many calls it pays.

    None when nothing beats the reference once running. Search figures: they rank and promise nothing.
    """
    found = pay_offs(study.ranked, workload, profile)
    if not found:
        return None
    settings, measured, calls = max(found, key=lambda each: each[1].ratio.low)
    return {
        "settings": settings.to_dict(),
        "ratio": dataclasses.asdict(measured.ratio),
        "start_ms": measured.start_ms,
        "break_even_calls": round(calls),
    }


def series_document(series: PriceSeries) -> dict[str, Any]:
    """Where prices came from, how many there are, and what was repaired, left out or noticed."""
    origin = None if series.source == EMBEDDED else provenance(Path(series.source))
    return {
        "source": series.source,
        **({} if origin is None else {"fetched": origin}),
        "points": len(series),
        "last": f"{series.timestamps[-1].astype('datetime64[s]')}Z",
        "repairs": list(series.repairs),
    }


def run_document(
    *,
    request: TuneRequest,
    decision: Decision,
    figures: Figures,
    study: SearchResult,
    distinct_keys: int,
    run_id: str,
    series: PriceSeries,
    engine: str,
    selftest: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything a run came to, in plain values."""
    profile, workload = request.profile, request.workload
    return {
        **_what_runs(request.symbol, profile.name, workload, decision.settings, figures),
        "engine": engine,
        "series": series_document(series),
        "trials": {
            "total": study.total,
            "measured": study.measured,
            "failed": dict(study.failed),
            "reused": study.reused,
            "distinct_keys": distinct_keys,
            "ended_because": study.ended_because,
        },
        "left_open": _left_open(study.left_open),
        "decision": {"verdict": decision.verdict, "reason": decision.reason},
        "promoted": decision.promoted,
        "fastest_once_running": fastest_once_running(study, workload, profile),
        "selftest": selftest,
        "run_id": run_id,
    }


def _left_open(still_open: LeftOpen | None) -> dict[str, Any] | None:
    """What was not tried, and the seconds of a further run that would tell whether it is better."""
    if still_open is None:
        return None
    from autotuner.tuning.budget import seconds_to_settle

    return {
        "configurations": still_open.configurations,
        "likeliest": still_open.likeliest.to_dict(),
        "chance": still_open.chance,
        "timeout": seconds_to_settle(still_open),
    }


def promotion_document(promotion: Promotion, *, source: str) -> dict[str, Any]:
    """A stored promotion in the same form, with ``source`` and ``since``."""
    return {
        **_what_runs(
            promotion.symbol, promotion.profile, promotion.workload, promotion.settings, promotion.figures
        ),
        "engine": promotion.environment.engine,
        "decision": {"verdict": promotion.verdict, "reason": promotion.reason},
        "promoted": promotion.rolled_back_at is None,
        "run_id": promotion.run_id,
        "source": source,
        "since": promotion.promoted_at.isoformat(),
    }


def _what_runs(
    symbol: str, profile: str, workload: Workload, settings: RuntimeSettings, figures: Figures
) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "profile": profile,
        "model": workload.model,
        "workload": workload.to_dict() | {"signature": workload.signature},
        "settings": settings.to_dict(),
        **figures.to_dict(),
    }
