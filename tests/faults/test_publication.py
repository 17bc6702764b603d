"""A change of the ledger and the snapshot that production reads: both or neither, whatever happens between."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotuner.paths import snapshot_path
from autotuner.serving.lookup import lookup
from autotuner.store import Store
from storage import ledger, publication
from storage.database import open_database
from storage.errors import StoreUnavailable
from storage.repository import Repository
from storage.snapshot import read_snapshot
from tests.support.command import Cli
from tests.support.faulty_system import library
from tests.support.postgres import or_skipped
from tests.support.storage_samples import NOW, PIN, PROMOTION, with_subjects
from toto_core.settings import RuntimeSettings

EAGER = RuntimeSettings()
BF16 = RuntimeSettings(precision="bf16")
ROOM = 420_000
"""Bytes a file may have: enough for the store with the change, too few for its snapshot, which spells out each é."""

# Every change of the ledger, of which each leaves a long text in the snapshot.
CHANGES: dict[str, Callable[[Repository], object]] = {
    "promote": lambda store: store.add_promotion(replace(PROMOTION, evidence_json=json.dumps("é" * 70_000))),
    "roll back": lambda store: store.roll_back("AMD", "slow", NOW),
    "pin": lambda store: store.pin(replace(PIN, symbol="MSFT", reason="é" * 70_000)),
    "unpin": lambda store: store.unpin("TSLA", "over", NOW),
    "import": lambda store: store.import_document(
        {
            "format": "autotune settings",
            "version": 1,
            "environments": [],
            "workloads": [],
            "promotions": [],
            "pins": [
                {
                    "symbol": "IBM",
                    "settings_key": "x",
                    "settings": {"mode": "é" * 5_000},
                    "reason": "é" * 5_000,
                    "pinned_at": NOW.isoformat(),
                }
            ],
        },
        validate_settings=lambda text: "key",
    ),
}


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Callable[[], str]]:
    """Makes empty databases on one server."""
    with or_skipped() as server:
        yield server.new_database


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.exhaustive)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A store and its snapshot, with something to take back."""
    on_server = request.param == "postgresql"
    place = request.getfixturevalue("postgresql")() if on_server else str(tmp_path / "autotune.db")
    snapshot = tmp_path / "snapshot.db"
    with open_database(place) as database:
        with_subjects(database)
        store = Repository(database, snapshot)
        store.add_promotion(PROMOTION)
        store.add_promotion(replace(PROMOTION, settings_key="another"))
        store.pin(replace(PIN, symbol="TSLA"))
        store.pin(replace(PIN, symbol="GOOG", reason="é" * 70_000))  # every later snapshot is too long
    return place, snapshot


