"""Takes what production left in the spool into the store, and reads them back; bad ones are left out."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from autotuner.errors import one_line
from autotuner.record_mapping import read_note, telemetry_record
from autotuner.serving.spool import Note, NoteError, Recheck, kind_of, parse_note
from storage.records import TelemetryRecord
from storage.repository import Repository

MOST_FILES = 10_000
"""Notes taken in at once: a spool that grew for months must not hold up a tick."""
LARGEST_BYTES = 1 << 20
_MOST_SAID = 10_000
Log = Callable[..., None]
_said: set[tuple[str, ...]] = set()


@dataclass(frozen=True, kw_only=True)
class Intake:
    """How many notes of each kind were stored, and how many were no notes and were removed."""

    telemetry: int = 0
    quarantines: int = 0
    refused: int = 0


def take_in(records: Repository, spool: Path, log: Log = lambda *_, **__: None) -> Intake:
    """Store every note in ``spool`` and remove it; what is no note is removed, counted and logged once.

    A note is removed only once the store has it, so that a kill in between costs nothing. Raises
    ``StorageError`` when the store fails; what was not stored stays.
    """
    counts: Counter[str] = Counter()
    waiting = sorted(spool.glob("*.json"))  # none where nothing was ever left
    for path in waiting[:MOST_FILES]:
        try:
            note = _read(path)
        except NoteError as error:
            counts["refused"] += 1
            name = one_line(path.name)
            _say_once(log, "refused", (str(spool), name), file=name, reason=str(error))
        else:
            records.add_telemetry(telemetry_record(note))
            counts[kind_of(note)] += 1
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return Intake(telemetry=counts["telemetry"], quarantines=counts["quarantine"], refused=counts["refused"])


def waiting_notes(spool: Path, *, since: datetime) -> Iterator[Note]:
    """The notes in ``spool`` that were written at ``since`` or later; what is no note is left to ``take_in``."""
    for path in itertools.islice(spool.glob("*.json"), MOST_FILES):
        with contextlib.suppress(NoteError, OSError):  # taken in meanwhile
            if path.lstat().st_mtime >= since.timestamp():
                yield _read(path)


def stored_notes(records: Iterable[TelemetryRecord], log: Log) -> tuple[Note, ...]:
    """The notes among what is stored, in its order; what cannot be read is left out and logged once a process."""
    notes = []
    for record in records:
        try:
            notes.append(read_note(record))
        except NoteError as error:
            place, reason = str(record.id), str(error)
            _say_once(
                log, "skipped", (record.symbol, place, reason), symbol=record.symbol, row=place, reason=reason
            )
    return tuple(notes)


def _read(path: Path) -> Note:
    try:
        if path.is_symlink() or not path.is_file():
            raise NoteError("file: is not a plain file")
        if path.stat().st_size > LARGEST_BYTES:
            raise NoteError(f"file: is larger than {LARGEST_BYTES} bytes")
        note = parse_note(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise NoteError(f"file: cannot be read: {error}") from None
    if isinstance(note, Recheck):
        raise NoteError("kind: a recheck is nothing that production leaves")
    return note


def _say_once(log: Log, event: str, about: tuple[str, ...], **fields: str) -> None:
    if (event, *about) in _said:
        return
    if len(_said) >= _MOST_SAID:
        _said.clear()
    _said.add((event, *about))
    log(event, **fields)
