"""What is known of a symbol that speaks for or against tuning it: store, telemetry, prices and model, read once."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from autotuner.daemon.config import SymbolConfig
from autotuner.daemon.plan import Due
from autotuner.daemon.rechecks import rechecks_of
from autotuner.daemon.triggers import LiveWindow, Reason, Situation, reasons
from autotuner.environment import Environment
from autotuner.errors import AutotuneError
from autotuner.serving.telemetry import quantile_ms
from autotuner.store import Promotion, Store
from autotuner.workload import Workload
from storage.errors import NotFound
from storage.records import MEASURED, TelemetryRecord
from toto_core.model_files import CheckpointError, digest, locate
from toto_core.series import SeriesError, find_series
from toto_core.settings import RuntimeSettings

DAY = timedelta(days=1)
FOREIGN_SHARE = 0.2
"""Share of calls with another shape than the workload's from which on the mix has shifted."""
_FEWEST_CALLS = 100


@dataclass(frozen=True, kw_only=True)
class Observed:
    """A symbol's situation, what production calls a day, and when its last run ended.

    ``windows_before`` are those of the settings before, where the promotion is on trial. ``fruitless`` counts the
    runs since the promotion that changed nothing. ``unseen_since`` is
    set when prices are there that the settings were neither measured nor rechecked on, to when they were last.
    """

    symbol: str
    situation: Situation
    windows_before: Sequence[LiveWindow] = ()
    calls_per_day: float = 0.0
    excess_ms: float = 0.0
    last_ended: datetime | None = None
    fruitless: int = 0
    unseen_since: datetime | None = None

    def due(self, reasons: tuple[Reason, ...], *, seconds: float) -> Due:
        """The symbol with its reasons, for the plan."""
        return Due(
            symbol=self.symbol,
            reasons=reasons,
            calls_per_day=self.calls_per_day,
            excess_ms=self.excess_ms,
            last_ended=self.last_ended,
            fruitless=self.fruitless,
            seconds=seconds,
        )


def observe(
    store: Store, symbol: str, config: SymbolConfig, *, environment: Environment, now: datetime
) -> Observed:
    """Look at everything the triggers ask for. Raises ``StorageError`` and ``AutotuneError`` of the store."""
    promotion = store.active(symbol, config.profile)
    runs = [run for run in store.records.runs(symbol) if run.finished_at is not None]
    ended = max((run.finished_at for run in runs if run.finished_at is not None), default=None)
    if promotion is None:
        situation = Situation(promotion=None, environment=environment, now=now)
        return Observed(symbol=symbol, situation=situation, last_ended=ended)
    records = store.records.telemetry(symbol, since=promotion.promoted_at)
    notes = _notes(records, promotion, promotion.settings)
    windows = _windows(notes)
    on_trial = promotion.figures.canary
    promised = promotion.figures.promised_ms
    rechecks = rechecks_of(records, promotion)
    measured, present = _prices(store, symbol, config)
    found = [
        each for each in rechecks if present and each.series_digest == present.digest and not each.failed
    ]
    confirmed = confirmations(store, promotion)
    situation = Situation(
        promotion=promotion,
        environment=environment,
        now=now,
        tuned_at=max(confirmed, default=None),
        promised_p50_ms=promised[0],
        promised_p99_ms=promised[1],
        model_changed=_model_changed(store, symbol, promotion),
        workload_shifted=_shifted(notes, promotion.workload),
        bucket=_power(present),
        promoted_bucket=_power(measured),
        windows=windows,
        quarantines=[note["reason"] for note in notes if note["kind"] == "quarantine"],
        broken=found[-1].broken if found else (),
    )
    last_seen = rechecks[-1].begun if rechecks else promotion.promoted_at
    days = max((now - promotion.promoted_at) / DAY, 1 / 24)
    live = windows[-1].p50_ms if windows else 0.0
    return Observed(
        symbol=symbol,
        situation=situation,
        windows_before=() if on_trial is None else _windows(_notes(records, promotion, on_trial.previous)),
        calls_per_day=sum(window.calls for window in windows) / days,
        excess_ms=max(0.0, live - promised[0]) if promised[0] else 0.0,
        last_ended=ended,
        fruitless=len(confirmed),
        unseen_since=None if found or _measured_on(store, promotion, present) else last_seen,
    )


