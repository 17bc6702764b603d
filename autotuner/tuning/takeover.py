"""Lets a symbol take over what another symbol of the same workload signature proved, after a spot check.

Shape, not name, decides speed: two symbols with the same workload, model and environment share what a duel
proved. Each has its own accuracy measurement, and one fresh launch here must agree with the promise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from autotuner.figures import FiguresError, figures_from_json
from autotuner.measurement.outcome import ColdStart, Failed, Interval, Measured, Outcome
from autotuner.measurement.runner import Runner
from autotuner.promotion.decision import Decision
from autotuner.record_mapping import read_settings
from autotuner.search.scoring import Judged
from autotuner.search.space import SearchSpace
from autotuner.store import Store, Subject
from autotuner.tuning.request import TuneRequest
from storage.records import PromotionRecord
from toto_core.settings import RuntimeSettings

LAUNCHES_DIFFER = 0.03
"""Launches of one configuration differ by a percent or three; a spot check is one launch."""


@dataclass(frozen=True, kw_only=True)
class Proven:
    """What a duel of ``symbol`` proved: ``ratio`` to the reference, and the trial that led there."""

    symbol: str
    promotion_id: int | None
    settings: RuntimeSettings
    ratio: Interval
    measured: Measured


def proofs(
    store: Store, subject: Subject, profile: str, ledger: Sequence[PromotionRecord] | None = None
) -> Iterator[Proven]:
    """What duels of any symbol proved faster than the reference, with the trial that led there, newest first.

    Of the same model, workload signature, environment and profile, and active still; ``ledger`` is what is active,
    read from the store unless given. Raises ``StorageError``.
    """
    wanted = subject.workload.signature, subject.environment.fingerprint, profile
    for record in reversed(store.records.active_promotions() if ledger is None else ledger):
        if (record.workload_signature, record.environment_fingerprint, record.profile) != wanted:
            continue
        found = _proven(store, subject, record)
        if found is not None:
            yield found


def names_a_duel(record: PromotionRecord) -> bool:
    """Whether its evidence may be that of a duel, told without reading it."""
    return '"duel"' in record.evidence_json


def _proven(store: Store, subject: Subject, record: PromotionRecord) -> Proven | None:
    if not names_a_duel(record):  # most symbols rest on another's: thousands need not be read
        return None
    settings = read_settings(record.settings_json)
    try:
        figures = figures_from_json(record.evidence_json)
    except FiguresError:  # one that cannot be read proves nothing, and hinders no other symbol
        return None
    if settings is None or figures.stage != "duel" or figures.ratio is None or figures.ratio.low <= 1:
        return None
    measured = store.tried(dataclasses.replace(subject, symbol=record.symbol)).get(settings)
    if not isinstance(measured, Measured):
        return None
    if figures.cold_start_ms is not None:  # which may have been measured alone since the trial
        start = ColdStart(ms=figures.cold_start_ms, beside=figures.built_beside or 0)
        measured = measured.started_cold(start)
    return Proven(
        symbol=record.symbol,
        promotion_id=record.id,
        settings=settings,
        ratio=figures.ratio,
        measured=measured,
    )


def to_check(request: TuneRequest, space: SearchSpace, found: Iterable[Proven]) -> Proven | None:
    """Which of the proofs ``found`` a symbol without a champion is to check, None for a search of its own."""
    if not request.takes_over:
        return None
    proven = next((each for each in found if each.symbol != request.symbol), None)
    return proven if proven is not None and proven.settings in space else None


def spot_check(runner: Runner, proven: Proven, *, compiled: bool, seconds: float) -> Outcome:
    """Time what was proven once beside the reference here and measure its accuracy.

    ``compiled`` says that what it compiles to is at hand, so that a trial need not compile again.
    """
    outcome = runner.measure(proven.settings, seconds=seconds, again=compiled)
    if isinstance(outcome, Measured) and outcome.cold_start_ms is None:
        return outcome.started_cold(proven.measured.cold_start)
    return outcome


def objection(proven: Proven, outcome: Outcome, judged: Judged) -> str | None:
    """Why what ``proven`` promises does not stand here, None when it does.

    The ratio seen here must be above 1 for certain, and its interval, widened by what launches differ, must
    meet the promised one.
    """
    label = proven.settings.label
    if isinstance(outcome, Failed):
        return f"{label} failed here: {outcome}".rstrip(": ")
    if not judged.feasible:
        return f"{label} breaks a limit here: {'; '.join(judged.reasons)}"
    seen, promised = outcome.ratio, proven.ratio
    low, high = seen.low * (1 - LAUNCHES_DIFFER), seen.high * (1 + LAUNCHES_DIFFER)
    if low <= 1.0 or high < promised.low or low > promised.high:
        return f"{label} came to {seen} here, where {proven.symbol} proved {promised}"
    return None


def shared_decision(outcome: Measured, proven: Proven) -> Decision:
    """The first promotion of a symbol that rests on another symbol's duel."""
    reason = (
        f"{proven.symbol} proved {proven.settings.label} {proven.ratio} times as fast as the reference for the same "
        f"workload, model and environment; a fresh launch here agrees ({outcome.ratio}), and its forecasts of this "
        "symbol's own prices keep the limits."
    )
    return Decision(verdict="first", promoted=True, settings=proven.settings, reason=reason)
