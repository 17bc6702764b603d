"""Which of the symbols that are due are tuned now: by expected loss, within a daily budget, none too often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import get_args

from autotuner.daemon.triggers import Kind, Reason

_KINDS: tuple[Kind, ...] = get_args(Kind)
_LASTING: tuple[Kind, ...] = ("latency", "recompiles", "workload", "series", "age")
"""Reasons that may outlast a run that found nothing better; what is unsafe or new is never put off for them."""
_MOST_DOUBLINGS = 4
"""From six hours to four days."""


@dataclass(frozen=True, kw_only=True)
class Due:
    """A symbol with reasons to tune in a ``place``, empty for this machine.

    ``calls_per_day`` is what production makes of it, ``excess_ms`` what a call takes beyond its promise;
    ``last_ended`` is when its last run ended, ``fruitless`` how many runs since its promotion changed nothing,
    ``seconds`` what a run of it may take.
    """

    symbol: str
    reasons: tuple[Reason, ...]
    calls_per_day: float = 0.0
    excess_ms: float = 0.0
    last_ended: datetime | None = None
    fruitless: int = 0
    seconds: float = 300.0
    place: str = ""

    @property
    def expected_loss_ms(self) -> float:
        """Milliseconds a day that waiting costs: calls a day times what each takes too long."""
        return self.calls_per_day * max(0.0, self.excess_ms)


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A symbol that is due and not tuned now in a ``place``, and why not, which names the place."""

    symbol: str
    why: str
    place: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who is tuned now, in this order, and who is not."""

    chosen: tuple[Due, ...] = ()
    skipped: tuple[Skipped, ...] = ()


def plan(due: Sequence[Due], *, now: datetime, left_seconds: float, cool_down: timedelta) -> Plan:
    """Choose from ``due``; ``left_seconds`` is what the day's budget still holds.

    A symbol is left alone for ``cool_down`` after a run whatever the reason, so that nothing flaps, and twice as
    long after every run that changed nothing: what tuning does not cure is not tried again every few hours. One
    that would exceed the day's budget waits, and a cheaper one behind it may still be chosen.
    """
    chosen: list[Due] = []
    skipped: list[Skipped] = []
    for each in sorted(due, key=_urgency):
        lasting = all(reason.kind in _LASTING for reason in each.reasons)
        rest = cool_down * (2 ** min(each.fruitless, _MOST_DOUBLINGS) if lasting else 1)
        rests_until = now if each.last_ended is None else each.last_ended + rest
        if now < rests_until:
            why = f"cools down until {rests_until:%Y-%m-%d %H:%M} UTC"
        elif each.seconds > left_seconds:
            why = f"the day's budget has {max(0.0, left_seconds):.0f} of {each.seconds:.0f} s left"
        else:
            left_seconds -= each.seconds
            chosen.append(each)
            continue
        why = f"in {each.place}: {why}" if each.place else why
        skipped.append(Skipped(symbol=each.symbol, why=why, place=each.place))
    return Plan(chosen=tuple(chosen), skipped=tuple(skipped))


def _urgency(due: Due) -> tuple[float, int, str]:
    return -due.expected_loss_ms, min(_KINDS.index(reason.kind) for reason in due.reasons), due.symbol
