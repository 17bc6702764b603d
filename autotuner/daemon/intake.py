"""Takes what production left in the spool into the store, and reads them back; bad ones are set aside."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from autotuner.errors import cause, one_line
from autotuner.record_mapping import read_note, telemetry_record
from autotuner.serving.note_files import owners_of, read_text, spool_fault
from autotuner.serving.refused import FOLDER, give_up_the_oldest, set_aside
from autotuner.serving.spool import Note, NoteError, Quarantine, Recheck, kind_of, parse_note
from storage.errors import InvalidRecord
from storage.records import TelemetryRecord
from storage.repository import Repository
from storage.upkeep import checked_window

TOGETHER = 100
"""Notes of one transaction: a commit takes longer than to read a note."""
MOST_FILES = 10_000
"""Notes taken in at once: a spool that grew for months must not hold up a tick."""
FUTURE, PAST = timedelta(hours=1), timedelta(days=366)
"""How far from now the times of a note may lie: clocks differ a little, and a daemon may have been off for long."""
_MOST_SAID, _MOST_SAID_AT_ONCE = 10_000, 20
Log = Callable[..., None]
_Identity = tuple[str, str, str]
_said: set[tuple[str, ...]] = set()


@dataclass(frozen=True, kw_only=True)
class Intake:
    """How many notes of each kind were stored, and how many were no notes and were set aside."""

    telemetry: int = 0
    quarantines: int = 0
    refused: int = 0


def take_in(
    records: Repository,
    spool: Path,
    log: Log = lambda *_, **__: None,
    *,
    now: datetime | None = None,
    owners: Collection[int] | None = None,
) -> Intake:
    """Store every note in ``spool`` and remove it; what is no note is set aside, counted and logged once.

    A note must belong to one of ``owners``, user ids, and be about the time of ``now``; unless given they are this
    process's and the clock's. A note is removed only once the store has it; one that the store has already, because
    whoever stored it was killed before it was removed, is removed alone. One that cannot be removed is stored once by
    a process. Raises ``StorageError`` when the store fails; what was not stored stays.
    """
    owners, now = owners_of() if owners is None else owners, now or datetime.now(UTC)
    fault = spool_fault(spool, owners)
    if fault:
        say_once(log, "spool", (str(spool), fault), folder=str(spool), reason=f"{fault}: no note is taken in")
        return Intake()
    counts: Counter[str] = Counter()
    waiting = sorted(spool.glob("*.json"))[:MOST_FILES]  # none where nothing was ever left
    for begin in range(0, len(waiting), TOGETHER):
        found: dict[Path, Note] = {}
        read: dict[Path, _Identity] = {}
        for path in waiting[begin : begin + TOGETHER]:
            try:
                if not _is_stored(path):
                    read[path] = _identity(path)
                    found[path] = _read(path, owners, now)
            except FileNotFoundError:  # another daemon was quicker
                continue
            except (NoteError, InvalidRecord) as error:
                _refuse(path, str(error), counts, log)
        new = records.add_new_telemetry([telemetry_record(note) for note in found.values()])
        counts.update(kind_of(note) for note, is_new in zip(found.values(), new, strict=True) if is_new)
        for path in found:
            _remove(path, read[path], log)
    if counts["refused"] > _MOST_SAID_AT_ONCE:
        more, kept = counts["refused"] - _MOST_SAID_AT_ONCE, spool / FOLDER
        log("refused", file=f"{more} more", reason=f"the newest lie in {kept} with their reasons")
    give_up_the_oldest(spool)
    return Intake(telemetry=counts["telemetry"], quarantines=counts["quarantine"], refused=counts["refused"])


def _remove(path: Path, stored: _Identity, log: Log) -> None:
    """Remove a note that the store has, unless its writer has put another one in its place since.

    Where that fails it must not be stored again at every tick.
    """
    try:
        if _identity(path) == stored:
            path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        with contextlib.suppress(OSError):
            say_once(log, "kept", ("kept", *_identity(path)), file=one_line(path.name), reason=str(error))


def _is_stored(path: Path) -> bool:
    """Whether this process has stored this very file and could not remove it."""
    try:
        return ("kept", "kept", *_identity(path)) in _said
    except OSError:
        return False


def _identity(path: Path) -> _Identity:
    found = path.lstat()
    return str(path), str(found.st_ino), str(found.st_mtime_ns)


def waiting_notes(spool: Path, *, since: datetime, owners: Collection[int] | None = None) -> Iterator[Note]:
    """The notes in ``spool`` that were written at ``since`` or later; what is no note is left to ``take_in``."""
    owners, now = owners_of() if owners is None else owners, datetime.now(UTC)
    for path in itertools.islice(spool.glob("*.json"), MOST_FILES):
        with contextlib.suppress(NoteError, OSError):  # taken in meanwhile
            if path.lstat().st_mtime >= since.timestamp():
                yield _read(path, owners, now)


def stored_notes(records: Iterable[TelemetryRecord], log: Log) -> tuple[Note, ...]:
    """The notes among what is stored, in its order; what cannot be read is left out and logged once a process."""
    notes = []
    for record in records:
        try:
            notes.append(read_note(record))
        except NoteError as error:
            place, reason = str(record.id), str(error)
            say_once(
                log, "skipped", (record.symbol, place, reason), symbol=record.symbol, row=place, reason=reason
            )
    return tuple(notes)


def _read(path: Path, owners: Collection[int], now: datetime) -> Note:
    text = read_text(path, owners)
    try:
        note = parse_note(text)
        if isinstance(note, Recheck):
            raise NoteError("kind: a recheck is nothing that production leaves")
        _check_times(note, now)
        if (
            read_note(checked_window(telemetry_record(note))) != note
        ):  # what is stored must be read at every later tick
            raise NoteError("note: does not read back as it is stored")
    except NoteError:
        raise
    except Exception as error:  # what a stranger wrote can fail in any way, and spoils no other note
        raise NoteError(f"note: {cause(error)}") from None
    return note


def _check_times(note: Note, now: datetime) -> None:
    if isinstance(note, Quarantine):
        first, last, names = note.failed_at, note.failed_at, ("failed_at", "failed_at")
    else:
        first, last, names = note.window_start, note.window_end, ("window_start", "window_end")
    if last > now + FUTURE:
        raise NoteError(f"{names[1]}: {last:%Y-%m-%d %H:%M} UTC lies in the future")
    if first < now - PAST:
        raise NoteError(f"{names[0]}: {first:%Y-%m-%d} lies more than {PAST.days} days back")


def _refuse(path: Path, reason: str, counts: Counter[str], log: Log) -> None:
    about = str(path.parent), one_line(path.name)
    if not set_aside(path, reason) and ("refused", *about) in _said:
        return  # it cannot be moved away, and was counted when that was first seen
    counts["refused"] += 1
    if counts["refused"] <= _MOST_SAID_AT_ONCE:
        say_once(log, "refused", about, file=about[1], reason=reason)


def say_once(log: Log, event: str, about: tuple[str, ...], **fields: str) -> None:
    """Log ``event`` with ``fields`` unless this process has said it ``about`` the same before."""
    if (event, *about) in _said:
        return
    if len(_said) >= _MOST_SAID:
        _said.clear()
    _said.add((event, *about))
    log(event, **fields)
