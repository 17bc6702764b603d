"""A PostgreSQL server of the tests' own: started in a temporary folder on a socket, gone afterwards."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

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


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The URL of an empty database on a fresh server. Raises ``LookupError`` where no server is installed."""
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
        control = [*as_user, str(programs / "pg_ctl"), "-D", str(data), "-l", str(log), "-w"]
        subprocess.run([*control, "-o", options, "start"], check=True, capture_output=True)
        try:
            yield f"postgresql+psycopg://autotune@/postgres?host={home}"
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True)
