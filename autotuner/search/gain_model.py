"""Predicts what each untried configuration would gain and what measuring it would cost, from those already tried.

A Gaussian process over configurations (Rasmussen and Williams 2006, chapter 2) with a product of one factor per
field: two configurations are the less alike the more fields they differ in. The gain is the expected improvement
of the log score (Jones, Schonlau and Welch 1998); what is worth trying next has the largest gain per second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from toto_core.settings import RuntimeSettings

Floats = npt.NDArray[np.float64]

_ALIKE: Mapping[str, float] = {
    "compiled": 0.3,
    "precision": 0.8,
    "freezing": 0.8,
    "compile_scope": 0.9,
    "num_threads": 0.8,
    "dynamic": 0.8,
    "series_per_batch": 0.8,
    "samples_per_batch": 0.8,
    "compile_mode": 0.9,
    "context_bucket": 0.9,
    "recompile_limit": 0.95,
}
"""Correlation of two configurations that differ in one field alone, as seen with toto-mini and a 151 M shape."""
_KNOBS_ALIKE = 0.8
"""The same for a knob that only one engine has, of which nothing is known."""
_WHOLE_GRAPH, _REPEATED_LAYER = -0.5, -0.1
"""Expected log score of a compiled model before anything is known: a whole graph gains, a repeated layer hardly."""
_SCORE_SPREAD = 0.3
"""Standard deviation of log score around that: a factor of 1.35 either way."""
_SCORE_NOISE = 0.05
_COST_SPREAD, _COST_NOISE = 0.5, 0.2
_EAGER_SECONDS = 8.0
_ON_A_CPU = {"default": 24.0, "max-autotune-no-cudagraphs": 50.0, "max-autotune": 50.0}
_ON_A_GPU = {
    "default": 35.0,
    "reduce-overhead": 50.0,
    "max-autotune-no-cudagraphs": 85.0,
    "max-autotune": 85.0,
}
"""What a trial takes before one of its kind was seen, in seconds; a mode that is missing takes what default takes.

Toto-mini on two CPUs of two machines took 18 and 29 s in mode default, 38 and 65 in max-autotune (decision 26).
On an H200 reduce-overhead took 27 s with toto-mini and 95 s with a 151 M shape, where default took 62 and
max-autotune 156 (benchmarks/results/gpu-2026-11-26.md): 50 lies between the two, the others as far from it as there.
"""
_USUALLY_FEASIBLE, _PRIOR_WEIGHT = 0.9, 0.5
"""Share of configurations that neither fail nor break a limit, and how many observed ones that belief weighs."""
_cdf = np.vectorize(NormalDist().cdf, otypes=[np.float64])
_pdf = np.vectorize(NormalDist().pdf, otypes=[np.float64])


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What came of trying one configuration.

    A ``score`` below 1 beats the reference; None means it failed. ``feasible`` says whether every limit was kept,
    ``seconds`` what the trial took, None when that is not known.
    """

    score: float | None
    feasible: bool = True
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """A prediction for one configuration: expected gain in log score over the best so far, and seconds to measure it.

    ``chance`` is the probability of beating the best by more than the share asked about.
    """

    settings: RuntimeSettings
    gain: float
    chance: float
    seconds: float

    @property
    def gain_per_second(self) -> float:
        """What a second spent on measuring it is expected to gain."""
        return self.gain / self.seconds


def outlooks(
    untried: Sequence[RuntimeSettings],
    tried: Mapping[RuntimeSettings, Tried],
    *,
    compiled: frozenset[RuntimeSettings] = frozenset(),
    device: str = "cpu",
    worth: float = 0.02,
) -> tuple[Outlook, ...]:
    """One ``Outlook`` for each of ``untried``, in their order; ``worth`` is the share ``chance`` asks about.

    A configuration whose artifacts are ``compiled`` already takes as long as an eager one. What others take before
    any was seen depends on the ``device``.
    """
    logs = _log_scores(tried)
    known, scores = list(logs), np.array([*logs.values()], dtype=np.float64)
    best = min((log for settings, log in logs.items() if tried[settings].feasible), default=0.0)
    mean, sigma = _posterior(untried, known, scores - _usual(known), spread=_SCORE_SPREAD, noise=_SCORE_NOISE)
    ahead = best - (mean + _usual(untried))
    feasible = _feasible(untried, tried)
    gain = feasible * np.maximum(0.0, ahead * _cdf(ahead / sigma) + sigma * _pdf(ahead / sigma))
    chance = feasible * _cdf((ahead + math.log1p(-worth)) / sigma)
    timed = [settings for settings in known if settings not in compiled and tried[settings].seconds]
    seconds = _seconds(untried, timed, tried, _ON_A_CPU if device == "cpu" else _ON_A_GPU)
    return tuple(
        Outlook(
            settings=settings,
            gain=float(gain[index]),
            chance=float(chance[index]),
            seconds=_EAGER_SECONDS if settings in compiled else float(seconds[index]),
        )
        for index, settings in enumerate(untried)
    )


def most_promising(outlooks: Sequence[Outlook], seconds_left: float) -> RuntimeSettings | None:
    """The configuration with the most gain per second that fits into ``seconds_left``, None if none does."""
    fitting = [outlook for outlook in outlooks if outlook.seconds <= seconds_left]
    return max(fitting, key=lambda outlook: outlook.gain_per_second).settings if fitting else None


