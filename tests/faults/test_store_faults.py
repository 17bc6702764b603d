from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from storage.database import Database, open_database
from storage.errors import NotFound, SnapshotError, StorageError, StoreCorrupt, StoreUnavailable, TryAgain
from storage.repository import Repository
from storage.snapshot import SnapshotEntry, publish, read_snapshot
from storage.sqlite_files import journal_mode, translated
from tests.support.storage_samples import (
    MEASUREMENT,
    NOW,
    PIN,
    PROMOTION,
    ROOT,
    RUN,
    new_store,
    shared_folder,
    unprivileged,
    with_subjects,
)

KILLS = 15

# Forks a writer for every line it is told, because importing SQLAlchemy takes longer than a writer lives.
WRITERS = """
import os, sys
from dataclasses import replace
from storage.database import open_database
from storage.repository import Repository
from tests.support.storage_samples import MEASUREMENT, PIN, PROMOTION

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        repository = Repository(open_database(sys.argv[1]))
        for number in range(100_000):
            detail = f"{line.strip()}.{number}"
            repository.add_measurement(replace(MEASUREMENT, detail=detail, settings_key="k" * 3000))
            repository.add_promotion(replace(PROMOTION, reason=detail))
            os.write(1, f"{detail}\\n".encode())
    os.write(1, f"pid {child}\\n".encode())
    os.waitpid(child, 0)
    os.write(1, b"dead\\n")
"""

# Writes until the file may not grow any more, then says what it was told.
FILLER = """
import resource, sys
from dataclasses import replace
from storage.database import open_database
from storage.errors import StoreUnavailable
from storage.repository import Repository
from tests.support.storage_samples import MEASUREMENT

repository = Repository(open_database(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
try:
    for number in range(10_000):
        repository.add_measurement(replace(MEASUREMENT, detail=str(number), settings_key="k" * 3000))
        print(number, flush=True)
except StoreUnavailable as error:
    print(str(error).replace(chr(10), "|"))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "autotune.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, path: Path) -> str:
    """A new store of each kind."""
    if request.param == "sqlite":
        new_store(path).close()
        return str(path)
    url: str = request.getfixturevalue("postgres").new_database()
    open_database(url).close()
    return url


@pytest.fixture
def full(path: Path) -> Path:
    """A closed store of a few dozen pages."""
    with new_store(path) as database:
        repository = with_subjects(database)
        for number in range(20):
            repository.add_measurement(replace(MEASUREMENT, detail=f"{number:03}" * 400))
            repository.add_promotion(PROMOTION)
        repository.roll_back("AMD", "why", NOW)
        repository.pin(PIN)
    return path


def _python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _use(database: Database) -> None:
    """Every kind of access, on a store that `full` made."""
    repository = Repository(database)
    repository.measurements()
    repository.promotions()
    repository.export_document()
    repository.snapshot_contents()
    repository.runs("AMD")
    repository.add_measurement(MEASUREMENT)
    repository.add_promotion(PROMOTION)
    repository.roll_back("AMD", "why", NOW)
    repository.unpin("AMD", "why", NOW)
    repository.finish_run(RUN.run_id, "finished", NOW)


def _one_line(caught: pytest.ExceptionInfo[StorageError], path: Path) -> None:
    assert len(str(caught.value).splitlines()) == 1
    assert str(path) in str(caught.value)


# Killed writers


@pytest.mark.parametrize(
    "place", ["sqlite", pytest.param("postgresql", marks=pytest.mark.exhaustive)], indirect=True
)
def test_no_acknowledged_row_is_lost_when_writers_are_killed(place: str) -> None:
    with open_database(place) as database:
        with_subjects(database)
    chance = random.Random(3)
    acknowledged: list[str] = []
    with _python(WRITERS, place) as writers:
        assert writers.stdin is not None
        assert writers.stdout is not None
        for kill in range(KILLS):
            writers.stdin.write(f"{kill}\n")
            writers.stdin.flush()
            lines = _told(writers.stdout, acknowledged)
            child = int(next(lines).split()[1])
            for _ in range(chance.randrange(1, 12)):
                next(lines)
            time.sleep(chance.random() * 0.01)
            os.kill(child, signal.SIGKILL)
            while next(lines) != "dead":
                pass
            with open_database(place) as database:
                assert database.check() == []
        writers.stdin.close()
    with open_database(place) as database:
        repository = Repository(database)
        measured = {record.detail for record in repository.measurements()}
        promoted = {record.reason for record in repository.promotions()}
    assert len(acknowledged) >= KILLS
    assert set(acknowledged) <= measured
    assert set(acknowledged) <= promoted


def _told(output: Iterator[str], acknowledged: list[str]) -> Iterator[str]:
    """The helper's lines, `pid N` first, although the child may speak before."""
    early: list[str] = []
    for line in output:
        word = line.strip()
        if word[0].isdigit():
            acknowledged.append(word)
        early.append(word)
        if word.startswith("pid"):
            break
    yield early.pop()
    yield from early
    for line in output:
        word = line.strip()
        if word[0].isdigit():
            acknowledged.append(word)
        yield word


