"""What is particular to PostgreSQL: connections and their limits, what errors mean, whether a commit landed."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from storage.errors import StorageError, StoreUnavailable, TryAgain
from storage.patience import until_done

_CONNECTIONS, _MORE_AT_ONCE, _WAIT_FOR_ONE_S = 4, 12, 30.0
_CONNECT_S, _STATEMENT_S, _IDLE_IN_TRANSACTION_S = 10, 60, 60
# A server that is gone without a word is noticed within a minute, in the midst of an answer, too.
_NETWORK = {
    "connect_timeout": str(_CONNECT_S),
    "keepalives": "1",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "application_name": "autotune",
}
_UPGRADES = 0x6175746F74756E65  # "autotune": the key of the lock that upgrades hold
_CLASHES = {
    "40001": "another transaction changed the same",
    "40P01": "two transactions waited for each other",
    # What is stored by its own key is stored with ON CONFLICT: two that read the same row met here.
    "23505": "another transaction stored the same",
}
_LOCKED, _TOO_LONG, _FORBIDDEN = "55P03", "57014", "42501"
_OF_THE_DRIVER = (
    "DataError",
    "ProgrammingError",
    "NotSupportedError",
)  # of the driver itself, without a state
_SERVER_GOES = ("57P01", "57P02", "57P03", "57P05", "25P03", "53300", "08")

_MARKS = "write_marks"
_MARK = text(
    f"INSERT INTO {_MARKS} (writer, token, marked_at) VALUES (:writer, :token, now()) "  # noqa: S608
    "ON CONFLICT (writer) DO UPDATE SET token = excluded.token, marked_at = excluded.marked_at"
)
# An update of the row waits until a transaction that is still at it has ended, one way or the other.
_WHICH = text(
    f"INSERT INTO {_MARKS} (writer, token, marked_at) VALUES (:writer, '', now()) "  # noqa: S608
    f"ON CONFLICT (writer) DO UPDATE SET token = {_MARKS}.token RETURNING token"
)
_FORGET = text(
    f"DELETE FROM {_MARKS} WHERE writer IN (SELECT writer FROM {_MARKS} "  # noqa: S608
    "WHERE marked_at < now() - interval '1 day' FOR UPDATE SKIP LOCKED)"
)
_writer = threading.local()


def server_url(address: str, **parameters: str) -> URL:
    """The URL of a server, with parameters of libpq added. Raises ``StoreUnavailable`` for what is no URL."""
    try:
        return make_url(address).update_query_dict(parameters)
    except (ArgumentError, ValueError):
        raise StoreUnavailable(
            "the store's address is no URL: give a path or postgresql+psycopg://…"
        ) from None


def server_engine(url: URL, *, lock_s: float, read_only: bool = False) -> Engine:
    """Connections to a server that give up in the end, whatever happens; what the URL itself says holds.

    Raises ``StoreUnavailable`` where the driver is missing.
    """
    try:
        engine = create_engine(
            url,
            connect_args=connect_args(url, lock_s=lock_s, read_only=read_only),
            pool_pre_ping=True,
            pool_size=_CONNECTIONS,
            max_overflow=_MORE_AT_ONCE,
            pool_timeout=_WAIT_FOR_ONE_S,
            pool_recycle=1800,
        )
    except (ImportError, NoSuchModuleError) as error:
        raise StoreUnavailable(
            f"{url.drivername} needs a driver ({error}): pip install 'psycopg[binary]'"
        ) from error
    _part_with_forked_connections(engine)
    return engine


def connect_args(url: URL, *, lock_s: float, read_only: bool = False) -> dict[str, Any]:
    """What connections to ``url`` are opened with, for engines that others make."""
    limits = {
        "statement_timeout": _STATEMENT_S,
        "lock_timeout": lock_s,
        "idle_in_transaction_session_timeout": _IDLE_IN_TRANSACTION_S,
    }
    options = [f"-c {name}={max(1, round(seconds * 1000))}" for name, seconds in limits.items()]
    if read_only:
        options.append("-c default_transaction_read_only=on")
    own = url.query.get("options", ())
    chosen = [
        *options,
        *((own,) if isinstance(own, str) else own),
    ]  # of two that say the same the last one holds
    given = {name: value for name, value in _NETWORK.items() if name not in url.query}
    # Statements prepared by one connection of a pooler between would be unknown to its next.
    prepared = {"prepare_threshold": None} if url.get_driver_name() == "psycopg" else {}
    return {**given, "options": " ".join(chosen), **prepared}


def _part_with_forked_connections(engine: Engine) -> None:
    """Two processes that speak over one connection would read each other's answers."""

    @event.listens_for(engine, "connect")
    def remember(_connection: Any, record: Any) -> None:
        record.info["pid"] = os.getpid()

    @event.listens_for(engine, "checkout")
    def refuse(_connection: Any, record: Any, proxy: Any) -> None:
        if record.info["pid"] != os.getpid():
            record.dbapi_connection = proxy.dbapi_connection = None
            raise DisconnectionError("this connection belongs to the process that was forked")