def changed(place: tuple[str, Path], change: str, trouble: str) -> tuple[int, str]:
    """Make a change in a process of its own that gets into trouble; how it ended and the error it got."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(theirs, _change_in(trouble, place, change).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as said:
        error = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), error


def _change_in(trouble: str, place: tuple[str, Path], change: str) -> str:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if trouble == "killed before the commit":
        vars(publication)["sync"] = die
    if trouble == "killed after the commit":
        vars(ledger)["take_place"] = die
    with open_database(place[0]) as database:
        if trouble == "no room":
            resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))
        try:
            CHANGES[change](Repository(database, place[1]))
        except StoreUnavailable as error:
            return str(error)
    return ""


def contents(place: tuple[str, Path]) -> Any:
    with open_database(place[0]) as database:
        store = Repository(database)
        return store.promotions(), store.pin_history(), store.snapshot_contents()


def test_a_change_whose_snapshot_finds_no_room_is_none(place: tuple[str, Path]) -> None:
    before, published = contents(place), place[1].read_bytes()
    for change in CHANGES:
        _, said = changed(place, change, "no room")
        assert len(said.splitlines()) == 1
        assert str(place[1]) in said
        assert "nothing was changed" in said
        assert contents(place) == before
        assert place[1].read_bytes() == published
    assert not list(place[1].parent.glob(".*"))


def test_a_change_killed_before_it_is_committed_is_none(place: tuple[str, Path]) -> None:
    before = contents(place)
    for change in CHANGES:
        assert changed(place, change, "killed before the commit")[0] == -signal.SIGKILL
        assert contents(place) == before
        with open_database(place[0]) as database:
            assert not Repository(database, place[1]).publish_if_behind()


def test_a_change_killed_before_it_is_published_is_published_by_who_comes_next(
    place: tuple[str, Path],
) -> None:
    for change in CHANGES:
        assert changed(place, change, "killed after the commit")[0] == -signal.SIGKILL
        snapshot, (*_, now) = read_snapshot(place[1]), contents(place)
        assert (snapshot.entries, snapshot.pins) != now, change
        with open_database(place[0]) as database:
            assert Repository(database, place[1]).publish_if_behind()
            assert not Repository(database, place[1]).publish_if_behind()
        snapshot = read_snapshot(place[1])
        assert (snapshot.entries, snapshot.pins) == now
    assert not list(place[1].parent.glob(".*"))


def test_a_snapshot_that_cannot_get_its_name_is_told_apart_from_a_change_that_failed(
    place: tuple[str, Path],
) -> None:
    place[1].unlink()
    place[1].mkdir()
    with open_database(place[0]) as database:
        with pytest.raises(StoreUnavailable, match="the change is stored, but") as caught:
            Repository(database, place[1]).pin(replace(PIN, symbol="MSFT"))
        assert len(str(caught.value).splitlines()) == 1
        assert "MSFT" in {pin.symbol for pin in Repository(database).pins()}
    place[1].rmdir()
    with open_database(place[0]) as database:
        assert Repository(database, place[1]).publish_if_behind()
    assert "MSFT" in {pin.symbol for pin in read_snapshot(place[1]).pins}


def test_no_snapshot_is_older_than_the_one_before_it_and_each_change_is_seen_when_it_is_done(
    place: tuple[str, Path],
) -> None:
    done = threading.Event()

    def pin(name: str) -> None:
        with open_database(place[0], busy_timeout_s=30) as database:
            store = Repository(database, place[1])
            for number in range(5):
                store.pin(replace(PIN, symbol=f"{name}{number}"))
                assert f"{name}{number}" in {pin.symbol for pin in read_snapshot(place[1]).pins}

    def watch() -> list[int]:
        counts = []
        while not done.is_set():
            counts.append(len(read_snapshot(place[1]).pins))
        return counts

    with ThreadPoolExecutor(4) as pool:
        watching = pool.submit(watch)
        writers = [pool.submit(pin, name) for name in "ABC"]
        try:
            for writer in writers:
                writer.result()
        finally:
            done.set()
        counts = watching.result()
    assert counts == sorted(counts)
    assert len(read_snapshot(place[1]).pins) == 2 + 3 * 5


def test_a_command_whose_snapshot_finds_no_room_says_so_and_changes_nothing(tmp_path: Path) -> None:
    place = Cli(tmp_path)
    with Store(str(place.db)) as store:
        store.pin("AMD", EAGER, "calm")
    command = [*place.interpreter, "pin", "AMD", "--mode", "eager", "--reason", "é" * 60_000]
    done = subprocess.run(
        [command[0], "-c", *command[1:]],
        env=place.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "nothing was changed" in done.stderr
    with Store(str(place.db)) as store:
        assert [pin.reason for pin in store.records.pin_history("AMD")] == ["calm"]


SYNCS_THAT_FAIL = """
import errno, sys
from pathlib import Path
from autotuner.serving.lookup import lookup
from autotuner.store import Store
from storage.errors import StoreUnavailable
from tests.support.faulty_system import SYNCS, Fault, counted
from toto_core.settings import RuntimeSettings

