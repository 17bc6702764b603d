"""Opens the database of Optuna's studies, and lets a search outlast a server that is away for a while."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

from optuna.exceptions import OptunaError, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState
from sqlalchemy import Table, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from autotuner.paths import STUDIES_SCHEMA
from storage.errors import TryAgain
from storage.masking import masked_address
from storage.patience import repeated
from storage.servers import be_alone_in_upgrading, connect_args, server_engine
from storage.sqlite_files import translated

Result = TypeVar("Result")

_LOCK_S = 10.0
# What Optuna's cache over a storage calls is among them.
_HAS_SCHEMA = text("SELECT 1 FROM pg_namespace WHERE nspname = :name")
_CALLED = (
    *sorted(BaseStorage.__abstractmethods__),
    "_create_new_trial",
    "_set_trial_param",
    "_get_best_trial_id",
    "_get_trials",
    "get_n_trials",
    "get_best_trial",
)


class PatientStorage(RDBStorage):
    """Optuna's storage on a server: each call is begun again while the server is away (``patience``).

    A commit that is not answered may be repeated. A trial or an attribute that is then stored twice does no harm:
    what was measured is in the store, the spare trial is ended with those of dead processes, and a trial that has
    ended already is not ended again.
    """

    def __init__(self, url: str, engine_kwargs: dict[str, Any], *, skip_table_creation: bool = False) -> None:
        try:
            super().__init__(url, engine_kwargs, skip_table_creation=skip_table_creation)
        except BaseException:
            if hasattr(self, "engine"):  # nobody else could let go of its connections
                self.engine.dispose()
            raise

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's."""
        tries = 0

        def act() -> bool:
            nonlocal tries
            tries += 1
            try:
                return super(PatientStorage, self).set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                if tries > 1:  # the first try was stored, only its answer was lost
                    return True
                raise

        return _patiently(self, act)


def open_storage(url: str, *, read_only: bool = False) -> RDBStorage:
    """The studies at ``url`` (``paths.studies_url``); on a server, what is missing is made, unless ``read_only``.

    Raises what Optuna and SQLAlchemy raise, ``StorageError`` for a server that cannot be reached.
    """
    try:
        server = make_url(url).get_backend_name() == "postgresql"
    except ArgumentError:
        server = False
    if not server:
        return RDBStorage(url, skip_table_creation=read_only)
    return repeated(lambda: _translating(url, lambda: _on_server(url, read_only=read_only)))


def tables() -> tuple[Table, ...]:
    """Optuna's tables, each after those it refers to, without those that only say of which version they are."""
    from optuna.storages._rdb.models import BaseModel, VersionInfoModel

    own: Any = BaseModel.metadata
    return tuple(table for table in own.sorted_tables if table.name != VersionInfoModel.__tablename__)


def _on_server(url: str, *, read_only: bool) -> RDBStorage:
    place = make_url(url)
    arguments = connect_args(place, lock_s=_LOCK_S, read_only=read_only)
    kwargs = {"connect_args": arguments, "pool_pre_ping": True, "pool_size": 2, "max_overflow": 2}
    if read_only:
        return PatientStorage(url, kwargs, skip_table_creation=True)
    engine = server_engine(place, lock_s=_LOCK_S)
    try:
        with engine.begin() as alone:
            be_alone_in_upgrading(alone)
            if alone.execute(_HAS_SCHEMA, {"name": STUDIES_SCHEMA}).first() is None:
                alone.execute(text(f"CREATE SCHEMA {STUDIES_SCHEMA}"))
        with engine.begin() as alone:  # two that make the same tables at once would meet
            be_alone_in_upgrading(alone)
            return PatientStorage(url, kwargs)
    finally:
        engine.dispose()


def _patiently(storage: RDBStorage, act: Callable[[], Result]) -> Result:
    return repeated(lambda: _translating(storage.url, act))


def _translating(url: str, act: Callable[[], Result]) -> Result:
    """What ``act`` returns. Raises ``TryAgain`` for what may be tried again, else what ``act`` raises."""
    try:
        return act()
    except (OptunaError, SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        if isinstance(cause, DBAPIError | PoolTimeoutError):
            place = make_url(url).difference_update_query(["options"])
            found = translated(cause, masked_address(place.render_as_string(hide_password=True)))
            if isinstance(found, TryAgain):
                raise found from error
        raise


def _begun_again(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: RDBStorage, *given: Any, **named: Any) -> Any:
        return _patiently(self, lambda: method(self, *given, **named))

    return call


for _name in _CALLED:
    if _name not in vars(PatientStorage):
        setattr(PatientStorage, _name, _begun_again(getattr(PatientStorage, _name)))