def test_a_store_whose_maker_was_killed_opens(tmp_path: Path) -> None:
    chance = random.Random(4)
    code = (
        "import sys; from storage.database import open_database; print('go', flush=True); "
        "open_database(sys.argv[1])"
    )
    for attempt in range(4):
        path = tmp_path / f"{attempt}.db"
        with _python(code, str(path)) as maker:
            assert maker.stdout is not None
            maker.stdout.readline()
            time.sleep(chance.random() * 0.2)
            maker.kill()
        with open_database(path) as database:
            assert database.check() == []


# Several writers


def _write_many(path: str, name: str, count: int) -> None:
    with open_database(path) as database:
        repository = Repository(database)
        for number in range(count):
            repository.add_promotion(replace(PROMOTION, reason=f"{name}.{number}"))
            repository.add_measurement(replace(MEASUREMENT, detail=f"{name}.{number}"))
            if number % 10 == 0:
                repository.roll_back("AMD", f"{name}.{number}", NOW)  # reads before it writes


@pytest.mark.parametrize(
    "place", ["sqlite", pytest.param("postgresql", marks=pytest.mark.exhaustive)], indirect=True
)
def test_processes_write_side_by_side_and_lose_nothing(place: str) -> None:
    with open_database(place) as database:
        repository = with_subjects(database)
        start = multiprocessing.get_context("spawn").Process
        writers = [start(target=_write_many, args=(place, name, 40)) for name in ("a", "b")]
        for writer in writers:
            writer.start()
        _write_many(place, "c", 40)
        for writer in writers:
            writer.join(60)
        assert [writer.exitcode for writer in writers] == [0, 0]
        wanted = {f"{name}.{number}" for name in "abc" for number in range(40)}
        assert {record.detail for record in repository.measurements()} == wanted
        ledger = repository.promotions()
        assert {record.reason for record in ledger} == wanted
        assert sum(record.rolled_back_at is not None for record in ledger) == 12
        assert database.check() == []


def test_threads_share_one_database(place: str) -> None:
    with open_database(place) as database:
        repository = with_subjects(database)

        def write(name: str) -> list[int]:
            return [repository.add_measurement(replace(MEASUREMENT, detail=name)) for _ in range(20)]

        with ThreadPoolExecutor(4) as pool:
            added = [number for numbers in pool.map(write, "abcd") for number in numbers]
        assert sorted(added) == sorted(record.id or 0 for record in repository.measurements())
        assert len(set(added)) == 80


