"""Keeps the Optuna study of one search: opens it, ends what dead processes left, asks it and tells it results."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import optuna
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from autotuner.errors import AutotuneError, plain_line
from autotuner.machine.process import Owner
from autotuner.search.gain_model import Outlook
from autotuner.search.sampler import SECONDS, GainPerSecondSampler, distributions
from autotuner.search.scoring import Judged
from autotuner.search.space import SearchSpace
from autotuner.search.study_storage import open_storage
from toto_core.settings import RuntimeSettings

_UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)

_OWNER, _ENDED = "owner", "ended"


@dataclass
class SearchStudy:
    """An Optuna study with its sampler; made by ``open_study``.

    Every method raises ``AutotuneError`` when the study database fails, ``StorageError`` when its server is away
    for longer than ``storage.patience`` says.
    """

    study: optuna.Study
    sampler: GainPerSecondSampler

    def outlooks(self) -> tuple[Outlook, ...]:
        """A prediction for each key that was not tried yet."""
        with _storage_errors(self.study.study_name):
            return self.sampler.outlooks(self.study)

    def ask(self, wanted: RuntimeSettings | None = None) -> tuple[Trial, RuntimeSettings | None]:
        """Begin a trial of ``wanted`` or of what the sampler proposes, with its key, None outside the space."""
        owner = Owner.current().to_dict()
        with _storage_errors(self.study.study_name):
            if wanted is not None:
                self.study.enqueue_trial(self.sampler.space.values_of(wanted), user_attrs={_OWNER: owner})
            trial = self.study.ask(self.sampler.distributions)
            if wanted is None:
                trial.set_user_attr(_OWNER, owner)
            return trial, self.sampler.space.key_of(trial.params)

    def tell(self, trial: Trial, judged: Judged, seconds: float | None) -> None:
        """End a trial with its score and the seconds it took, None if nothing was measured; no score is a failure."""
        with _storage_errors(self.study.study_name):
            if seconds is not None:
                trial.set_user_attr(SECONDS, seconds)
            if judged.score is None:
                self.fail(trial, "; ".join(judged.reasons))
                return
            for constraint in judged.constraints:
                trial.set_constraint(constraint.name, constraint.amount)
            self.study.tell(trial, judged.score)

    def fail(self, trial: Trial, reason: str, *, interrupted: bool = False) -> None:
        """End a trial as failed for ``reason``; one that has ended stays as it is."""
        with _storage_errors(self.study.study_name), contextlib.suppress(UpdateFinishedTrialError):
            trial.set_user_attr(_ENDED, reason)
            if interrupted:
                trial.set_user_attr("interrupted", True)
            self.study.tell(trial, state=TrialState.FAIL)


@contextlib.contextmanager
def open_study(
    *,
    url: str | None,
    name: str,
    group: str,
    space: SearchSpace,
    known: Mapping[RuntimeSettings, Judged],
    seed: int,
    make_sampler: Callable[[int, int], GainPerSecondSampler],
) -> Iterator[SearchStudy]:
    """The study called ``name``, new or continued, in the database at ``url`` (None: in memory).

    Trials left unfinished by dead processes are ended first, in every study whose name starts with ``group``,
    and ``known`` scores that the study was not told yet are added. ``make_sampler`` gets a seed that depends
    only on ``seed`` and the number of trials so far, and the number of its first trial. Raises
    ``AutotuneError`` when the database cannot be used.
    """
    with _quiet(), contextlib.ExitStack() as stack:
        with _storage_errors(name):
            storage = _open_storage(url, stack)
            _end_abandoned(storage, group)
            study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
            so_far = len(study.get_trials(deepcopy=False))
            for trial in _untold(study, space, known):
                study.add_trial(trial)
            sampler_seed = int.from_bytes(hashlib.sha256(f"{seed}:{so_far}".encode()).digest()[:4])
            study.sampler = sampler = make_sampler(sampler_seed, len(study.get_trials(deepcopy=False)))
        yield SearchStudy(study, sampler)


def _untold(
    study: optuna.Study, space: SearchSpace, known: Mapping[RuntimeSettings, Judged]
) -> list[FrozenTrial]:
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    already_told = {space.key_of(trial.params) for trial in complete}
    return [
        optuna.trial.create_trial(
            params=space.values_of(key),
            distributions=distributions(space),
            value=known[key].score,
            constraints={constraint.name: constraint.amount for constraint in known[key].constraints},
        )
        for key in sorted(known, key=lambda key: key.key)
        if key in space and key not in already_told and known[key].score is not None
    ]


def _open_storage(url: str | None, stack: contextlib.ExitStack) -> BaseStorage:
    if url is None:
        return InMemoryStorage()
    storage = open_storage(url)
    stack.callback(storage.engine.dispose)
    stack.callback(storage.remove_session)
    return storage


def _end_abandoned(storage: BaseStorage, group: str) -> None:
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
        line = plain_line(str(cause).split("\n", 1)[0])
        raise AutotuneError(
            f"study {study}: its database failed: {line}; check that it can be written, or move it aside"
        ) from error
