"""What a snapshot of the ledger is made of, and how it comes to lie beside the store before it has its name."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, func, select

from storage.checks import is_symbol, time_fault
from storage.damage import Damage
from storage.errors import StoreUnavailable
from storage.models import ENVIRONMENTS, PINS, PROMOTIONS, ROLLBACKS, WORKLOADS
from storage.records import PinRecord
from storage.rows import columns, records
from storage.snapshot import SnapshotEntry, SnapshotPin, fill, publish
from storage.whole_files import held_aside, sync

LEDGER = select(
    PROMOTIONS, ROLLBACKS.c.rolled_back_at, ROLLBACKS.c.reason.label("rolled_back_reason")
).select_from(PROMOTIONS.outerjoin(ROLLBACKS, ROLLBACKS.c.promotion_id == PROMOTIONS.c.id))
"""The lines of the ledger, with how they were rolled back."""
NOT_ROLLED_BACK = PROMOTIONS.c.id.not_in(select(ROLLBACKS.c.promotion_id).correlate(None))
ACTIVE_IDS = (
    select(func.max(PROMOTIONS.c.id))
    .where(NOT_ROLLED_BACK)
    .group_by(
        PROMOTIONS.c.symbol,
        PROMOTIONS.c.profile,
        PROMOTIONS.c.workload_signature,
        PROMOTIONS.c.environment_fingerprint,
    )
    .correlate(None)
)
CURRENT_PINS = (
    select(PINS)
    .where(
        PINS.c.id.in_(select(func.max(PINS.c.id)).group_by(PINS.c.symbol)), PINS.c.settings_key.is_not(None)
    )
    .order_by(PINS.c.symbol)
)
_PROMOTED = [field.name for field in fields(SnapshotEntry) if field.name in PROMOTIONS.c]


def current_pins(connection: Connection, damage: Damage) -> tuple[PinRecord, ...]:
    """The newest pin of every symbol that was not unpinned since, by symbol."""
    return records(connection, PinRecord, CURRENT_PINS, damage)


def _why_unpublished(entry: SnapshotEntry) -> str:
    """What of an entry no snapshot may hold, empty when it may; what its texts say is for the reader to check."""
    if not is_symbol(entry.symbol):
        return "its symbol is none"
    for name, value in vars(entry).items():
        if name not in {"since", "promotion_id", "newest"} and not isinstance(value, str):
            return f"its {name} is no text"
    return time_fault("since", entry.since).replace("is ", "its time is ", 1)


def ledger_state(connection: Connection) -> str:
    """A text that every change of the ledger makes another one, empty for an empty ledger."""
    newest = [
        connection.execute(select(*columns_).order_by(columns_[0].desc()).limit(1)).first()
        for columns_ in (
            (PROMOTIONS.c.id, PROMOTIONS.c.symbol, PROMOTIONS.c.promoted_at),
            (PINS.c.id, PINS.c.symbol, PINS.c.pinned_at),
        )
    ]
    taken_back = connection.execute(
        select(func.count(), func.max(ROLLBACKS.c.rolled_back_at)).select_from(ROLLBACKS)
    ).one()
    if newest == [None, None]:
        return ""
    return " ".join(str(value) for row in (*newest, taken_back) for value in row or ("-",))


def publish_contents(connection: Connection, path: Path, damage: Damage) -> None:
    """Publish what the ledger says within the caller's transaction, which keeps others from changing it."""
    entries, pins = snapshot_contents(connection, damage)
    publish(path, entries, pins, generation_time=datetime.now(UTC), state=ledger_state(connection))


@contextmanager
def aside_of(snapshot: Path) -> Iterator[Path]:
    """A file beside the snapshot, gone after the block unless it took its place. Raises `StoreUnavailable`."""
    with ExitStack() as held:
        try:
            aside = held.enter_context(held_aside(snapshot))
        except OSError as error:
            raise _no_room(snapshot, error) from error
        yield aside


def fill_aside(connection: Connection, aside: Path, snapshot: Path, damage: Damage) -> str:
    """Write and sync the snapshot of what this transaction leaves; the ledger's state. Raises `StoreUnavailable`."""
    entries, pins = snapshot_contents(connection, damage)
    state = ledger_state(connection)
    try:
        fill(aside, entries, pins, generation_time=datetime.now(UTC), state=state)
        sync(aside)
    except (OSError, sqlite3.Error) as error:
        raise _no_room(snapshot, error) from error
    return state


def _no_room(snapshot: Path, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(
        f"{snapshot} cannot be written ({error}), so nothing was changed: check the folder, its owner and space"
    )


def snapshot_contents(
    connection: Connection, damage: Damage
) -> tuple[tuple[SnapshotEntry, ...], tuple[SnapshotPin, ...]]:
    """What a snapshot of this moment holds; what none may hold is left out and added to `damage`."""
    named = PROMOTIONS.join(WORKLOADS).join(ENVIRONMENTS)
    statement = (
        select(PROMOTIONS, WORKLOADS.c.workload_json, ENVIRONMENTS.c.facts_json)
        .select_from(named)
        .where(PROMOTIONS.c.id.in_(ACTIVE_IDS))
        .order_by(PROMOTIONS.c.id)
    )
    rows = connection.execute(statement).all()
    newest = {row.symbol: row.id for row in rows}  # the last of each symbol stays
    entries = []
    for row in rows:
        entry = SnapshotEntry(
            **{name: getattr(row, name) for name in _PROMOTED},
            workload_json=row.workload_json,
            environment_json=row.facts_json,
            promised_json=row.evidence_json,
            since=row.promoted_at,
            promotion_id=row.id,
            newest=newest[row.symbol] == row.id,
        )
        fault = _why_unpublished(entry)
        if not fault:
            entries.append(entry)
            continue
        whose = row.symbol if is_symbol(row.symbol) else ""
        damage.note(
            "promotions", whose, (row.id,), f"a promotion of {whose or 'no symbol'} is damaged: {fault}"
        )
    pins = tuple(
        SnapshotPin(**columns(pin, leave_out=("pinned_at",)), since=pin.pinned_at)
        for pin in current_pins(connection, damage)
    )
    return tuple(entries), pins