def be_alone_in_upgrading(connection: Connection) -> None:
    """Keep others from changing the schema until the transaction ends, however long that takes."""
    for setting in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(text(f"SET LOCAL {setting} = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADES})


@contextmanager
def marked_write(engine: Engine, translate: Callable[[Exception], StorageError]) -> Iterator[Connection]:
    """One write transaction on a server. Where the connection is lost in mid-commit, find out what became of it.

    The last statement leaves this writer's mark. When the commit is not answered, the mark is read, as soon as the
    server is back: what is committed is not repeated, and what is not is raised as ``TryAgain``.
    """
    token = str(uuid.uuid4())
    with engine.connect() as connection:
        transaction = connection.begin()
        try:
            yield connection
            _mark(connection, token)
        except BaseException:
            _undo(connection)
            raise
        try:
            transaction.commit()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            lost = translate(error)
        else:
            return
    try:
        landed = until_done(lambda: _landed(engine, token, translate))
    except StorageError as error:
        raise StoreUnavailable(
            f"{error}; whether the last change was stored is not known: look before doing it again"
        ) from error
    if not landed:
        raise lost


def _undo(connection: Connection) -> None:
    try:
        connection.rollback()
    except DBAPIError:  # then the server has undone it
        connection.invalidate()


def _landed(engine: Engine, token: str, translate: Callable[[Exception], StorageError]) -> bool:
    try:
        with engine.begin() as connection:
            return bool(connection.execute(_WHICH, {"writer": _writer.name}).scalar_one() == token)
    except (DBAPIError, PoolTimeoutError) as error:
        raise translate(error) from error


def _mark(connection: Connection, token: str) -> None:
    if (
        getattr(_writer, "pid", None) != os.getpid()
    ):  # one name for each thread of each process, forked ones too
        _writer.pid, _writer.name = os.getpid(), f"{os.getpid()}-{uuid.uuid4()}"
        connection.execute(_FORGET)
    connection.execute(_MARK, {"writer": _writer.name, "token": token})


def translated_server_error(error: Exception, cause: object, store: str, detail: str) -> StorageError | None:
    """The error of this package for what a server said, None for what no rule here is about."""
    state = getattr(cause, "sqlstate", None)
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    # Without a state the server never answered, or it refused to be spoken to; unless the driver refused to ask.
    silent = state is None and type(cause).__name__ not in _OF_THE_DRIVER
    if lost or silent or (state or "").startswith(_SERVER_GOES):
        return TryAgain(f"{store} cannot be reached ({detail}): check the server and the address")
    if state in _CLASHES:
        return TryAgain(
            f"{store} is in use by many at once ({_CLASHES[state]}): try again when they are done", clash=True
        )
    if state == _LOCKED:
        return StoreUnavailable(f"{store} is locked by another process: try again when that is done")
    if state == _TOO_LONG:
        return StoreUnavailable(
            f"{store} took longer over one statement than {_STATEMENT_S} s: try again when it has less to do"
        )
    if state == _FORBIDDEN:
        return StoreUnavailable(f"{store} may not be used so ({detail}): have it granted to this user")
    return None
