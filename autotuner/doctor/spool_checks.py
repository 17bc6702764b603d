"""Examines what production left in the spool, what was refused of it, and the failures it tells of."""

from __future__ import annotations

import contextlib
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from autotuner.doctor.checks import Check, warning
from autotuner.paths import spool_folder
from autotuner.record_mapping import read_note
from autotuner.serving.failures import Failures, failures
from autotuner.serving.note_files import owners_of, read_text, spool_fault
from autotuner.serving.refused import FOLDER, refused
from autotuner.serving.spool import Note, NoteError, Quarantine, parse_note
from storage.errors import StorageError, StoreUnavailable
from storage.patience import at_once
from storage.read_only import read_only
from storage.records import PromotionRecord
from storage.repository import Repository

_MOST_WAITING = 1_000


def spool_checks(store: str) -> tuple[Check, ...]:
    """All checks of this module, in a fixed order."""
    with at_once():
        return check_notes(store), check_production(store)


def check_notes(store: str) -> Check:
    """Whether notes of production can be taken in, and whether any was refused."""
    name = "notes"
    try:
        folder, owners = spool_folder(store), owners_of(store)
    except StoreUnavailable:
        return Check(name=name, found="none: the store has no place")
    fault = spool_fault(folder, owners, change=False)
    if fault:
        return warning(
            name, f"{folder} {fault}: no note is taken in", f"chown or move {shlex.quote(str(folder))}"
        )
    waiting = sum(1 for _ in folder.glob("*.json"))
    found = refused(folder)
    if not found.count:
        return Check(name=name, found=f"{folder}: {waiting} waiting, none refused")
    said = f"{folder}: {waiting} waiting, {found.count} refused, the newest {found.newest}"
    return warning(name, said, f"look at {shlex.quote(str(folder / FOLDER))}, then remove it")


def check_production(store: str) -> Check:
    """Whether processes have said that what is promoted failed; the daemon weighs windows of calls beside them."""
    name = "production"
    try:
        found = list(_failing(store))
    except StorageError:
        return Check(name=name, found="not known: the store cannot be read")
    if not found:
        return Check(name=name, found="nothing that is promoted has failed")
    symbol, failed = found[0]
    more = f" and {len(found) - 1} more symbols" if found[1:] else ""
    waits = failed.waits_for or "the daemon's next tick takes it back"
    said = f"{symbol}: its settings failed {len(failed.reasons)} times: {failed.reasons[-1]} ({waits}){more}"
    return warning(name, said, f"autotune rollback {symbol}, or autotune run --symbol {symbol}")


def _failing(store: str) -> Iterator[tuple[str, Failures]]:
    """Symbols whose active settings have failed since they were promoted."""
    notes: dict[tuple[str, str, str], list[Quarantine]] = defaultdict(list)
    with read_only(store) as database:
        records = Repository(database)
        active = records.active_promotions()
        for record in records.telemetry_with('"quarantine"'):
            with contextlib.suppress(NoteError):
                _sort_in(notes, read_note(record))
    for note in _waiting(store):
        _sort_in(notes, note)
    for promotion in active:
        failed = failures(_since(promotion, notes))
        if failed.newest is not None:
            yield promotion.symbol, failed


def _sort_in(notes: dict[tuple[str, str, str], list[Quarantine]], note: Note) -> None:
    if isinstance(note, Quarantine):
        notes[note.symbol, note.settings_key, note.environment_fingerprint].append(note)


def _since(
    promotion: PromotionRecord, notes: Mapping[tuple[str, str, str], list[Quarantine]]
) -> list[Quarantine]:
    about = notes.get((promotion.symbol, promotion.settings_key, promotion.environment_fingerprint), [])
    return [each for each in about if each.failed_at >= promotion.promoted_at]


def _waiting(store: str) -> Iterator[Note]:
    owners = owners_of(store)
    for path in list[Path](spool_folder(store).glob("quarantine-*.json"))[:_MOST_WAITING]:
        with contextlib.suppress(NoteError, OSError):
            yield parse_note(read_text(path, owners))
