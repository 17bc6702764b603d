"""Whatever is killed, the next command leaves nothing of it lying about."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from autotuner.commands.clear_up import clear_up, left_behind
from autotuner.store import Store
from tests.support.command import Cli
from toto_core.held_folders import HeldFolder
from toto_core.settings import RuntimeSettings

RUN = ("run", "--symbol", "AMD", "--timeout", "60", "--json")


@pytest.fixture
def place(tmp_path: Path) -> Cli:
    (tmp_path / "tmp").mkdir()
    with Store(str(tmp_path / "autotune.db")) as store:
        store.pin("TSLA", RuntimeSettings(), "calm")
    return Cli(tmp_path)


def held(place: Cli) -> list[Path]:
    return list((place.folder / "tmp").iterdir())


def killed_run(place: Cli, *, after: float = 0.0, meanwhile: bool = False) -> None:
    """Kill a real run some time after it has begun to measure."""
    own = {"TMPDIR": str(place.folder / "tmp")}
    with place.start(*RUN, extra=own) as run:
        try:
            end = time.monotonic() + 60
            while not held(place):
                assert run.poll() is None, run.communicate()
                assert time.monotonic() < end
                time.sleep(0.02)
            if meanwhile:
                assert place.run("db", "prune", extra=own).returncode == 0
                assert len(held(place)) == 1  # the run lives
            time.sleep(after)
        finally:
            run.send_signal(signal.SIGKILL)


def test_the_folder_of_a_killed_run_goes_with_the_next_command_and_that_of_a_living_one_stays(
    place: Cli,
) -> None:
    killed_run(place, meanwhile=True)
    assert len(held(place)) == 1

    pruned = place.run("db", "prune", extra={"TMPDIR": str(place.folder / "tmp")})
    assert pruned.returncode == 0
    assert held(place) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("after", [0.5, 2.0, 6.0, 12.0, 20.0, 30.0])
def test_a_run_killed_at_any_moment_leaves_nothing_after_the_next_run(place: Cli, after: float) -> None:
    killed_run(place, after=after)
    time.sleep(1)  # its children end when they see that it has
    done = place.run(*RUN[:-3], "--timeout", "1", extra={"TMPDIR": str(place.folder / "tmp")})
    assert "Traceback" not in done.stderr
    assert "that a killed process left behind" in done.stderr
    assert held(place) == []
    assert not [path for path in place.folder.rglob("*") if path.name.endswith((".held", ".new"))]


@pytest.fixture
def own_temporary_folder(place: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests' killed processes leave in the machine's is not counted."""
    monkeypatch.setenv("TMPDIR", str(place.folder / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.mark.usefixtures("own_temporary_folder")
def test_what_lies_in_the_cache_and_beside_the_store_goes_too(
    place: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = place.folder / "cache"
    monkeypatch.setenv("AUTOTUNE_CACHE", str(cache))
    spool = place.folder / "autotune-spool"
    spool.mkdir()
    artifacts = cache / "0123456789abcdef" / "fedcba9876543210"
    above = {
        "apart-": cache / "trials-0123456789abcdef-1-2",
        "building-": cache / "trials-0123456789abcdef-1-2" / "k" / "packages",
        "run-1-2-host-": artifacts.parent,
        "autotune-": place.folder / "tmp",
    }
    for folder in (*above.values(), artifacts, cache / "headers" / "1"):
        folder.mkdir(parents=True, exist_ok=True)
    made = [HeldFolder(prefix, folder) for prefix, folder in above.items()]
    made.append(HeldFolder("building-", cache / "headers" / "1"))
    halves = [folder / f".file.{digit * 16}.held" for folder, digit in ((place.folder, "1"), (spool, "2"))]
    for half in (*halves, artifacts / f".lib.so.{'3' * 16}.held"):
        half.touch()
    location = str(place.db)
    assert set(left_behind(location)) == set(halves)  # the folders' maker lives

    for each in made:
        os.close(each._held)  # as the kernel does with a killed process's
    assert set(left_behind(location)) == {*halves, *(each.path for each in made)}
    assert clear_up(location) == len(made) + len(halves)
    assert left_behind(location) == []
    assert clear_up(location, deep=True) == 1
    assert not list(artifacts.iterdir())


WRITE_AND_DIE = """
import os, sqlite3, sys
studies = sqlite3.connect(sys.argv[1], isolation_level=None)
studies.execute("CREATE TABLE t (x TEXT)")
studies.executemany("INSERT INTO t VALUES (?)", [("a" * 1000,)] * 10)
studies.execute("PRAGMA cache_size=1")
studies.execute("BEGIN IMMEDIATE")
studies.execute("UPDATE t SET x = 'b' || x")
os.kill(os.getpid(), 9)
"""


@pytest.mark.usefixtures("own_temporary_folder")
def test_what_a_killed_writer_of_the_studies_began_is_undone_by_the_next_command(place: Cli) -> None:
    studies = place.folder / "autotune-studies.db"
    subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(studies)], check=False)
    assert Path(f"{studies}-journal").stat().st_size > 0

    assert clear_up(str(place.folder / "autotune.db")) == 1
    assert not Path(f"{studies}-journal").exists()
    with closing(sqlite3.connect(studies)) as read:
        assert read.execute("SELECT count(*) FROM t WHERE x LIKE 'b%'").fetchone() == (0,)


@pytest.mark.usefixtures("own_temporary_folder")
def test_an_interrupt_while_python_tries_out_the_temporary_folder_leaves_nothing_there(
    place: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = os.unlink
    interrupted: list[str] = []

    def interrupted_first(path: str) -> None:
        interrupted.append(path)
        signal.raise_signal(signal.SIGINT)
        remove(path)

    monkeypatch.setattr(os, "unlink", interrupted_first)
    with pytest.raises(KeyboardInterrupt):
        clear_up(str(place.db))
    assert len(interrupted) == 1
    assert held(place) == []
