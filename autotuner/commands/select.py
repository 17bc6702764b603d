"""Promotes what stored measurements say is best under another profile, without measuring anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from autotuner.errors import AutotuneError
from autotuner.figures import Figures, trial_figures
from autotuner.measurement.outcome import Measured
from autotuner.search.profiles import Limits, Profile
from autotuner.search.scoring import Ranked, rank
from autotuner.store import Promotion, Store, Subject
from toto_core.settings import RuntimeSettings, SettingsError


@dataclass(frozen=True, kw_only=True)
class Pick:
    """What stored measurements say a symbol should run, with the figures and the reason in one sentence."""

    settings: RuntimeSettings
    figures: Figures
    reason: str


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a symbol ran before, what it runs now, and whether that was newly promoted."""

    before: Promotion | None
    now: Promotion
    changed: bool


def select(store: Store, symbol: str, profile: Profile, *, at: datetime) -> Selection:
    """Score what the symbol's newest run measured or took up under ``profile`` and promote the best.

    Nothing is promoted when the symbol runs just that under just this profile already. Raises
    ``AutotuneError`` when nothing is stored or nothing keeps the profile's limits, ``StorageError``.
    """
    subject = store.measured_subject(symbol)
    if subject is None:
        raise AutotuneError(
            f"{symbol}: no stored measurements to score; "
            f"`autotune run --symbol {symbol} --profile {profile.name}` makes them"
        )
    before, champion = store.active(symbol), store.champion(subject, profile.name)
    pick = choose(_ranked(store, subject, profile), champion, subject, profile)
    if before and champion and before.id == champion.id and before.settings == pick.settings:
        return Selection(before=before, now=before, changed=False)
    promotion = Promotion(
        symbol=symbol,
        profile=profile.name,
        workload=subject.workload,
        environment=subject.environment,
        settings=pick.settings,
        verdict="selected",
        reason=pick.reason,
        figures=pick.figures,
        promoted_at=at,
        kind="select",
    )
    store.promote(promotion)
    return Selection(before=before, now=promotion, changed=True)


def choose(ranked: Sequence[Ranked], champion: Promotion | None, subject: Subject, profile: Profile) -> Pick:
    """The profile's champion when a duel proved it and it keeps the limits still, else the best of ``ranked``.

    ``ranked`` is best first. Search figures only rank: the best of forty equal configurations looks 9 % better
    by luck, so they never overrule a duel. Raises ``AutotuneError`` when nothing keeps the limits.
    """
    ruled_out = [entry.settings for entry in ranked if not entry.judged.feasible]
    if champion and champion.figures.won_a_duel and champion.settings not in ruled_out:
        reason = f"{champion.settings.label} won its duel under {profile.name}, which search figures do not overrule."
        return Pick(settings=champion.settings, figures=champion.figures, reason=reason)
    again = f"measure again with `autotune run --symbol {subject.symbol} --profile {profile.name}`"
    if not ranked:
        raise AutotuneError(f"{subject.symbol}: every stored trial failed; {again}")
    best = ranked[0]
    if not best.judged.feasible or not isinstance(best.outcome, Measured):
        raise AutotuneError(
            f"{subject.symbol}: none of {len(ranked)} stored configurations keeps the limits of {profile.name}; "
            f"{best.settings.label} comes nearest ({'; '.join(best.judged.reasons)}); {again}"
        )
    reason = (
        f"{best.settings.label} scores {best.judged.score:.3f} under {profile.name} (eager fp32 1, lower is better), "
        f"the best of {len(ranked)} stored configurations; the figures are from the search, not from a duel."
    )
    return Pick(settings=best.settings, figures=trial_figures(best.outcome, subject.workload), reason=reason)


def _ranked(store: Store, subject: Subject, profile: Profile) -> Sequence[Ranked]:
    try:
        known = store.known(subject, run_id=None)
    except SettingsError as error:
        raise AutotuneError(
            f"{store.location}: a stored measurement of {subject.symbol} cannot be read: {error}; restore a backup"
        ) from None
    return rank(known, subject.workload, profile, Limits())
