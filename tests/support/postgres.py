"""A PostgreSQL server of the tests' own: started in a temporary folder on a socket, gone afterwards."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import create_engine, text

_NUMBERS = itertools.count()
_INSTALLED = "/usr/lib/postgresql"


def binaries() -> Path | None:
    """The newest server's folder of programs, None when none is installed."""
    found = sorted(Path(_INSTALLED).glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


def empty_database(url: str) -> str:
    """The URL of a new, empty database on the server at ``url``, gone with that."""
    name = f"store{next(_NUMBERS)}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return url.replace("/postgres?", f"/{name}?")


@dataclass(frozen=True)
class Server:
    """A server that can be stopped and started again; ``url`` is that of its database."""

    url: str
    control: tuple[str, ...]
    options: str
    data: Path

    def start(self) -> None:
        """Start it, and wait until it answers."""
        subprocess.run([*self.control, "-o", self.options, "start"], check=True, capture_output=True)

    def stop(self, mode: str) -> None:
        """End it: ``fast`` as for an upgrade, ``immediate`` without a word to anyone."""
        subprocess.run([*self.control, "-m", mode, "stop"], check=False, capture_output=True)

    def kill(self) -> None:
        """Kill its first process, as when memory runs out, and wait until the others have noticed."""
        pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        children = psutil.Process(pid).children(recursive=True)
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs(children, timeout=30)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of an empty database on a fresh server. Raises ``LookupError`` where no server is installed."""
    with controlled_server() as found:
        yield found.url


@contextlib.contextmanager
def controlled_server() -> Iterator[Server]:
    """A fresh server with an empty database. Raises ``LookupError`` where no server is installed."""
    programs = binaries()
    if programs is None:
        raise LookupError("no PostgreSQL server is installed")
    with tempfile.TemporaryDirectory(prefix="autotune-postgres-") as folder:
        home = Path(folder)
        as_user: list[str] = []
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(home, "postgres")
            as_user = ["runuser", "-u", "postgres", "--"]
        data, log = home / "data", home / "log"
        options = f"-k {home} -c listen_addresses='' -c fsync=off"
        run = [*as_user, str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "autotune"]
        subprocess.run(run, check=True, capture_output=True)
        control = (*as_user, str(programs / "pg_ctl"), "-D", str(data), "-l", str(log), "-w")
        found = Server(f"postgresql+psycopg://autotune@/postgres?host={home}", control, options, data)
        found.start()
        try:
            yield found
        finally:
            found.stop("immediate")