def test_processes_that_make_the_same_store_at_once_agree(path: Path) -> None:
    code = (
        "import sys; from storage.database import open_database; print(open_database(sys.argv[1]).revision())"
    )
    makers = [_python(code, str(path)) for _ in range(3)]
    told = [maker.communicate(timeout=60)[0].strip() for maker in makers]
    with open_database(path) as database:
        assert told == [database.revision()] * 3
        assert database.check() == []
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_only_one_of_many_gets_a_lease(place: str) -> None:
    with open_database(place) as database:
        repository = Repository(database)
        barrier = threading.Barrier(6)

        def acquire(owner: int) -> bool:
            barrier.wait()
            return repository.acquire_lease("gpu:0", f"owner-{owner}", NOW, 60) is not None

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(acquire, range(6))) == 1


# Locks


def test_a_store_locked_by_another_is_reported_within_the_busy_timeout(path: Path) -> None:
    with new_store(path, busy_timeout_s=0.2) as database:
        repository = with_subjects(database)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            attempts: list[Callable[[], object]] = [lambda: repository.add_measurement(MEASUREMENT)]
            if other.execute("PRAGMA journal_mode").fetchone()[0] == "delete":  # a WAL lets readers pass
                attempts += [
                    repository.measurements,
                    lambda: database.backup(path.with_name("copy.db")),
                    lambda: open_database(path, busy_timeout_s=0.2),
                ]
            for attempt in attempts:
                start = time.monotonic()
                with pytest.raises(StoreUnavailable, match="locked") as caught:
                    attempt()
                assert 0.1 < time.monotonic() - start < 5
                _one_line(caught, path)
            other.execute("ROLLBACK")
        assert repository.add_measurement(MEASUREMENT) == 1
        assert not path.with_name("copy.db").exists()


def test_a_lock_that_is_let_go_in_time_is_waited_for(path: Path) -> None:
    with new_store(path, busy_timeout_s=5) as database:
        repository = with_subjects(database)
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            release = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))
            release.start()
            assert repository.add_measurement(MEASUREMENT) == 1
            release.join()


def test_opening_a_store_twice_in_a_process_keeps_its_locks(path: Path) -> None:
    code = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
    with new_store(path) as database:
        with database.write():  # holds the lock that any close of the file would drop
            with open_database(path) as again:
                assert again.check() == []
                again.backup(path.with_name("copy.db"))
            other = subprocess.run(
                [sys.executable, "-c", code, str(path)],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        assert "database is locked" in other.stderr
        assert database.check() == []


# Damaged and forbidden files


@pytest.mark.parametrize(
    "content", [b"x", b"hello, world" * 1000, bytes(5000), b"SQLite format 3\0" + b"\xff" * 84]
)
def test_garbage_is_reported_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt) as caught:
        open_database(path)
    _one_line(caught, path)
    assert path.read_bytes() == content


def test_a_truncated_store_is_reported_and_left_alone(full: Path) -> None:
    whole = full.read_bytes()
    for length in [1, 16, 99, 100, 101, 4095, *range(4096, len(whole), 4096), len(whole) - 1]:
        full.write_bytes(whole[:length])
        with pytest.raises(StoreCorrupt) as caught:
            open_database(full)
        _one_line(caught, full)
        assert full.read_bytes() == whole[:length]


def test_flipped_bytes_give_this_packages_errors_only(full: Path) -> None:
    whole = full.read_bytes()
    chance = random.Random(11)
    told: list[str] = []
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[chance.randrange(len(whole))] = chance.randrange(256)
        full.write_bytes(damaged)
        try:
            with open_database(full) as database:
                told += database.check()
                _use(database)
        except StorageError as error:
            told.append(str(error))
        full.with_name(f"{full.name}-journal").unlink(missing_ok=True)
    assert len(told) > 6
    assert all(len(line.splitlines()) == 1 for line in told)


