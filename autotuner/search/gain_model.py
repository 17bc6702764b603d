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
_WHOLE_GRAPH, _REPEATED_LAYER = -0.5, -0.1
"""Expected log score of a compiled model before anything is known: a whole graph gains, a repeated layer hardly."""
_SCORE_SPREAD = 0.3
"""Standard deviation of log score around that: a factor of 1.35 either way."""
_SCORE_NOISE = 0.05
_COST_SPREAD, _COST_NOISE = 0.5, 0.2
_COST_SECONDS = {"eager": 8.0, "max-autotune-no-cudagraphs": 70.0, "max-autotune": 70.0}
_COMPILED_SECONDS = 30.0
"""What a trial takes before one of its kind was seen, in seconds."""
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
    worth: float = 0.02,
) -> tuple[Outlook, ...]:
    """One ``Outlook`` for each of ``untried``, in their order; ``worth`` is the share ``chance`` asks about.

    A configuration whose artifacts are ``compiled`` already takes as long as an eager one.
    """
    logs = _log_scores(tried)
    known, scores = list(logs), np.array([*logs.values()], dtype=np.float64)
    best = min((log for settings, log in logs.items() if tried[settings].feasible), default=0.0)
    mean, sigma = _posterior(untried, known, scores - _usual(known), spread=_SCORE_SPREAD, noise=_SCORE_NOISE)
    ahead = best - (mean + _usual(untried))
    feasible = _feasible(untried, tried)
    gain = feasible * np.maximum(0.0, ahead * _cdf(ahead / sigma) + sigma * _pdf(ahead / sigma))
    chance = feasible * _cdf((ahead + math.log1p(-worth)) / sigma)
    seconds = _seconds(untried, [settings for settings in known if settings not in compiled], tried)
    return tuple(
        Outlook(
            settings=settings,
            gain=float(gain[index]),
            chance=float(chance[index]),
            seconds=_COST_SECONDS["eager"] if settings in compiled else float(seconds[index]),
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


def _log_scores(tried: Mapping[RuntimeSettings, Tried]) -> dict[RuntimeSettings, float]:
    scores = {settings: each.score or 0.0 for settings, each in tried.items()}
    return {settings: math.log(score) for settings, score in scores.items() if score > 0}


def _seconds(
    untried: Sequence[RuntimeSettings],
    known: Sequence[RuntimeSettings],
    tried: Mapping[RuntimeSettings, Tried],
) -> Floats:
    """What a trial of each takes: the usual time, corrected by how similar trials differed from theirs."""
    timed = [settings for settings in known if tried[settings].seconds]
    excess = np.array([math.log(tried[s].seconds or 1.0) for s in timed]) - _log_costs(timed)
    dearer, _ = _posterior(untried, timed, excess, spread=_COST_SPREAD, noise=_COST_NOISE)
    return np.asarray(np.exp(_log_costs(untried) + dearer), dtype=np.float64)


def _feasible(untried: Sequence[RuntimeSettings], tried: Mapping[RuntimeSettings, Tried]) -> Floats:
    """Probability that each keeps every limit: the share among those tried, weighted by how alike they are."""
    alike = _likeness(untried, list(tried))
    kept = np.array([each.feasible and each.score is not None for each in tried.values()], dtype=np.float64)
    votes = _PRIOR_WEIGHT * _USUALLY_FEASIBLE + alike @ kept
    return np.asarray(votes / (_PRIOR_WEIGHT + alike.sum(axis=1)), dtype=np.float64)


def _usual(settings: Sequence[RuntimeSettings]) -> Floats:
    whole = {"full": _WHOLE_GRAPH, "layer": _REPEATED_LAYER}
    return np.array([whole[each.compile_scope] if each.compiled else 0.0 for each in settings])


def _log_costs(settings: Sequence[RuntimeSettings]) -> Floats:
    return np.log([_COST_SECONDS.get(each.compile_mode, _COMPILED_SECONDS) for each in settings])


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
    for field, factor in _ALIKE.items():
        codes: dict[object, int] = {}
        left, right = (
            np.array([codes.setdefault(getattr(s, field), len(codes)) for s in side])
            for side in (rows, columns)
        )
        alike *= np.where(left[:, np.newaxis] == right, 1.0, factor)
    return alike