def settled(outlooks: Sequence[Outlook], chance: float) -> bool:
    """Whether it is less likely than ``chance`` that any untried configuration is worth its trial."""
    return sum(outlook.chance for outlook in outlooks) < chance


@dataclass(frozen=True, kw_only=True)
class LeftOpen:
    """What a search has not tried: how many configurations, and which of them is the most likely to be better.

    ``chance`` is that of any one being better by the share asked about, taken as independent of each other;
    ``seconds`` what it is expected to take, one after the other, until that is settled.
    """

    configurations: int
    likeliest: RuntimeSettings
    chance: float
    seconds: float


def left_open(outlooks: Sequence[Outlook], enough: float) -> LeftOpen | None:
    """What ``outlooks`` leave open until the chances of the rest add up to less than ``enough``; None for nothing."""
    if not outlooks:
        return None
    ahead, seconds = sum(outlook.chance for outlook in outlooks), 0.0
    for outlook in sorted(outlooks, key=lambda each: -each.chance / each.seconds):
        if ahead < enough:
            break
        ahead, seconds = ahead - outlook.chance, seconds + outlook.seconds
    return LeftOpen(
        configurations=len(outlooks),
        likeliest=max(outlooks, key=lambda outlook: outlook.chance).settings,
        chance=1 - math.prod(1 - outlook.chance for outlook in outlooks),
        seconds=seconds,
    )


def _log_scores(tried: Mapping[RuntimeSettings, Tried]) -> dict[RuntimeSettings, float]:
    scores = {settings: each.score or 0.0 for settings, each in tried.items()}
    return {settings: math.log(score) for settings, score in scores.items() if score > 0}


def _seconds(
    untried: Sequence[RuntimeSettings],
    timed: Sequence[RuntimeSettings],
    tried: Mapping[RuntimeSettings, Tried],
    usual: Mapping[str, float],
) -> Floats:
    """What a trial of each takes: the usual time, corrected by how the ``timed`` trials differed from theirs."""
    excess = np.array([math.log(tried[s].seconds or 1.0) for s in timed]) - _log_costs(timed, usual)
    dearer, _ = _posterior(untried, timed, excess, spread=_COST_SPREAD, noise=_COST_NOISE)
    return np.asarray(np.exp(_log_costs(untried, usual) + dearer), dtype=np.float64)


def _feasible(untried: Sequence[RuntimeSettings], tried: Mapping[RuntimeSettings, Tried]) -> Floats:
    """Probability that each keeps every limit: the share among those tried, weighted by how alike they are."""
    alike = _likeness(untried, list(tried))
    kept = np.array([each.feasible and each.score is not None for each in tried.values()], dtype=np.float64)
    votes = _PRIOR_WEIGHT * _USUALLY_FEASIBLE + alike @ kept
    return np.asarray(votes / (_PRIOR_WEIGHT + alike.sum(axis=1)), dtype=np.float64)


def _usual(settings: Sequence[RuntimeSettings]) -> Floats:
    whole = {"full": _WHOLE_GRAPH, "layer": _REPEATED_LAYER}
    return np.array([whole[each.compile_scope] if each.compiled else 0.0 for each in settings])


def _log_costs(settings: Sequence[RuntimeSettings], usual: Mapping[str, float]) -> Floats:
    compiled = usual["default"]
    seconds = [
        usual.get(each.compile_mode, compiled) if each.compiled else _EAGER_SECONDS for each in settings
    ]
    return np.asarray(np.log(seconds), dtype=np.float64)


def _posterior(
    wanted: Sequence[RuntimeSettings],
    known: Sequence[RuntimeSettings],
    values: Floats,
    *,
    spread: float,
    noise: float,
) -> tuple[Floats, Floats]:
    # Mean and standard deviation, each (wanted,), given values (known,) with a prior mean of 0.
    if not known:
        return np.zeros(len(wanted)), np.full(len(wanted), spread)
    across = spread**2 * _likeness(wanted, known)
    gram = spread**2 * _likeness(known, known) + noise**2 * np.eye(len(known))
    weights = np.linalg.solve(gram, across.T)
    variance = spread**2 - (across * weights.T).sum(axis=1)
    return weights.T @ values, np.sqrt(np.maximum(variance, noise**2))


def _likeness(rows: Sequence[RuntimeSettings], columns: Sequence[RuntimeSettings]) -> Floats:
    # Correlation (row, column) of log scores.
    alike = np.ones((len(rows), len(columns)))
    knobs = dict.fromkeys(name for each in (*rows, *columns) for name, _ in each.knobs)
    for field, factor in {**_ALIKE, **dict.fromkeys(knobs, _KNOBS_ALIKE)}.items():
        codes: dict[object, int] = {}
        left, right = (
            np.array([codes.setdefault(_value(s, field), len(codes)) for s in side])
            for side in (rows, columns)
        )
        alike *= np.where(left[:, np.newaxis] == right, 1.0, factor)
    return alike


def _value(settings: RuntimeSettings, field: str) -> object:
    return settings.compiled if field == "compiled" else settings.value(field)