@pytest.mark.parametrize(
    "damage",
    [
        "started_at = 'noon'",
        "started_at = 12",
        "started_at = '9999-12-31T23:59:59+00:00'",
        "started_at = '0001-01-01T00:00:00+14:00'",
        "summary_json = '{'",
        "summary_json = '[1e999]'",
        "symbol = '../..'",
        "symbol = CAST(x'ff41' AS TEXT)",
        "symbol = x'ff41'",
        "owner_pid = 'me'",
        "owner_host = ''",
        "resumed_at = 'noon'",
        "status = 'asleep'",
    ],
)
def test_rows_that_were_never_stored_so_are_left_out_and_named_and_the_others_are_read(
    full: Path, damage: str
) -> None:
    with open_database(full) as database:
        repository = Repository(database)
        before = repository.runs()
        with closing(sqlite3.connect(full)) as other:
            other.execute(f"UPDATE runs SET {damage} WHERE run_id = ?", (before[0].run_id,))
            other.commit()
        for _ in range(2):
            assert repository.runs() == before[1:]
            repository.unfinished_runs()
        (told,) = repository.damage
    assert told.table == "runs"
    assert len(str(told).splitlines()) == 1
    assert str(told).isprintable()
    assert "a row of runs" in str(told)


@pytest.mark.parametrize("damage", ["DROP TABLE measurements", "ALTER TABLE runs DROP COLUMN study_name"])
def test_tables_that_are_not_there_are_damage_of_the_whole(full: Path, damage: str) -> None:
    with open_database(full) as database:
        with closing(sqlite3.connect(full)) as other:
            other.execute(damage)
            other.commit()
        repository = Repository(database)
        with pytest.raises(StoreCorrupt) as caught:
            (repository.runs(), repository.measurements())
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("table", ["runs", "promotions", "pins"])
def test_a_damaged_row_is_named_with_its_table(full: Path, table: str) -> None:
    with open_database(full) as database:
        repository = Repository(database)
        with closing(sqlite3.connect(full)) as other:
            for (guard,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                other.execute(f"DROP TRIGGER {guard}")
            other.execute(f"UPDATE {table} SET symbol = '../..' WHERE rowid = 1")
            other.commit()
        read = {
            "runs": repository.runs,
            "promotions": repository.promotions,
            "pins": repository.pin_history,
        }
        read[table]()
        (told,) = repository.damage
    assert str(told).startswith(f"a row of {table} is damaged ")
    assert str(told).endswith("restore a backup")


def test_a_store_deleted_while_open_is_reported_not_made_anew(full: Path) -> None:
    with open_database(full) as database:
        full.unlink()
        with pytest.raises(StoreUnavailable) as caught:
            Repository(database).runs()
        _one_line(caught, full)
    assert not full.exists()


@pytest.mark.parametrize("kind", ["folder", "fifo", "file in the way"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.db"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.touch()
        path = path / "b.db"
    with pytest.raises(StoreUnavailable) as caught:
        open_database(path)
    _one_line(caught, tmp_path)


def test_a_read_only_folder_gives_one_line() -> None:
    with shared_folder() as folder:
        folder.chmod(0o555)
        with unprivileged(), pytest.raises(StoreUnavailable, match="cannot be created") as caught:
            open_database(folder / "a.db")
        _one_line(caught, folder)
        assert list(folder.iterdir()) == []


@pytest.mark.skipif(
    journal_mode(sqlite3.sqlite_version_info) == "WAL", reason="a WAL needs a writable folder to be read"
)
def test_a_read_only_store_is_read_and_not_written() -> None:
    with shared_folder() as folder:
        path = folder / "a.db"
        with new_store(path) as database:
            with_subjects(database)
        path.chmod(0o444)
        folder.chmod(0o555)
        with unprivileged(), open_database(path) as database:
            repository = Repository(database)
            assert repository.runs("AMD") == (RUN,)
            with pytest.raises(StoreUnavailable) as caught:
                repository.add_measurement(MEASUREMENT)
        _one_line(caught, path)


def test_a_forbidden_store_is_reported() -> None:
    with shared_folder() as folder:
        new_store(folder / "a.db").close()
        (folder / "a.db").chmod(0o000)
        with unprivileged(), pytest.raises(StoreUnavailable) as caught:
            open_database(folder / "a.db")
        _one_line(caught, folder)


def test_a_full_disk_loses_nothing_acknowledged(path: Path) -> None:
    with new_store(path) as database:
        with_subjects(database)
    with _python(FILLER, str(path)) as filler:
        *acknowledged, said = filler.communicate(timeout=60)[0].splitlines()
    assert str(path) in said
    assert "free space" in said
    with open_database(path) as database:
        stored = [record.detail for record in Repository(database).measurements()]
        assert database.check() == []
    assert len(acknowledged) > 10
    assert stored == acknowledged


def test_a_backup_that_meets_a_full_disk_leaves_nothing_of_it(full: Path) -> None:
    before, limits = full.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    copy = full.with_name("copy.db")
    with open_database(full) as database:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        try:
            with pytest.raises(StoreUnavailable) as caught:
                database.backup(copy)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    _one_line(caught, copy)
    assert [left.name for left in full.parent.iterdir()] == [full.name]
    assert full.read_bytes() == before


# The snapshot under way


def test_a_reader_never_meets_a_missing_or_mixed_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.db"
    done = threading.Event()
    entry = SnapshotEntry(
        symbol="AMD",
        profile="production",
        model="mini@1",
        workload_signature="load-1",
        workload_json="{}",
        environment_fingerprint="env-1",
        environment_json="{}",
        settings_key="0",
        settings_json="{}",
        promised_json="{}",
        since=NOW,
        promotion_id=0,
        newest=True,
    )

    def write(generation: int) -> None:
        listed = [
            replace(entry, symbol=f"S{number}", promotion_id=generation, settings_key=f"{generation}" * 50)
            for number in range(generation % 40)
        ]
        publish(path, listed, [], generation_time=NOW)

    def read() -> int:
        reads = 0
        while not done.is_set():
            snapshot = read_snapshot(path)
            generations = {entry.promotion_id for entry in snapshot.entries}
            assert len(generations) <= 1
            assert all(len(snapshot.entries) == generation % 40 for generation in generations)
            reads += 1
        return reads

    write(1)
    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for generation in range(2, 150):
                write(generation)
        finally:
            done.set()
        assert min(reader.result() for reader in readers) > 10
    assert [left.name for left in tmp_path.iterdir()] == [path.name]


def test_the_last_published_snapshot_is_never_older_than_the_ledger(path: Path) -> None:
    snapshot = path.with_name("snapshot.db")
    with new_store(path) as database:
        repository = with_subjects(database)

        def promote_and_publish(name: str) -> None:
            for number in range(10):
                repository.add_promotion(replace(PROMOTION, settings_key=f"{name}.{number}"))
                repository.publish_snapshot(snapshot)

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(promote_and_publish, "abc"))
        assert read_snapshot(snapshot).entries == repository.snapshot_contents()[0]


def test_a_publisher_killed_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.db"
    publish(path, [], [], generation_time=NOW)
    code = (
        "import sys; from storage.snapshot import publish; from tests.support.storage_samples import NOW\n"
        "print('go', flush=True)\n"
        "while True: publish(sys.argv[1], [], [], generation_time=NOW)"
    )
    chance = random.Random(6)
    for _ in range(3):
        with _python(code, str(path)) as publisher:
            assert publisher.stdout is not None
            publisher.stdout.readline()
            time.sleep(chance.random() * 0.05)
            publisher.kill()
        assert read_snapshot(path).entries == ()


def test_errors_of_the_store_are_told_apart() -> None:
    assert not issubclass(NotFound, StoreUnavailable)
    assert issubclass(SnapshotError, StorageError)


def test_what_a_driver_refuses_to_send_is_no_server_that_is_away() -> None:
    refused = DBAPIError(
        "INSERT", {}, psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    )
    away = DBAPIError("INSERT", {}, psycopg.OperationalError("connection refused"))
    half = UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")
    assert type(translated(refused, "the store")) is StorageError
    assert type(translated(half, "the store")) is StorageError
    assert isinstance(translated(away, "the store"), TryAgain)
