"""Lets a symbol take over what another symbol of the same workload signature proved, after a spot check.

Shape, not name, decides speed: two symbols with the same workload, model and environment share what a duel
proved. Each has its own accuracy measurement, and one fresh launch here must agree with the promise.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from autotuner.errors import AutotuneError
from autotuner.measurement.outcome import ColdStart, Failed, Interval, Measured, Outcome
from autotuner.measurement.runner import Runner
from autotuner.promotion.decision import Decision
from autotuner.search.scoring import Judged
from autotuner.store import Store, Subject
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


def proven_elsewhere(store: Store, subject: Subject, profile: str) -> Proven | None:
    """The newest configuration that a duel of another symbol proved faster than the reference, with its trial.

    Of the same model, workload signature, environment and profile, and active still. Raises ``StorageError``.
    """
    wanted = subject.workload.signature, subject.environment.fingerprint, profile
    for record in reversed(store.records.active_promotions()):
        same = (record.workload_signature, record.environment_fingerprint, record.profile) == wanted
        if record.symbol == subject.symbol or not same:
            continue
        try:
            promotion = store.read(record)
        except AutotuneError:  # one that cannot be read proves nothing, and hinders no other symbol
            continue
        ratio = promotion.figures.ratio
        if promotion.figures.stage != "duel" or ratio is None or ratio.low <= 1:
            continue
        measured = store.tried(dataclasses.replace(subject, symbol=record.symbol)).get(promotion.settings)
        if isinstance(measured, Measured):
            figures = promotion.figures
            if figures.cold_start_ms is not None:  # which may have been measured alone since the trial
                start = ColdStart(ms=figures.cold_start_ms, beside=figures.built_beside or 0)
                measured = measured.started_cold(start)
            return Proven(
                symbol=record.symbol,
                promotion_id=record.id,
                settings=promotion.settings,
                ratio=ratio,
                measured=measured,
            )
    return None


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
