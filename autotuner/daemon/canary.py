"""Whether a promotion on trial has stood it: production's calls under it beside those under what ran before."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from autotuner.daemon.triggers import LiveWindow

Verdict = Literal["wait", "confirm", "roll back"]


@dataclass(frozen=True, kw_only=True)
class CanaryRules:
    """A trial is judged on ``windows`` of each side, of ``fewest_calls`` each; ``slower`` is what is too slow."""

    windows: int = 5
    fewest_calls: int = 20
    slower: float = 1.05


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The verdict and what it rests on, in one line."""

    verdict: Verdict
    text: str


def judge(new: Sequence[LiveWindow], old: Sequence[LiveWindow], rules: CanaryRules | None = None) -> Judged:
    """*roll back* when calls take longer under the new settings than before, *confirm* when they do not.

    Medians over windows of each window's p50, so that a few bad minutes decide nothing; and of the p99, where
    twice as long is too slow. *wait* until both sides have been seen enough.
    """
    rules = rules or CanaryRules()
    ours, theirs = ([w for w in side if w.calls >= rules.fewest_calls] for side in (new, old))
    if min(len(ours), len(theirs)) < rules.windows:
        return Judged(
            verdict="wait", text=f"{len(ours)} and {len(theirs)} of {rules.windows} windows each were seen"
        )
    p50 = _ratio([w.p50_ms for w in ours], [w.p50_ms for w in theirs])
    p99 = _ratio([w.p99_ms for w in ours], [w.p99_ms for w in theirs])
    text = f"p50 {p50:.2f} and p99 {p99:.2f} times that of the settings before, over {len(ours)} windows"
    slow = p50 > rules.slower or p99 > 2.0
    return Judged(verdict="roll back" if slow else "confirm", text=text)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return math.exp(statistics.median(map(math.log, ours)) - statistics.median(map(math.log, theirs)))
