"""Everything that is stored of one symbol, as a page or a report about it shows it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from autotuner.commands.explain import explanation
from autotuner.errors import AutotuneError
from autotuner.measurement.outcome import Failed, Interval, Measured, Outcome
from autotuner.record_mapping import read_note, stored_of
from autotuner.report.documents import history
from autotuner.search.profiles import PROFILES, Limits, Profile
from autotuner.search.profiles import profile as profile_named
from autotuner.search.scoring import rank
from autotuner.serving.spool import NoteError, Recheck, Window
from autotuner.store import Promotion, Store, Subject
from autotuner.workload import Workload
from storage.records import TelemetryRecord
from toto_core.settings import COMPILE_MODES, CPU_ALIASES, RuntimeSettings

MOST_POINTS = 400
"""Points of a distribution's curve: as many as a wide screen has columns to tell apart."""
MOST_WINDOWS = 2_000


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One configuration as the search found it; None for what a failed one lacks. Times in milliseconds.

    ``role`` is ``winner`` for what is promoted, ``reference`` for what all are measured beside, else empty;
    ``reasons`` why it may not run, none where it may. ``score`` below 1 is better than the reference.
    """

    settings: RuntimeSettings
    outcome: str
    feasible: bool
    reasons: tuple[str, ...] = ()
    role: str = ""
    score: float | None = None
    ratio: Interval | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    sigma_ms: float | None = None
    mae: float | None = None
    mae_reference: float | None = None
    sigma_mae: float | None = None
    drift: float | None = None
    cold_start_ms: float | None = None
    warm_start_ms: float | None = None
    peak_bytes: int | None = None

    @property
    def label(self) -> str:
        """The settings in short."""
        return self.settings.label


@dataclass(frozen=True, kw_only=True)
class Live:
    """One window of what production saw: when it ended, its calls, and their latency in milliseconds."""

    at: datetime
    calls: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, kw_only=True)
class SymbolView:
    """All of one symbol.

    ``document`` is what ``autotune explain --json`` prints; ``calls_ms`` are latencies of the calls of the winner's
    trial and of the reference beside it, rising, at most ``MOST_POINTS`` of each; ``modes`` the trial of every plain
    compile mode in fp32, None where it was not measured, and ``aliases`` the modes that are another one on this
    device; ``by_profile`` what the search ranks first under each profile; ``events`` the ledger, oldest first.
    """

    promotion: Promotion
    document: Mapping[str, Any]
    profile: Profile
    subject: Subject | None
    trials: tuple[Trial, ...]
    modes: Mapping[str, Trial | None]
    by_profile: Mapping[str, Trial | None]
    aliases: Mapping[str, str]
    calls_ms: Mapping[str, tuple[float, ...]]
    live: tuple[Live, ...]
    rechecks: tuple[Recheck, ...]
    events: tuple[Mapping[str, Any], ...]

    @property
    def symbol(self) -> str:
        """Whose it is."""
        return self.promotion.symbol

    def trial(self, role: str) -> Trial | None:
        """The trial of that role."""
        return next((trial for trial in self.trials if trial.role == role), None)


def symbol_view(store: Store, symbol: str, profile: str | None = None) -> SymbolView:
    """What is stored of ``symbol``. Raises ``StorageError``, and ``AutotuneError`` with what to do next."""
    with stored_of(symbol):
        return _view(store, symbol, profile)


def _view(store: Store, symbol: str, profile: str | None) -> SymbolView:
    promotion = store.active(symbol, profile)
    if promotion is None:
        remedy = f"`autotune run --symbol {symbol}` finds out what it should run"
        raise AutotuneError(f"{symbol} was never promoted: {remedy}")
    judged_by = profile_named(promotion.profile)
    subject = store.measured_subject(symbol)
    outcomes = {} if subject is None else store.tried(subject)
    compared = {} if subject is None else store.known(subject, run_id=None, stage="compare")
    by_profile = {
        name: next((trial for trial in _trials(outcomes, promotion, each) if trial.feasible), None)
        for name, each in PROFILES.items()
    }
    aliases = CPU_ALIASES if promotion.environment.device == "cpu" else {}
    records = store.records
    windows, rechecks = _notes(records.telemetry(symbol, since=promotion.promoted_at), promotion)
    return SymbolView(
        promotion=promotion,
        document=explanation(promotion, outcomes, judged_by),
        profile=judged_by,
        subject=subject,
        trials=_trials(outcomes, promotion, judged_by),
        modes=_modes(_trials({**compared, **outcomes}, promotion, judged_by), aliases),
        by_profile=by_profile,
        aliases=aliases,
        calls_ms=_calls(outcomes.get(promotion.settings), promotion.workload),
        live=windows,
        rechecks=rechecks,
        events=tuple(history(records.promotions(symbol), records.pin_history(symbol), records.runs(symbol))),
    )


def _trials(
    outcomes: Mapping[RuntimeSettings, Outcome], promotion: Promotion, judged_by: Profile
) -> tuple[Trial, ...]:
    """Best first; what failed comes last."""
    workload = promotion.workload
    found = []
    for entry in rank(outcomes, workload, judged_by, Limits(deadline_ms=promotion.figures.deadline_ms)):
        role = "winner" if entry.settings == promotion.settings else ""
        if not role and not entry.settings.compiled and entry.settings.precision == "fp32":
            role = "reference"
        common: dict[str, Any] = {
            "settings": entry.settings,
            "role": role,
            "feasible": entry.judged.feasible,
            "reasons": entry.judged.reasons,
            "score": entry.judged.score,
        }
        outcome = entry.outcome
        if isinstance(outcome, Failed):
            found.append(Trial(**common, outcome=outcome.kind))
        else:
            found.append(Trial(**common, outcome="measured", **_figures(outcome, workload)))
    return tuple(found)


def _figures(measured: Measured, workload: Workload) -> dict[str, Any]:
    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.average(known, weights=workload.weights)) if len(known) == len(values) else None

    timings, accuracy = measured.timings, measured.accuracy
    return {
        "ratio": measured.ratio,
        "p50_ms": mean([each.p50_ms for each in timings]),
        "p99_ms": mean([each.p99_ms for each in timings]),
        "sigma_ms": mean([each.sigma_ms for each in timings]),
        "mae": accuracy.mae,
        "mae_reference": accuracy.mae_reference,
        "sigma_mae": accuracy.sigma_mae,
        "drift": accuracy.drift,
        "cold_start_ms": measured.cold_start_ms,
        "warm_start_ms": measured.warm_start_ms,
        "peak_bytes": measured.peak_bytes,
    }


def _modes(trials: Sequence[Trial], aliases: Mapping[str, str]) -> dict[str, Trial | None]:
    """The trial of each plain mode in fp32; a mode that is another one here has that one's."""
    plain = {trial.settings.compile_mode: trial for trial in reversed(trials) if _is_plain(trial.settings)}
    return {mode: plain.get(aliases.get(mode, mode)) for mode in COMPILE_MODES}


