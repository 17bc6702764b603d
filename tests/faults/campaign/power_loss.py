"""The power fails while the store is written: what was acknowledged is there, the store and its snapshot are whole.

A real process writes; every call on its files is recorded. The disk as it may be at random moments is made of that
by ``tests/support/power_cuts.py``, which says what is simulated.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from autotuner.daemon.intake import take_in
from autotuner.paths import spool_folder
from autotuner.serving.spool import write_note
from autotuner.store import Store
from storage.database import open_database
from storage.errors import StorageError
from storage.repository import Repository
from storage.snapshot import read_snapshot
from tests.faults.campaign.table import Row, Size
from tests.faults.campaign.tally import Tally
from tests.support import seen_store, writing_commands
from tests.support.faulty_system import Fault
from tests.support.forked_commands import Forks, shared_forks
from tests.support.power_cuts import Call, calls, random_cuts
from tests.support.promoted_store import BF16, FAST, NOW, STEADY, promotion
from tests.support.storage_samples import MEASUREMENT, with_subjects
from tests.support.store_states import damage_in, lookup_fault

_SYMBOLS = 8


def rows(size: Size) -> Iterator[Row]:
    """A row for each way of writing."""
    forks, times = shared_forks(), 1 if size == "short" else 50
    for writing in _WRITINGS:
        yield _cuts(forks, writing, writing.cuts * times)


@dataclass(frozen=True)
class _Writing:
    """``does`` is called in a folder that ``prepare`` filled; ``lost`` says what of so many acknowledged is gone."""

    what: str
    prepare: Callable[[Path], None]
    does: Callable[[], None]
    lost: Callable[[Path, int], str]
    cuts: int


def _cuts(forks: Forks, writing: _Writing, times: int) -> Row:
    tally = Tally(fault=f"power lost: {writing.what}")
    with tempfile.TemporaryDirectory() as name:
        folder, before, recorded = Path(name) / "live", Path(name) / "before", Path(name) / "calls"
        folder.mkdir(mode=0o700)
        writing.prepare(folder)
        shutil.copytree(folder, before)
        function = f"{__name__}:{writing.does.__name__}"
        done = forks.call(folder, function, fault=Fault(folder=folder, record=str(recorded)))
        if done.code:
            raise AssertionError(done.err)
        made = [_elsewhere(call, folder, before) for call in calls(recorded)]
        chance = random.Random(writing.what)
        for number, (moment, disk) in enumerate(random_cuts(before, made, chance, times)):
            acknowledged = [call.path for call in made[:moment] if call.kind == "A"]
            ordered = number % 2 == 0
            target = Path(tempfile.mkdtemp(dir=name))
            disk.cut(chance, target, ordered=ordered)
            about = f"call {moment} of {len(made)}, names {'in order' if ordered else 'in any order'}"
            tally.add(_broken(target, len(acknowledged), writing), about=about)
            shutil.rmtree(target)
    return tally.row(f"{len(made)} calls recorded")


def _elsewhere(call: Call, folder: Path, before: Path) -> Call:
    """As if it had been made in ``before``."""
    path, other = (path.replace(str(folder), str(before), 1) for path in (call.path, call.other))
    return replace(call, path=path, other=other)


def _broken(target: Path, acknowledged: int, writing: _Writing) -> str:
    try:
        damage = damage_in(target)
        return damage or lookup_fault(target) or writing.lost(target, acknowledged)
    except (StorageError, OSError) as error:
        return f"cannot be used: {error}"


def _acknowledge(number: int) -> None:
    ctypes.CDLL(None).faulty_note(f"acknowledged {number}".encode())


def _store() -> str:
    return os.environ["AUTOTUNE_DB"]


# What the recorded process does


def write_rows() -> None:
    """Measurements, leases and telemetry: transactions alone."""
    with open_database(_store()) as database:
        repository = Repository(database)
        for number in range(20):
            repository.add_measurement(replace(MEASUREMENT, detail=str(number), settings_key="k" * 9000))
            _acknowledge(number)


def write_ledger() -> None:
    """Promotions and pins, each with its snapshot."""
    with Store(_store()) as store:
        for number in range(12):
            if number % 3 == 2:
                store.pin(f"S{number % _SYMBOLS}", STEADY, f"number {number}")
            else:
                new = promotion(f"S{number % _SYMBOLS}", (FAST, BF16)[number % 2], minutes=number)
                store.promote(replace(new, reason=f"number {number}"))
            _acknowledge(number)


def take_notes_in() -> None:
    """Notes into the store, each then removed."""
    with Store(_store()) as store:
        take_in(store.records, spool_folder(_store()))
    _acknowledge(0)


def upgrade() -> None:
    """A store of an earlier version, with the backup that is made of it."""
    open_database(_store()).close()
    _acknowledge(0)


# What it starts from, and what must be there after a cut


def _prepare(folder: Path) -> None:
    with Store(str(folder / "autotune.db")) as store:
        store.promote(promotion("AMD", FAST))
        with_subjects(store._database)


def _prepare_notes(folder: Path) -> None:
    _prepare(folder)
    for number in range(writing_commands.NOTES):
        note = replace(seen_store.window("AMD", FAST, NOW), profile=f"note-{number}")
        write_note(folder / "autotune-spool", f"telemetry-1-a-{number}.json", note)
    (folder / "notes").touch()


def _prepare_earlier(folder: Path) -> None:
    writing_commands.earlier_store(folder)


def _rows_lost(folder: Path, acknowledged: int) -> str:
    with open_database(folder / "autotune.db", create=False) as database:
        stored = [int(record.detail) for record in Repository(database).measurements()]
    return (
        "" if stored in _reaching(acknowledged) else f"{acknowledged} acknowledged, there are {len(stored)}"
    )


def _ledger_lost(folder: Path, acknowledged: int) -> str:
    with open_database(folder / "autotune.db", create=False) as database:
        repository = Repository(database)
        reasons = [record.reason for record in (*repository.promotions(), *repository.pin_history())]
        now = repository.snapshot_contents()
    stored = sorted(int(reason.split()[1]) for reason in reasons if reason.startswith("number"))
    if stored not in _reaching(acknowledged):
        return f"{acknowledged} acknowledged, the ledger has {len(stored)}"
    published = read_snapshot(folder / "autotune.snapshot.db")
    shown = len(published.entries) + len(published.pins)
    if (
        len(stored) == acknowledged
        and (published.entries, published.pins) != now
        and shown >= sum(map(len, now))
    ):
        return "the snapshot is newer than the ledger"
    if len(stored) == acknowledged and shown < sum(map(len, now)):
        return "the snapshot is older than what was acknowledged"
    return ""


def _reaching(acknowledged: int) -> list[list[int]]:
    """All that was acknowledged, and at most the one after."""
    return [list(range(acknowledged)), list(range(acknowledged + 1))]


def _notes_lost(folder: Path, _acknowledged: int) -> str:
    return writing_commands.lost_notes(folder)


def _earlier_lost(folder: Path, _acknowledged: int) -> str:
    with open_database(folder / "autotune.db", create=False) as database:
        symbols = {record.symbol for record in Repository(database).active_promotions()}
    return "" if {"AMD", "BTCUSD", "AAPL"} <= symbols else f"promotions are lost: only {symbols}"


_WRITINGS = (
    _Writing("store written without snapshot", _prepare, write_rows, _rows_lost, 16),
    _Writing("promotions and pins published", _prepare, write_ledger, _ledger_lost, 14),
    _Writing("notes taken in from the spool", _prepare_notes, take_notes_in, _notes_lost, 6),
    _Writing("store of 0.1.0 upgraded", _prepare_earlier, upgrade, _earlier_lost, 4),
)
