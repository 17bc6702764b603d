"""Turns the verdict of a duel into what a symbol runs from now on, with the reason in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from autotuner.measurement.outcome import Interval
from autotuner.promotion.duel_plan import DuelResult
from toto_core.settings import RuntimeSettings

FULL_LAUNCHES = 5
"""Launches of one configuration differ by one to three percent; fewer than these are named in the reason."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a symbol runs from now on, and why.

    ``verdict`` is *better*, *same*, *worse* or *ambiguous* against the champion, *first* when there was none;
    ``promoted`` whether ``settings`` are newly promoted rather than kept; ``reason`` one sentence with the
    numbers.
    """

    verdict: str
    promoted: bool
    settings: RuntimeSettings
    reason: str


def decide(
    result: DuelResult | None, *, champion: RuntimeSettings | None, reference: RuntimeSettings
) -> Decision:
    """Who runs from now on; ``result`` None means that no challenger differs from the opponent.

    Only *better* replaces a champion. Without a champion there is always a *first*: the challenger when it is
    better than the reference, the simpler of two equals, the reference otherwise. Raises ``ValueError`` for a
    duel against someone else.
    """
    opponent = champion or reference
    if result is not None and result.opponent != opponent:
        raise ValueError(f"decision: the duel was with {result.opponent.label}, not with {opponent.label}")
    if champion is None:
        return _first(result, reference)
    if result is None:
        reason = f"No challenger differs from the champion {champion.label}, which stays."
        return Decision(verdict="same", promoted=False, settings=champion, reason=reason)
    if result.verdict == "better":
        reason = f"{_finding(result)}."
        return Decision(verdict="better", promoted=True, settings=result.challenger, reason=reason)
    reason = f"{_finding(result)}; the champion stays."
    return Decision(verdict=result.verdict, promoted=False, settings=champion, reason=reason)


def _first(result: DuelResult | None, reference: RuntimeSettings) -> Decision:
    if result is None:
        reason = f"No challenger differs from the reference {reference.label}, which is the first promoted."
        return Decision(verdict="first", promoted=True, settings=reference, reason=reason)
    if result.verdict == "better":
        settings, reason = result.challenger, f"{_finding(result)}."
    elif result.verdict == "same":
        settings = min(reference, result.challenger, key=lambda either: either.complexity)
        reason = f"{_finding(result)}; of equals the simpler, {settings.label}, is the first promoted."
    else:
        settings = reference
        nothing = f"Nothing was proven faster than the reference {reference.label}"
        reason = f"{nothing}, which is the first promoted: {_finding(result)}."
    return Decision(verdict="first", promoted=True, settings=settings, reason=reason)


def _finding(result: DuelResult) -> str:
    ours, theirs, gain = result.challenger.label, result.opponent.label, result.gain
    if result.reason and result.verdict == "worse":
        return f"{ours} {result.reason}"
    if result.reason or gain is None:
        return f"{ours} is not proven faster than {theirs}: {result.reason or 'no figures'}"
    numbers = _numbers(result, gain)
    if result.verdict == "same":
        return f"{ours} and {theirs} take about the same time {numbers}"
    if result.verdict == "ambiguous":
        return f"{ours} is not proven faster than {theirs} {numbers}"
    more_or_less = "less" if gain.estimate > 0 else "more"
    return f"{ours} takes {100 * abs(gain.estimate):.0f} % {more_or_less} time than {theirs} {numbers}"


def _numbers(result: DuelResult, gain: Interval) -> str:
    low, middle, high = (f"{100 * share:.3g}" for share in (gain.low, gain.estimate, gain.high))
    few = "only " if result.launches < FULL_LAUNCHES or result.short_of_launches else ""
    return f"(gain {middle} %, 95 % interval {low} to {high} %, {few}{result.launches} launches each)"
