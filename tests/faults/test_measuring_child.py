"""A run as a child of the daemon: stopped in time, dead with the daemon, and its end told in one line."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from autotuner.daemon.measuring_child import run_tuner
from autotuner.paths import DATABASE_VARIABLE
from autotuner.store import Store
from tests.support.families import Family
from tests.support.postgres import Server

_DAEMON = """
import sys
from autotuner.daemon.measuring_child import run_tuner
run_tuner(sys.argv[1:], nice=5, seconds=300.0, stop=lambda: False, beat=lambda: None)
"""


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def asked(tmp_path: Path, symbol: str = "AMD") -> list[str]:
    return ["run", "--json", "--symbol", symbol, "--db", str(tmp_path / "autotune.db"), "--timeout", "120"]


def test_a_run_that_fails_tells_its_reason_in_one_line(tmp_path: Path) -> None:
    heard: list[str] = []
    found = run_tuner(
        asked(tmp_path, "NOPE"),
        nice=0,
        seconds=60.0,
        stop=lambda: False,
        beat=lambda: None,
        heard=heard.append,
    )

    assert (found.document, found.stopped, found.killed) == (None, False, False)
    assert heard[-1] == found.cause
    assert "NOPE" in found.cause
    assert "\n" not in found.cause


def test_a_run_is_stopped_within_ten_seconds_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = Family(monkeypatch)
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1

    asked_to_stop = 0.0

    def stop() -> bool:
        nonlocal asked_to_stop
        if len(family.alive()) < 4:  # the run, its watcher, an arm and that one's watcher
            return False
        asked_to_stop = asked_to_stop or time.monotonic()
        return True

    found = run_tuner(asked(tmp_path), nice=5, seconds=120.0, stop=stop, beat=beat)

    assert time.monotonic() - asked_to_stop < 10.0
    assert (found.document, found.stopped) == (None, True)
    assert beats > 2  # as often as it looked, however soon the processes were there
    assert family.left(within=5.0) == []


def test_a_run_dies_with_the_daemon(tmp_path: Path) -> None:
    daemon = subprocess.Popen([sys.executable, "-c", _DAEMON, *asked(tmp_path)])
    family: list[psutil.Process] = []
    end = time.monotonic() + 60.0
    while len(family) < 4 and time.monotonic() < end:
        family = psutil.Process(daemon.pid).children(recursive=True)
        time.sleep(0.05)
    daemon.kill()
    daemon.wait()

    assert len(family) >= 4
    _, alive = psutil.wait_procs(family, timeout=10.0)
    assert alive == []


def test_a_child_that_begins_while_the_stores_server_is_away_waits_for_it(postgres: Server) -> None:
    place = postgres.new_database()
    Store(place).__exit__(None, None, None)
    postgres.stop("fast")
    back = threading.Timer(3.0, postgres.start)
    back.start()
    try:
        heard: list[str] = []
        found = run_tuner(
            ["list", "--json"],
            nice=0,
            seconds=60.0,
            stop=lambda: False,
            beat=lambda: None,
            variables={DATABASE_VARIABLE: place},
            heard=heard.append,
        )
    finally:
        back.join()

    assert found.document is not None, found.cause
    assert any(line.startswith("waiting: ") for line in heard)
    assert any(line.startswith("the store is back after ") for line in heard)