folder, db = Path(sys.argv[1]), str(Path(sys.argv[1]) / "autotune.db")
Store(db).__exit__(None, None, None)
for lasting in (False, True):
    call, failed = 0, 1
    while failed:
        call, symbol, said = call + 1, f"S{int(lasting)}{call}", "done"
        with Store(db) as store:
            Fault(folder=folder, first=call, error=errno.EIO, kinds=SYNCS, lasting=lasting).arm()
            try:
                store.pin(symbol, RuntimeSettings(), "calm")
            except StoreUnavailable as error:
                said = str(error)
            failed = counted()[1]
            Fault(folder=folder).arm()
        with Store(db) as store:
            stored = [each.symbol for each in store.records.pins()].count(symbol)
        print(int(lasting), failed, stored, lookup(symbol, db=db).source, said, sep="|")
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to build the library of faults")
def test_what_fails_because_nothing_can_be_synced_is_not_stored_or_says_that_it_is(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SYNCS_THAT_FAIL, str(tmp_path)],
        env=os.environ | {"LD_PRELOAD": str(library())},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    made = [line.split("|") for line in done.stdout.splitlines()]
    assert {lasting for lasting, failed, *_ in made if int(failed)} == {"0", "1"}
    for _, failed, stored, source, said in made:
        assert int(stored) == (said == "done" or "is stored" in said)
        assert source == ("pin" if int(stored) else "default")
        assert said == "done" or int(failed)
    unsure = [said for *_, said in made if "a power cut could undo it" in said]
    assert unsure
    assert [said for lasting, failed, *_, said in made if lasting == "0" and int(failed) and said == "done"]


def test_a_listing_heals_the_snapshot_and_a_look_at_the_store_does_not(tmp_path: Path) -> None:
    db = str(tmp_path / "autotune.db")
    snapshot = snapshot_path(db)
    with Store(db) as store:
        store.pin("AMD", BF16, "calm")
        before = snapshot.read_bytes()
        store.pin("AMD", EAGER, "storm")
    snapshot.write_bytes(before)
    with Store(db, publish=False) as store:
        assert not store.published_again
    assert lookup("AMD", db=db).settings == BF16

    with Store(db, create=False) as store:
        assert store.published_again
    assert lookup("AMD", db=db).settings == EAGER


def test_an_empty_store_does_not_replace_a_snapshot_that_production_reads(tmp_path: Path) -> None:
    db = tmp_path / "autotune.db"
    with Store(str(db)) as store:
        store.pin("AMD", BF16, "calm")
    db.unlink()  # by mistake
    with Store(str(db)) as store:
        assert store.records.pins() == ()
    assert lookup("AMD", db=str(db)).settings == BF16


def test_a_store_on_a_folder_that_cannot_be_written_still_opens(tmp_path: Path) -> None:
    db = str(tmp_path / "autotune.db")
    with Store(db) as store:
        store.pin("AMD", BF16, "calm")
    snapshot_path(db).unlink()
    snapshot_path(db).mkdir()  # as root no folder is read-only
    with Store(db, create=False) as store:
        assert [pin.symbol for pin in store.records.pins()] == ["AMD"]


def test_a_store_that_an_earlier_version_published_is_published_again_once(tmp_path: Path) -> None:
    db = str(tmp_path / "autotune.db")
    with Store(db) as store:
        store.pin("AMD", BF16, "calm")
    snapshot = snapshot_path(db)
    with closing(sqlite3.connect(snapshot)) as connection, connection:
        connection.execute("CREATE TABLE before AS SELECT sha256, document FROM snapshot")
        connection.execute("DROP TABLE snapshot")
        connection.execute("ALTER TABLE before RENAME TO snapshot")
    assert lookup("AMD", db=db).settings == BF16
    for again in (True, False):
        with Store(db, create=False) as store:
            assert store.published_again == again


def test_a_pipe_in_the_snapshots_place_does_not_keep_a_store_from_opening(tmp_path: Path) -> None:
    db = str(tmp_path / "autotune.db")
    with Store(db) as store:
        store.pin("AMD", BF16, "calm")
    snapshot_path(db).unlink()
    os.mkfifo(snapshot_path(db))
    with Store(db) as store:
        assert store.published_again
    assert lookup("AMD", db=db).settings == BF16
