"""Many processes want one device: exactly one holds its lease at any moment, and a dead holder blocks nobody."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autotuner.device_lock import _file_lock, device_id, held_lease
from autotuner.errors import AutotuneError
from autotuner.machine.nvidia import Gpu
from autotuner.machine.process import Owner
from storage.database import open_database
from storage.repository import Repository

ROUNDS = 100
_CONTENDER = """
import sys, time
from autotuner.device_lock import held_lease
from storage.database import open_database
from storage.repository import Repository

records = Repository(open_database(sys.argv[1]))
held = []
for _ in range(int(sys.argv[2])):
    with held_lease(records, "machine/cpu", seconds=120.0, say=lambda _: None, ttl_seconds=20.0) as lease:
        begun = time.monotonic()
        time.sleep(0.002)
        print(lease.token, begun, time.monotonic(), flush=True)
    time.sleep(0.001)
"""
_HOLDER = """
import sys, time
from autotuner.device_lock import held_lease
from storage.database import open_database
from storage.repository import Repository

records = Repository(open_database(sys.argv[1]))
with held_lease(records, "machine/cpu", seconds=10.0, say=lambda _: None, ttl_seconds=float(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["sqlite", "postgresql"], scope="module")
def location(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "sqlite":
        url = str(tmp_path_factory.mktemp("store") / "autotune.db")
    else:
        url = request.getfixturevalue("postgres").new_database()
    open_database(url).close()
    return url


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Repository]:
    with open_database(str(tmp_path / "autotune.db")) as database:
        yield Repository(database)


def test_of_two_that_race_a_hundred_times_exactly_one_holds_at_any_moment(location: str) -> None:
    racing = [
        subprocess.Popen(
            [sys.executable, "-c", _CONTENDER, location, str(ROUNDS // 2)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    lines = [line for process in racing for line in process.communicate(timeout=120)[0].splitlines()]
    held = sorted((float(begun), float(ended), int(token)) for token, begun, ended in map(str.split, lines))

    assert [process.returncode for process in racing] == [0, 0]
    assert len(held) == ROUNDS
    assert all(early[1] <= late[0] for early, late in itertools.pairwise(held))
    tokens = [token for *_, token in held]
    assert tokens == sorted(set(tokens))


def test_a_holder_that_was_killed_is_not_waited_for_on_its_own_machine(location: str) -> None:
    command = [sys.executable, "-c", _HOLDER, location, "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
    begun = time.monotonic()
    with (
        open_database(location) as database,
        held_lease(Repository(database), "machine/cpu", seconds=30.0, say=lambda _: None),
    ):
        assert time.monotonic() - begun < 5.0


def test_the_lease_of_another_machine_ends_by_itself(records: Repository) -> None:
    elsewhere = json.dumps(Owner(pid=1, started=1.0, host="elsewhere").to_dict())
    assert records.acquire_lease("machine/cpu", elsewhere, datetime.now(UTC), 1.5) is not None
    said: list[str] = []
    begun = time.monotonic()
    with held_lease(records, "machine/cpu", seconds=30.0, say=said.append):
        assert 1.0 < time.monotonic() - begun < 10.0
    assert said == ["waiting: process 1 on elsewhere is measuring on this device"]


def test_a_device_that_stays_taken_is_given_up_with_the_holders_name(records: Repository) -> None:
    with (
        held_lease(records, "machine/cpu", seconds=1.0, say=lambda _: None),
        pytest.raises(AutotuneError, match=f"process {os.getpid()} on"),
        held_lease(records, "machine/cpu", seconds=0.3, say=lambda _: None),
    ):
        pass


def test_a_lease_outlives_its_time_by_heartbeats_and_says_when_it_is_lost(records: Repository) -> None:
    with held_lease(records, "machine/cpu", seconds=1.0, say=lambda _: None, ttl_seconds=0.6) as lease:
        token = lease.token
        time.sleep(1.5)
        lease.check()
        assert lease.token == token
        (running,) = records.leases(datetime.now(UTC))
        records.release_lease(running, datetime.now(UTC))  # as another machine might after a long silence
        time.sleep(0.8)
        with pytest.raises(AutotuneError, match="lease on the device was lost"):
            lease.check()


@contextlib.contextmanager
def store_away(path: Path) -> Iterator[sqlite3.Connection]:
    """Nobody else reads or writes the store inside the block."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield other
        other.execute("COMMIT")


@pytest.mark.parametrize("between", [False, True], ids=["nobody", "another"])
def test_a_lease_that_ran_out_while_the_store_was_away_is_taken_again_unless_another_had_it(
    tmp_path: Path, between: bool
) -> None:
    path = tmp_path / "autotune.db"
    with (
        open_database(path, busy_timeout_s=0.05) as database,
        held_lease(
            Repository(database), "machine/cpu", seconds=1.0, say=lambda _: None, ttl_seconds=0.4
        ) as lease,
    ):
        token = lease.token
        assert token is not None
        with store_away(path) as other:
            time.sleep(0.8)
            if between:
                other.execute("UPDATE leases SET owner = 'another', token = token + 1")
        if between:
            with pytest.raises(AutotuneError, match="lease on the device was lost"):
                lease.check()
        else:
            lease.check()
            assert lease.token == token + 1


def test_a_lease_leaves_no_thread_behind(records: Repository) -> None:
    before = set(threading.enumerate())
    with held_lease(records, "machine/cpu", seconds=1.0, say=lambda _: None):
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before


def test_devices_of_one_machine_have_leases_of_their_own() -> None:
    assert device_id("cpu") != device_id("cuda")
    assert device_id("cpu") == device_id("cpu")


def test_a_run_on_a_gpu_keeps_cpu_runs_out_and_lets_other_gpus_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotuner.device_lock.data_folder", lambda: tmp_path)
    cards = iter(("GPU-a", "GPU-b"))
    monkeypatch.setattr(
        "autotuner.device_lock.visible_gpu", lambda: Gpu(uuid=next(cards), model="H100", driver="580")
    )
    with _file_lock("cuda", seconds=0.0, say=lambda _: None):
        with _file_lock("cuda", seconds=0.0, say=lambda _: None):
            pass
        with (
            pytest.raises(AutotuneError, match="has been measuring on cpu"),
            _file_lock("cpu", seconds=0.0, say=lambda _: None),
        ):
            pass
    with _file_lock("cpu", seconds=0.0, say=lambda _: None):
        pass