def _is_plain(settings: RuntimeSettings) -> bool:
    # As many threads and samples together as there would be anyway change nothing that a mode is about.
    usual = RuntimeSettings(compile_mode=settings.compile_mode)
    kept = {name: getattr(usual, name) for name in ("num_threads", "samples_per_batch", "recompile_limit")}
    return settings.replace(**kept) == usual


def _calls(outcome: Outcome | None, workload: Workload) -> dict[str, tuple[float, ...]]:
    if not isinstance(outcome, Measured):
        return {}
    heaviest = int(np.argmax(workload.weights))
    arms = {"winner": outcome.blocks, "reference": outcome.reference_blocks}
    return {
        name: thinned([*itertools.chain.from_iterable(blocks[heaviest])])
        for name, blocks in arms.items()
        if heaviest < len(blocks)
    }


def thinned(calls_ms: Sequence[float]) -> tuple[float, ...]:
    """The calls, rising; of more than ``MOST_POINTS`` the quantiles at as many even places, both ends kept."""
    if len(calls_ms) <= MOST_POINTS:
        return tuple(sorted(calls_ms))
    return tuple(np.quantile(calls_ms, np.linspace(0, 1, MOST_POINTS)).tolist())


def _notes(
    stored: Sequence[TelemetryRecord], promotion: Promotion
) -> tuple[tuple[Live, ...], tuple[Recheck, ...]]:
    """What production saw of the promoted settings since then, and what rechecks found."""
    live, rechecks = [], []
    for record in stored[-MOST_WINDOWS:]:
        if record.settings_key != promotion.settings.key:
            continue
        try:
            note = read_note(record)
        except NoteError:  # the daemon says so
            continue
        if isinstance(note, Recheck):
            rechecks.append(note)
        elif isinstance(note, Window) and note.calls:
            p50, p99 = note.quantile_ms(0.5), note.quantile_ms(0.99)
            live.append(Live(at=note.window_end, calls=note.calls, p50_ms=p50, p99_ms=p99))
    return tuple(live), tuple(rechecks)


def quantile_of(rising: Sequence[float], share: float) -> float:
    """The quantile of values in rising order, between two of them in proportion."""
    return float(np.quantile(rising, share))
