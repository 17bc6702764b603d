"""The spool is flooded: a tick takes bounded time and memory, others' notes get in, and what is no note goes away."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from autotuner.serving.spool import note_fields
from tests.faults.campaign.table import Row, Size
from tests.faults.campaign.tally import Tally
from tests.support import seen_store, writing_commands
from tests.support.faulty_system import Fault
from tests.support.forked_commands import Done, Forks, shared_forks
from tests.support.promoted_store import FAST, NOW
from tests.support.storage_samples import NOBODY
from tests.support.store_states import damage_in, lookup_fault
from tests.support.writing_commands import WRITING

_PEAK_BYTES = 600 << 20
_TICK = ("daemon", "--once", "--config", "quiet.toml")
_SPOOL = "autotune-spool"


@dataclass(frozen=True)
class _Flood:
    """``fill`` gets the spool and how many to leave there; a tick may take ``seconds``."""

    what: str
    fill: Callable[[Path, int], None]
    short: int
    long: int
    seconds: float


def rows(size: Size) -> Iterator[Row]:
    """A row for each kind of flood."""
    forks = shared_forks()
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        base.mkdir(mode=0o700)
        writing_commands.prepare(WRITING[0], base)
        for flood in _FLOODS:
            yield _flooded(forks, Path(name), base, flood, flood.short if size == "short" else flood.long)


def _flooded(forks: Forks, place: Path, base: Path, flood: _Flood, count: int) -> Row:
    tally = Tally(fault=f"spool flooded with {count:,} {flood.what}")
    folder = place / "flooded"
    shutil.copytree(base, folder)
    flood.fill(folder / _SPOOL, count)
    variables = WRITING[0].variables(folder)
    seconds, peak, ticks, waiting = 0.0, 0, 0, -1
    while ticks < 6 and waiting != (waiting := _waiting(folder)) and waiting:
        done = forks.run(
            folder, *_TICK, variables=variables, seconds=flood.seconds, fault=Fault(folder=folder)
        )
        seconds, peak, ticks = max(seconds, done.seconds), max(peak, done.peak_bytes), ticks + 1
        tally.add(*_tick_faults(done), writing_commands.lost_notes(folder), about=f"tick {ticks}")
        if done.code is None:
            break
    left = _left(folder)
    tally.add(_not_taken(folder), damage_in(folder), lookup_fault(folder), about="afterwards")
    tally.add(f"{left} are left in the spool after {ticks} ticks" if left else "")
    top = forks.run(folder, "top", "--once", variables=variables, seconds=60)
    tally.add(top.fault(), about="top")
    shutil.rmtree(folder)
    return tally.row(f"the slowest of {ticks} ticks {seconds:.1f} s, at most {peak >> 20} MiB")


def _tick_faults(done: Done) -> Iterator[str]:
    yield done.fault((0,))
    yield f"{done.peak_bytes >> 20} MiB" if done.peak_bytes > _PEAK_BYTES else ""
    yield "control characters in the log" if any(letter in done.err for letter in "\x1b\x07\x00") else ""


def _waiting(folder: Path) -> int:
    """What a tick would look at."""
    return sum(1 for each in (folder / _SPOOL).iterdir() if each.name.endswith(".json"))


def _left(folder: Path) -> int:
    """What still lies where notes are left, folders of the daemon's own aside; folders cannot be unlinked."""
    return sum(1 for each in (folder / _SPOOL).iterdir() if each.name.endswith(".json") and not each.is_dir())


def _not_taken(folder: Path) -> str:
    """Which of the five notes that came with the flood are not in the store."""
    with closing(sqlite3.connect(folder / "autotune.db")) as connection:
        rows = connection.execute("SELECT payload_json FROM telemetry").fetchall()
    stored = {json.loads(row[0]).get("profile") for row in rows}
    missing = {f"note-{number}" for number in range(writing_commands.NOTES)} - stored
    return f"others' notes did not get in: {', '.join(sorted(missing))}" if missing else ""


# What may lie in a spool


def _good(spool: Path, count: int) -> None:
    note = seen_store.window("AMD", FAST, NOW)
    for number in range(count):
        at = NOW + timedelta(minutes=number)
        fields = note_fields(replace(note, window_start=at, window_end=at + timedelta(minutes=1)))
        (spool / f"telemetry-7-flood-{number}.json").write_text(json.dumps(fields))


def _no_notes(spool: Path, count: int) -> None:
    chance = random.Random(1)
    texts = (
        "",
        "{",
        "[]",
        "null",
        '{"kind": 5}',
        "\x00" * 100,
        "\x1b[2J",
        '{"kind": "telemetry"}',
        "9" * 9000,
    )
    for number in range(count):
        (spool / f"telemetry-{number}.json").write_text(chance.choice(texts))


def _links(spool: Path, count: int) -> None:
    targets = ("/etc/passwd", "/dev/zero", "nowhere", "telemetry-1-a-0.json", str(spool), "/proc/self/mem")
    for number in range(count):
        (spool / f"link-{number}.json").symlink_to(targets[number % len(targets)])


def _pipes(spool: Path, count: int) -> None:
    for number in range(count):
        os.mkfifo(spool / f"pipe-{number}.json")


def _folders(spool: Path, count: int) -> None:
    for number in range(count):
        (spool / f"a-folder-{number}.json").mkdir()
        (spool / f"a-folder-{number}.json" / "within").touch()


def _huge(spool: Path, count: int) -> None:
    for number in range(count):
        with (spool / f"huge-{number}.json").open("wb") as file:
            file.write(b'{"kind": "telemetry", "symbol": "')
            file.truncate(1 << 30)


def _unreadable(spool: Path, count: int) -> None:
    """To root nothing is; another owner's then, and without any permission."""
    for number in range(count):
        path = spool / f"unreadable-{number}.json"
        path.write_text("{}")
        path.chmod(0)
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)


def _odd_names(spool: Path, count: int) -> None:
    names = (
        b"\x1b[31mred\x07",
        b"new\nline",
        b"\xff\xfe",
        b"*?[x]",
        b"-rf",
        b"a" * 200,
        b"'; rm",
        b"\xe2\x80\xae",
    )
    for number in range(count):
        name = names[number % len(names)] + str(number).encode() + b".json"
        with open(os.fsencode(spool) + b"/" + name, "wb") as file:  # noqa: PTH123 - a name that is no text
            file.write(b"{" if number % 2 else b"\x1b]0;title\x07")


_FLOODS = (
    _Flood("notes", _good, 200, 20_000, 300.0),
    _Flood("files that are no notes", _no_notes, 200, 20_000, 300.0),
    _Flood("links", _links, 60, 5_000, 180.0),
    _Flood("pipes", _pipes, 20, 2_000, 180.0),
    _Flood("folders, which nobody unlinks", _folders, 20, 12_000, 180.0),
    _Flood("sparse notes of 1 GB", _huge, 1, 20, 180.0),
    _Flood("unreadable files", _unreadable, 20, 1_000, 180.0),
    _Flood("names with control characters", _odd_names, 40, 2_000, 180.0),
)
