"""An Optuna sampler that proposes the configuration expected to gain most per second of measuring."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autotuner.search.gain_model import Outlook, Tried, most_promising, outlooks
from autotuner.search.space import SearchSpace
from toto_core.settings import RuntimeSettings

SECONDS = "seconds"
"""User attribute of a trial: the seconds it took, where the time between ask and tell would mislead."""
TPE_EVERY = 10
"""How often TPE proposes, in case the gain model is wrong: asking it more often finds the best later
(benchmarks/search.py, decision 9)."""


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """The parameters of a trial: every field that can differ, with its values; for ``study.ask``."""
    return {name: CategoricalDistribution(values) for name, values in space.sampled.items()}


@dataclass(eq=False, repr=False)
class GainPerSecondSampler(BaseSampler):
    """Proposes the keys of ``space`` that were not tried yet, by ``gain_model``; every tenth proposal is TPE's.

    For studies that minimise one value above 0, where the reference has 1, and run one trial at a time:
    ``study.ask(distributions(space))``, or an objective that suggests those parameters. A constraint above 0 is
    a broken limit. A failed trial counts as tried. TPE also proposes when no key is left or none fits into
    ``seconds_left()``, and gives way after ``repeats`` proposals in a row that had been tried before.

    ``known`` was measured elsewhere. Trials numbered below ``since`` inform TPE alone: ``known`` says what they
    are worth now. ``compiled`` keys start without compiling.
    """

    space: SearchSpace
    _: KW_ONLY
    seed: int | None = None
    repeats: int = 3
    known: Mapping[RuntimeSettings, Tried] = field(default_factory=dict)
    since: int = 0
    compiled: frozenset[RuntimeSettings] = frozenset()
    seconds_left: Callable[[], float] = lambda: math.inf

    def __post_init__(self) -> None:
        self.distributions = distributions(self.space)
        self._tpe = TPESampler(seed=self.seed, multivariate=True, constant_liar=False)
        self._known = dict(self.known)

    def note(self, settings: RuntimeSettings, tried: Tried) -> None:
        """Learn what came of a configuration that is no trial of the study."""
        self._known[settings] = tried

    def outlooks(self, study: optuna.Study) -> tuple[Outlook, ...]:
        """A prediction for each key that was not tried yet, from the finished trials of ``study``."""
        tried, _, _ = self._history(study)
        untried = [key for key in self.space.keys if key not in tried]
        device = "cpu" if self.space.facts is None else self.space.facts.device
        return outlooks(untried, tried, compiled=self.compiled, device=device)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All parameters are proposed together."""
        return self.distributions

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next key's values; empty where TPE draws them one by one. Raises ``ValueError`` for another goal."""
        if study.directions != [StudyDirection.MINIMIZE]:
            raise ValueError("GainPerSecondSampler searches studies that minimise one value")
        _, new, repeats = self._history(study)
        if new % TPE_EVERY or repeats >= self.repeats:
            key = most_promising(self.outlooks(study), self.seconds_left())
            if key is not None:
                return self.space.values_of(key)
        return self._tpe.sample_relative(study, trial, self._tpe.infer_relative_search_space(study, trial))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value that TPE draws."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Make TPE draw anew; the gain model is deterministic."""
        self._tpe.reseed_rng()

    def _key_of(self, trial: FrozenTrial) -> RuntimeSettings | None:
        if not self.distributions.keys() <= trial.params.keys():
            return None
        return self.space.key_of({name: trial.params[name] for name in self.distributions})

    def _history(self, study: optuna.Study) -> tuple[dict[RuntimeSettings, Tried], int, int]:
        """What was tried, how many keys of it in this study, and how many of its latest trials repeated one."""
        tried, new, repeats = dict(self._known), 0, 0
        for trial in study.get_trials(deepcopy=False):
            if trial.number < self.since or not trial.state.is_finished():
                continue
            key = self._key_of(trial)
            if key is None or key in tried:
                repeats += 1
            else:
                new, repeats = new + 1, 0
            if key is not None:
                tried[key] = _tried(trial, tried.get(key))
        return tried, new, repeats


def _tried(trial: FrozenTrial, before: Tried | None) -> Tried:
    """The latest score counts, and the longest time: a repeat may have been answered from memory."""
    took = trial.duration.total_seconds() if trial.duration else 0.0
    seconds = max(trial.user_attrs.get(SECONDS, took), (before and before.seconds) or 0.0)
    complete = trial.state == TrialState.COMPLETE and math.isfinite(trial.value or 0.0)
    return Tried(
        score=trial.value if complete else None,
        feasible=all(amount <= 0 for amount in trial.constraints.values()),
        seconds=seconds or None,
    )
