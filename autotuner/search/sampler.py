"""Asks Optuna what to try next and tells it what came of it; the only importer of Optuna."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from autotuner.errors import AutotuneError
from autotuner.process import Owner
from autotuner.search.scoring import Judged
from autotuner.search.space import SearchSpace
from toto_core.settings import RuntimeSettings

_UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)
_OWNER, _ENDED = "owner", "ended"


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A trial Optuna has begun; ``settings`` is None when its values are no key of the space."""

    trial: Trial
    settings: RuntimeSettings | None


class SettingsSampler:
    """One Optuna study over the sampled fields of a space; made by ``open_sampler``.

    Every method raises ``AutotuneError`` when the study database fails.
    """

    def __init__(self, study: optuna.Study, space: SearchSpace, owner: Owner) -> None:
        self._study = study
        self._space = space
        self._owner = owner
        self._distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(values) for name, values in space.sampled.items()
        }

    def learn(self, judged: Mapping[RuntimeSettings, Judged]) -> None:
        """Add scored outcomes that this study was not told yet."""
        with _storage_errors(self._study.study_name):
            complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            told = {self._space.key_of(trial.params) for trial in complete}
            for key in sorted(judged, key=lambda key: key.key):
                if key in self._space and key not in told and judged[key].score is not None:
                    self._study.add_trial(self._finished(key, judged[key]))

    def propose(self, wanted: RuntimeSettings | None = None) -> Proposal:
        """Begin a trial of ``wanted``, a key of the space, or of what looks most promising."""
        with _storage_errors(self._study.study_name):
            if wanted is not None:
                values = self._space.values_of(wanted)
                self._study.enqueue_trial(values, user_attrs={_OWNER: self._owner.to_dict()})
            trial = self._study.ask(self._distributions)
            if wanted is None:
                trial.set_user_attr(_OWNER, self._owner.to_dict())
            return Proposal(trial=trial, settings=self._space.key_of(trial.params))

    def tell(self, proposal: Proposal, judged: Judged) -> None:
        """End a trial with what it was worth; without a score it failed."""
        if judged.score is None:
            self.fail(proposal, "; ".join(judged.reasons))
            return
        with _storage_errors(self._study.study_name):
            for constraint in judged.constraints:
                proposal.trial.set_constraint(constraint.name, constraint.amount)
            self._study.tell(proposal.trial, judged.score)

    def fail(self, proposal: Proposal, reason: str, *, interrupted: bool = False) -> None:
        """End a trial as failed for ``reason``; one that has ended stays as it is."""
        with _storage_errors(self._study.study_name), contextlib.suppress(UpdateFinishedTrialError):
            proposal.trial.set_user_attr(_ENDED, reason)
            if interrupted:
                proposal.trial.set_user_attr("interrupted", True)
            self._study.tell(proposal.trial, state=TrialState.FAIL)

    def _finished(self, key: RuntimeSettings, judged: Judged) -> FrozenTrial:
        return optuna.trial.create_trial(
            params=self._space.values_of(key),
            distributions=self._distributions,
            value=judged.score,
            constraints={constraint.name: constraint.amount for constraint in judged.constraints},
        )


@contextlib.contextmanager
def open_sampler(
    *, space: SearchSpace, url: str | None, name: str, group: str, seed: int, owner: Owner
) -> Iterator[SettingsSampler]:
    """The study called ``name``, new or continued, in the database at ``url`` (None: in memory).

    Trials left unfinished by dead processes are ended first, in every study whose name starts with ``group``.
    The sampler's randomness depends only on ``seed`` and the number of trials so far. Raises
    ``AutotuneError`` when the database cannot be used.
    """
    with _quiet(), contextlib.ExitStack() as stack:
        with _storage_errors(name):
            storage = _open_storage(url, stack)
            _reap(storage, group)
            study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
            so_far = len(study.get_trials(deepcopy=False))
            study.sampler = optuna.samplers.TPESampler(
                seed=_sampler_seed(seed, so_far), multivariate=True, constant_liar=False
            )
        yield SettingsSampler(study, space, owner)


def _open_storage(url: str | None, stack: contextlib.ExitStack) -> BaseStorage:
    if url is None:
        return InMemoryStorage()
    storage = RDBStorage(url)
    stack.callback(storage.engine.dispose)
    stack.callback(storage.remove_session)
    return storage


def _reap(storage: BaseStorage, group: str) -> None:
    for name in optuna.get_all_study_names(storage):
        if not name.startswith(group):
            continue
        study_id = storage.get_study_id_from_name(name)
        for trial in storage.get_all_trials(study_id, deepcopy=False, states=_UNFINISHED):
            if _is_abandoned(trial):
                trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
                storage.set_trial_user_attr(trial_id, _ENDED, "its process is gone")
                storage.set_trial_state_values(trial_id, TrialState.FAIL)


def _is_abandoned(trial: FrozenTrial) -> bool:
    owner = Owner.from_dict(trial.user_attrs.get(_OWNER))
    if owner is None:  # killed between the first write of the trial and the second
        return True
    begun = trial.datetime_start  # Optuna's local time, which has no zone
    return not owner.may_work_on(begun and begun.astimezone())


def _sampler_seed(seed: int, so_far: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{so_far}".encode()).digest()[:4])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna reports every study it opens; only its warnings are news to our users."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextlib.contextmanager
def _storage_errors(study: str) -> Iterator[None]:
    try:
        yield
    except UpdateFinishedTrialError:
        raise
    except (OptunaError, SQLAlchemyError, ImportError) as error:  # a driver may not be installed
        cause = error.__cause__ or error
        line = " ".join(str(cause).split("\n", 1)[0].split())
        raise AutotuneError(
            f"study {study}: its database failed: {line}; check that it can be written, or move it aside"
        ) from error
