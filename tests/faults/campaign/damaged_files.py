"""The store, its snapshot and the studies: damaged, locked, exchanged, deleted, of other versions, edited by hand.

After each, every command that reads, a lookup, one that writes and a tick of the daemon are tried.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config

from storage.database import open_database
from storage.migrations import HEAD_REVISION, SCRIPT_LOCATION, VERSION_TABLE, known_revisions
from storage.models import METADATA
from tests.faults.campaign.table import Row, Size
from tests.faults.campaign.tally import Tally
from tests.support import writing_commands
from tests.support.forked_commands import Done, Forks, shared_forks
from tests.support.store_states import damage_in, lookup_fault, state_of
from tests.support.writing_commands import READING, WRITING

_AFTERWARDS = (
    *READING,
    ("pin", "MSFT", "--mode", "eager"),
    ("select", "AMD", "--profile", "accuracy"),
    ("db", "upgrade"),
    ("db", "backup", "copy-of-it.db"),
    ("daemon", "--once", "--config", "quiet.toml"),
)
_SLOWEST_S = 20.0  # of a command after a fault, on a machine that does other things as well
Damage = Callable[[Path, random.Random], object]


@dataclass(frozen=True)
class _Stage:
    forks: Forks
    place: Path
    base: Path
    size: Size

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """A copy of what is undamaged."""
        folder = Path(tempfile.mkdtemp(dir=self.place))
        shutil.copytree(self.base, folder, dirs_exist_ok=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def commands(self, chance: random.Random) -> Sequence[tuple[str, ...]]:
        """All of them, or a few where all damages together may take seconds."""
        return _AFTERWARDS if self.size == "long" else chance.sample(_AFTERWARDS, 2)

    def run(self, folder: Path, *arguments: str) -> Done:
        """A command there that must not wait long for a lock."""
        store = f"sqlite:///{folder / 'autotune.db'}?timeout=0.2"
        variables = WRITING[0].variables(folder) | {"AUTOTUNE_DB": store}
        return self.forks.run(folder, *arguments, variables=variables, seconds=_SLOWEST_S)


def rows(size: Size) -> Iterator[Row]:
    """The rows of each kind of damage."""
    forks = shared_forks()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        base.mkdir(mode=0o700)
        writing_commands.prepare(WRITING[0], base)
        stage = _Stage(forks, Path(name), base, size)
        for what, damage, times in _DAMAGES:
            yield _damaged(stage, what, damage, times if size == "long" else 1)
        yield _locked(stage)
        yield _exchanged(stage, "another store takes its place while it is used", _swap, size)
        yield _exchanged(stage, "deleted and put back while it is used", _delete, size)
        yield _newer(stage)
        yield _earlier(stage)
        yield _edited(stage, size)
        yield _studies(stage, size)


def _afterwards(stage: _Stage, folder: Path, chance: random.Random) -> Iterator[str]:
    for arguments in stage.commands(chance):
        fault = stage.run(folder, *arguments).fault()
        yield f"{' '.join(arguments)}: {fault}" if fault else ""
    yield lookup_fault(folder, "AMD", "BTCUSD", "MSFT", "NONE")


# Damage to the bytes


def _truncated(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def _flipped(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 3, 30))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def _zeroed(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 2, 5))):
        page = chance.randrange(len(content) // 4096) * 4096
        content[page : page + 4096] = bytes(4096)
    path.write_bytes(content)


def _shuffled(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    pages = [content[place : place + 4096] for place in range(4096, len(content), 4096)]
    chance.shuffle(pages)
    path.write_bytes(content[:4096] + b"".join(pages))


def _of_another_kind(path: Path, chance: random.Random) -> None:
    path.unlink()
    kind = chance.choice(("folder", "fifo", "link to itself", "link to nothing", "text", "empty", "device"))
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind.startswith("link"):
        path.symlink_to(path if "itself" in kind else path.with_name("nowhere"))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_text("no store" * 1000 if kind == "text" else "")


_DAMAGES: tuple[tuple[str, Damage, int], ...] = (
    ("truncated", _truncated, 40),
    ("bits flipped", _flipped, 60),
    ("pages zeroed", _zeroed, 40),
    ("pages in another order", _shuffled, 10),
    ("of another kind: folder, FIFO, link, text, empty, device", _of_another_kind, 20),
)


def _damaged(stage: _Stage, what: str, damage: Damage, times: int) -> Row:
    tally = Tally(fault=f"store or snapshot {what}")
    chance = random.Random(what)
    for number in range(times):
        name = "autotune.db" if number % 3 < 2 else "autotune.snapshot.db"
        with stage.folder() as folder:
            damage(folder / name, chance)
            tally.add(*_afterwards(stage, folder, chance), about=f"{name}, number {number}")
    return tally.row()


# Other processes


def _locked(stage: _Stage) -> Row:
    tally = Tally(fault="store locked by another process")
    chance = random.Random(1)
    with stage.folder() as folder, closing(sqlite3.connect(folder / "autotune.db")) as other:
        before = state_of(folder)
        other.isolation_level = None
        for lock in ("EXCLUSIVE", "IMMEDIATE"):
            other.execute(f"BEGIN {lock}")
            tally.add(*_afterwards(stage, folder, chance), about=lock)
            other.execute("ROLLBACK")
        tally.add(
            "" if state_of(folder).ledger == before.ledger or stage.size == "long" else "it was changed",
            damage_in(folder),
            about="let go",
        )
    return tally.row()


def _swap(store: Path, other: Path) -> None:
    """Exchange the two, each whole, by renaming."""
    aside = store.with_name("aside.db")
    store.rename(aside)
    other.rename(store)
    aside.rename(other)


def _delete(store: Path, other: Path) -> None:
    store.rename(other.with_name("gone.db"))
    other.with_name("gone.db").rename(store)


def _exchanged(stage: _Stage, what: str, act: Callable[[Path, Path], None], size: Size) -> Row:
    tally = Tally(fault=f"store {what}")
    chance = random.Random(3)
    for number in range(12 if size == "long" else 1):
        with stage.folder() as folder:
            other, stopped = folder / "other-store.db", threading.Event()
            shutil.copy(folder / "autotune.db", other)

            def disturb(
                store: Path = folder / "autotune.db", other: Path = other, stopped: threading.Event = stopped
            ) -> None:
                while not stopped.wait(0.0005):
                    with contextlib.suppress(FileNotFoundError):
                        act(store, other)

            thread = threading.Thread(target=disturb)
            thread.start()
            try:
                found = list(_afterwards(stage, folder, chance))
            finally:
                stopped.set()
                thread.join()
            tally.add(*found, about=f"number {number}")
    return tally.row()


# Other versions


def _newer(stage: _Stage) -> Row:
    tally = Tally(fault="store of a newer version")
    with stage.folder() as folder:
        with closing(sqlite3.connect(folder / "autotune.db")) as connection, connection:
            connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        before = (folder / "autotune.db").read_bytes()
        for arguments in stage.commands(random.Random(4)):
            done = stage.run(folder, *arguments)
            refused = done.code == 1 and "9999" in done.err
            changed = (folder / "autotune.db").read_bytes() != before
            tally.add(
                done.fault(),
                "" if refused else f"not refused: {done.err}",
                "it was changed" if changed else "",
                lookup_fault(folder),
                about=" ".join(arguments),
            )
    return tally.row()


def _earlier(stage: _Stage) -> Row:
    tally = Tally(fault="store of each earlier schema revision, and of 0.1.0")
    revisions = sorted(known_revisions() - {HEAD_REVISION})
    for revision in revisions if stage.size == "long" else revisions[:1]:
        with stage.folder() as folder:
            promoted = state_of(folder).snapshot
            with open_database(folder / "autotune.db") as database, database.write() as connection:
                config = Config(attributes={"connection": connection})
                config.set_main_option("script_location", SCRIPT_LOCATION)
                command.downgrade(config, revision)
            done = stage.run(folder, "db", "upgrade")
            tally.add(
                done.fault((0,)),
                damage_in(folder),
                "" if state_of(folder).snapshot == promoted else "the snapshot is another one",
                *_afterwards(stage, folder, random.Random(5)),
                about=revision,
            )
    with stage.folder() as folder:
        for name in ("autotune.db", "autotune.snapshot.db"):
            (folder / name).unlink()
        writing_commands.earlier_store(folder)
        tally.add(*_afterwards(stage, folder, random.Random(6)), damage_in(folder), about="0.1.0")
    return tally.row()


# Rows edited by hand

_ABSURD = (
    "",
    "-1",
    "\x1b[31mred\x07",
    "9" * 400,
    "[" * 5000 + "]" * 5000,
    "null",
    "{}",
    "[1, 2]",
    "text",
    '{"a": ' + "9" * 5000 + "}",
    "0001-01-01T00:00:00+00:00",
    "9999-12-31T23:59:59.999999+00:00",
    b"\xff\x00\xfe",
    -1,
    0,
    2**63 - 1,
    1e308,
    float("inf"),
    None,
)
"""What no version of this program has stored in any column."""


def _edited(stage: _Stage, size: Size) -> Row:
    columns = [(table.name, column.name) for table in METADATA.sorted_tables for column in table.columns]
    tally = Tally(fault=f"rows edited to absurd values in {len(columns)} columns")
    chance = random.Random(7)
    edits = [(*column, value) for column in columns for value in _ABSURD]
    for table, column, value in chance.sample(edits, 250 if size == "long" else 3):
        with stage.folder() as folder:
            if not _edit(folder / "autotune.db", table, column, value):
                continue
            about = f"{table}.{column} = {ascii(value)[:40]}"
            tally.add(*_afterwards(stage, folder, chance), about=about)
    return tally.row()


def _edit(store: Path, table: str, column: str, value: object) -> bool:
    """Set a column of every row by hand; False where SQLite itself refuses that."""
    with closing(sqlite3.connect(store)) as connection:
        triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        try:
            changed = connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (value,)).rowcount
        except sqlite3.Error:
            return False
        connection.commit()
    return changed > 0


def _studies(stage: _Stage, size: Size) -> Row:
    tally = Tally(fault="studies database damaged, a run goes on or says so")
    run = next(each for each in WRITING if each.name == "run --replay")
    chance = random.Random(8)
    whole = b""
    for number in range(10 if size == "long" else 1):
        with stage.folder() as folder:
            studies = folder / "autotune-studies.db"
            if not whole:
                stage.run(folder, *run.arguments)
                whole = studies.read_bytes()
            studies.write_bytes(whole)
            damage = (_truncated, _flipped, _zeroed, _of_another_kind)[number % 4]
            damage(studies, chance)
            done = stage.run(folder, *run.arguments, "--fresh")
            tally.add(done.fault(), damage_in(folder), lookup_fault(folder), about=f"{damage.__name__}")
    return tally.row()