def _notes(
    records: Sequence[TelemetryRecord], promotion: Promotion, settings: RuntimeSettings
) -> list[dict[str, Any]]:
    found = [json.loads(record.payload_json) for record in records]
    key, fingerprint = settings.key, promotion.environment.fingerprint
    return [
        note
        for note in found
        if note.get("settings_key") == key and note.get("environment_fingerprint") == fingerprint
    ]


def _windows(notes: Sequence[Mapping[str, Any]]) -> list[LiveWindow]:
    return [_window(note) for note in notes if note["kind"] == "telemetry" and note["calls"] > 0]


def _window(note: Mapping[str, Any]) -> LiveWindow:
    return LiveWindow(
        calls=note["calls"],
        p50_ms=quantile_ms(note["buckets"], 0.5),
        p99_ms=quantile_ms(note["buckets"], 0.99),
        recompiles=note["recompiles"],
        limit_hits=note["limit_hits"],
        eager_calls=note["eager_calls"],
    )


def _model_changed(store: Store, symbol: str, promotion: Promotion) -> str | None:
    subject = store.measured_subject(symbol)
    if subject is None or subject.workload.signature != promotion.workload.signature:
        return None
    try:
        now = digest(locate(promotion.workload.model, revision=promotion.workload.revision))
    except CheckpointError:  # the run itself will say so
        return None
    return None if now == subject.model_digest else f"weights {subject.model_digest[:8]}, now {now[:8]}"


@dataclass(frozen=True, kw_only=True)
class _Prices:
    digest: str
    points: int


def _prices(store: Store, symbol: str, config: SymbolConfig) -> tuple[_Prices | None, _Prices | None]:
    """The prices that the symbol was measured on, and those that are there now; None for what is not known."""
    try:
        subject = store.measured_subject(symbol)
        if subject is None:
            return None, None
        measured, present = store.records.series(subject.series_digest), find_series(symbol, config.data)
    except (SeriesError, AutotuneError, NotFound):
        return None, None
    return (
        _Prices(digest=measured.digest, points=measured.points),
        _Prices(digest=present.digest, points=len(present)),
    )


def _measured_on(store: Store, promotion: Promotion, prices: _Prices | None) -> bool:
    """Whether a trial measured the promoted settings on these prices; true of prices that cannot be read."""
    return prices is None or any(
        (record.series_digest, record.settings_key, record.outcome)
        == (prices.digest, promotion.settings.key, MEASURED)
        for record in store.records.measurements(
            promotion.symbol,
            workload_signature=promotion.workload.signature,
            environment_fingerprint=promotion.environment.fingerprint,
            stage="search",
        )
    )


def _power(prices: _Prices | None) -> int | None:
    """The power of two that a series has reached."""
    return 1 << math.floor(math.log2(prices.points)) if prices and prices.points > 0 else None


def _shifted(notes: Sequence[Mapping[str, Any]], workload: Workload) -> str | None:
    """Which requests production makes that the workload does not name, None when they are few."""
    known = {f"{s.context_length}/{s.prediction_length}/{s.num_samples or 0}" for s in workload.shapes}
    counts: dict[str, int] = {}
    for note in notes:
        for shape, calls in note.get("shapes", {}).items():
            counts[shape] = counts.get(shape, 0) + calls
    total = sum(counts.values())
    foreign = {shape: calls for shape, calls in counts.items() if shape not in known}
    if total < _FEWEST_CALLS or sum(foreign.values()) < FOREIGN_SHARE * total:
        return None
    most = max(foreign, key=lambda shape: foreign[shape])
    return f"{sum(foreign.values()) / total:.0%} of calls are of other shapes, most of them {most}"


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
