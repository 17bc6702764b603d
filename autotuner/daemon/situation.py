"""What is known of a symbol that speaks for or against tuning it: store, telemetry, prices and model, read once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from autotuner.daemon.config import SymbolConfig
from autotuner.daemon.intake import Log, stored_notes
from autotuner.daemon.live import live_windows, notes_of, shifted
from autotuner.daemon.plan import Due
from autotuner.daemon.triggers import LiveWindow, Reason, Situation, reasons
from autotuner.environment import Environment
from autotuner.errors import AutotuneError
from autotuner.serving.spool import Note, Quarantine, Recheck
from autotuner.store import Promotion, Store
from storage.errors import NotFound
from storage.records import MEASURED, RunRecord
from toto_core.model_files import CheckpointError, digest, locate
from toto_core.series import SeriesError, find_series

DAY = timedelta(days=1)


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


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What the store, the notes and the prices say of a promotion, as it was read.

    ``ours`` are the notes of the promoted settings, ``before`` those of the settings before, where the promotion is
    on trial; ``confirmed`` is when runs left it in place.
    """

    promotion: Promotion
    ours: Sequence[Note]
    before: Sequence[Note]
    confirmed: Sequence[datetime]
    measured: _Prices | None
    present: _Prices | None
    tried_on_present: bool
    model_changed: str | None

    @property
    def windows(self) -> list[LiveWindow]:
        """What production saw of the promoted settings."""
        return live_windows(self.ours)

    @property
    def rechecks(self) -> list[Recheck]:
        """The rechecks of the promoted settings, oldest first."""
        return [note for note in self.ours if isinstance(note, Recheck)]

    @property
    def found(self) -> list[Recheck]:
        """Those that measured something on the prices that are there now."""
        digest = None if self.present is None else self.present.digest
        return [each for each in self.rechecks if each.series_digest == digest and not each.failed]


def observe(
    store: Store, symbol: str, config: SymbolConfig, *, environment: Environment, now: datetime, log: Log
) -> Observed:
    """Look at everything the triggers ask for. Raises ``StorageError`` and ``AutotuneError`` of the store."""
    promotion = store.active(symbol, config.profile)
    ended = max((run.finished_at for run in store.records.runs(symbol) if run.finished_at), default=None)
    if promotion is None:
        situation = Situation(promotion=None, environment=environment, now=now)
        return Observed(symbol=symbol, situation=situation, last_ended=ended)
    facts = _read(store, promotion, config, log)
    return _observed(facts, _situation(facts, environment, now), ended)


def _read(store: Store, promotion: Promotion, config: SymbolConfig, log: Log) -> _Facts:
    symbol = promotion.symbol
    notes = stored_notes(store.records.telemetry(symbol, since=promotion.promoted_at), log)
    canary = promotion.figures.canary
    measured, present = _prices(store, symbol, config)
    return _Facts(
        promotion=promotion,
        ours=notes_of(notes, promotion, promotion.settings),
        before=() if canary is None else notes_of(notes, promotion, canary.previous),
        confirmed=confirmations(store, promotion),
        measured=measured,
        present=present,
        tried_on_present=_measured_on(store, promotion, present),
        model_changed=_model_changed(store, symbol, promotion),
    )


def _situation(facts: _Facts, environment: Environment, now: datetime) -> Situation:
    promised = facts.promotion.figures.promised_ms
    return Situation(
        promotion=facts.promotion,
        environment=environment,
        now=now,
        tuned_at=max(facts.confirmed, default=None),
        promised_p50_ms=promised[0],
        promised_p99_ms=promised[1],
        model_changed=facts.model_changed,
        workload_shifted=shifted(facts.ours, facts.promotion.workload),
        bucket=_power(facts.present),
        promoted_bucket=_power(facts.measured),
        windows=facts.windows,
        quarantines=[note.reason for note in facts.ours if isinstance(note, Quarantine)],
        broken=facts.found[-1].broken if facts.found else (),
    )


def _observed(facts: _Facts, situation: Situation, ended: datetime | None) -> Observed:
    windows, promotion = situation.windows, facts.promotion
    days = max((situation.now - promotion.promoted_at) / DAY, 1 / 24)
    return Observed(
        symbol=promotion.symbol,
        situation=situation,
        windows_before=live_windows(facts.before),
        calls_per_day=sum(window.calls for window in windows) / days,
        excess_ms=_excess_ms(windows, situation.promised_p50_ms),
        last_ended=ended,
        fruitless=len(facts.confirmed),
        unseen_since=_unseen_since(facts),
    )


def _excess_ms(windows: Sequence[LiveWindow], promised_ms: float | None) -> float:
    """What the newest window's median call takes beyond the promise; 0 where nothing was promised."""
    return max(0.0, windows[-1].p50_ms - promised_ms) if windows and promised_ms else 0.0


def _unseen_since(facts: _Facts) -> datetime | None:
    if facts.found or facts.tried_on_present:
        return None
    return facts.rechecks[-1].window_start if facts.rechecks else facts.promotion.promoted_at


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
    ended = [run.finished_at for run in store.records.runs(promotion.symbol) if _confirms(run, promotion)]
    return tuple(at for at in ended if at is not None and at > since)


def _confirms(run: RunRecord, promotion: Promotion) -> bool:
    ours = promotion.profile, promotion.workload.signature, promotion.environment.fingerprint
    theirs = run.profile, run.workload_signature, run.environment_fingerprint
    return run.status == "finished" and run.run_id != promotion.run_id and theirs == ours
