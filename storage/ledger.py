"""Queries on the ledger: promotions, roll-backs, pins, and the snapshot made of them."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Unpack

from sqlalchemy import Connection, Row, func, insert, select

from storage.errors import InvalidRecord, NotFound
from storage.models import ENVIRONMENTS, PINS, PROMOTIONS, ROLLBACKS, WORKLOADS
from storage.records import PinRecord, PromotionRecord, UnpinRecord
from storage.rows import PromotedFor, Queries, append, columns, conditions, matching, records, to_record
from storage.snapshot import SnapshotEntry, SnapshotPin, publish

_BY_READING = ("id", "rolled_back_at", "rolled_back_reason")
_PROMOTED = [field.name for field in fields(SnapshotEntry) if field.name in PROMOTIONS.c]
_NOT_ROLLED_BACK = PROMOTIONS.c.id.not_in(select(ROLLBACKS.c.promotion_id).correlate(None))
_ACTIVE_IDS = (
    select(func.max(PROMOTIONS.c.id))
    .where(_NOT_ROLLED_BACK)
    .group_by(
        PROMOTIONS.c.symbol,
        PROMOTIONS.c.profile,
        PROMOTIONS.c.workload_signature,
        PROMOTIONS.c.environment_fingerprint,
    )
    .correlate(None)
)
_LEDGER = select(
    PROMOTIONS, ROLLBACKS.c.rolled_back_at, ROLLBACKS.c.reason.label("rolled_back_reason")
).select_from(PROMOTIONS.outerjoin(ROLLBACKS, ROLLBACKS.c.promotion_id == PROMOTIONS.c.id))


class Ledger(Queries):
    """What was promoted, taken back and pinned."""

    def add_promotion(self, promotion: PromotionRecord) -> int:
        """Append a promotion, which makes it the active one, and return its id.

        Raises `MissingReference` when its workload, environment or run is not stored, `InvalidRecord` when it
        has an id or a roll-back already.
        """
        taken = [name for name in _BY_READING if getattr(promotion, name) is not None]
        if taken:
            raise InvalidRecord(f"PromotionRecord.{taken[0]} is set: a new promotion gets it from the store")
        with self._database.write() as connection:
            return append_promotion(connection, promotion)

    def promotions(self, symbol: str | None = None) -> tuple[PromotionRecord, ...]:
        """The ledger, oldest first, with what was rolled back marked."""
        statement = _LEDGER.where(*conditions(PROMOTIONS, symbol=symbol)).order_by(PROMOTIONS.c.id)
        with self._database.read() as connection:
            return records(connection, PromotionRecord, statement)

    def active_promotion(self, symbol: str, **wanted: Unpack[PromotedFor]) -> PromotionRecord | None:
        """The newest promotion of the symbol that is not rolled back and was made for what is wanted.

        What is not given is whatever the symbol was last promoted for.
        """
        with self._database.read() as connection:
            return _active(connection, symbol, wanted)

    def active_promotions(self) -> tuple[PromotionRecord, ...]:
        """The active promotion of every (symbol, profile, workload, environment), oldest first."""
        with self._database.read() as connection:
            return active_promotions(connection)

    def roll_back(
        self, symbol: str, reason: str, now: datetime, **wanted: Unpack[PromotedFor]
    ) -> tuple[PromotionRecord, PromotionRecord | None]:
        """Take back `active_promotion`; it and what is active instead, for the same, from now on.

        Raises `NotFound` when there is nothing to roll back, `InvalidRecord` for a time without a zone.
        """
        with self._database.write() as connection:
            active = _active(connection, symbol, wanted)
            if active is None:
                raise NotFound(f"nothing to roll back for {symbol}: no promotion of it is active")
            marked = replace(active, rolled_back_at=now, rolled_back_reason=reason)
            taken_back = {"promotion_id": active.id, "reason": reason, "rolled_back_at": now}
            connection.execute(insert(ROLLBACKS).values(**taken_back))
            return marked, _active(connection, symbol, wanted)

    def pin(self, pin: PinRecord) -> None:
        """Fix the symbol's configuration; a pin it had before is replaced and stays in the history."""
        with self._database.write() as connection:
            append(connection, PINS, pin)

    def unpin(self, symbol: str, reason: str, now: datetime) -> PinRecord:
        """Let go of the symbol's pin and return it. Raises `NotFound` when it has none."""
        with self._database.write() as connection:
            held = [pin for pin in current_pins(connection) if pin.symbol == symbol]
            if not held:
                raise NotFound(f"{symbol} is not pinned: there is nothing to unpin")
            append(connection, PINS, UnpinRecord(symbol=symbol, reason=reason, pinned_at=now))
            return held[0]

    def pins(self) -> tuple[PinRecord, ...]:
        """The pins that hold, by symbol."""
        with self._database.read() as connection:
            return current_pins(connection)

    def pin_history(self, symbol: str | None = None) -> tuple[PinRecord | UnpinRecord, ...]:
        """Every pin and every end of one, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(matching(PINS, symbol=symbol).order_by(PINS.c.id))
            return tuple(_pin_or_end(row) for row in rows)

    def snapshot_contents(self) -> tuple[tuple[SnapshotEntry, ...], tuple[SnapshotPin, ...]]:
        """What a snapshot of this moment holds."""
        with self._database.read() as connection:
            return _snapshot_contents(connection)

    def publish_snapshot(self, path: str | Path, now: datetime) -> None:
        """Publish the snapshot while no one can write, so that an older state never replaces a newer one.

        Raises `StoreUnavailable` when the snapshot cannot be written.
        """
        with self._database.write() as connection:
            self._database.lock(connection, PROMOTIONS, ROLLBACKS, PINS)
            entries, pins = _snapshot_contents(connection)
            publish(path, entries, pins, generation_time=now)


def append_promotion(connection: Connection, promotion: PromotionRecord) -> int:
    """Append within the caller's transaction; the id."""
    return append(connection, PROMOTIONS, promotion, leave_out=_BY_READING)


def active_promotions(connection: Connection) -> tuple[PromotionRecord, ...]:
    """The active promotion of every (symbol, profile, workload, environment), oldest first."""
    return records(
        connection, PromotionRecord, _LEDGER.where(PROMOTIONS.c.id.in_(_ACTIVE_IDS)).order_by(PROMOTIONS.c.id)
    )


def current_pins(connection: Connection) -> tuple[PinRecord, ...]:
    """The newest pin of every symbol that was not unpinned since, by symbol."""
    newest = select(func.max(PINS.c.id)).group_by(PINS.c.symbol)
    statement = (
        select(PINS).where(PINS.c.id.in_(newest), PINS.c.settings_key.is_not(None)).order_by(PINS.c.symbol)
    )
    return records(connection, PinRecord, statement)


def _active(connection: Connection, symbol: str, wanted: PromotedFor) -> PromotionRecord | None:
    statement = _LEDGER.where(_NOT_ROLLED_BACK, *conditions(PROMOTIONS, symbol=symbol, **wanted))
    newest_first = statement.order_by(PROMOTIONS.c.id.desc())
    return next(iter(records(connection, PromotionRecord, newest_first.limit(1))), None)


def _snapshot_contents(connection: Connection) -> tuple[tuple[SnapshotEntry, ...], tuple[SnapshotPin, ...]]:
    named = PROMOTIONS.join(WORKLOADS).join(ENVIRONMENTS)
    statement = (
        select(PROMOTIONS, WORKLOADS.c.workload_json, ENVIRONMENTS.c.facts_json)
        .select_from(named)
        .where(PROMOTIONS.c.id.in_(_ACTIVE_IDS))
        .order_by(PROMOTIONS.c.id)
    )
    rows = connection.execute(statement).all()
    newest = {row.symbol: row.id for row in rows}  # the last of each symbol stays
    entries = tuple(
        SnapshotEntry(
            **{name: getattr(row, name) for name in _PROMOTED},
            workload_json=row.workload_json,
            environment_json=row.facts_json,
            promised_json=row.evidence_json,
            since=row.promoted_at,
            promotion_id=row.id,
            newest=newest[row.symbol] == row.id,
        )
        for row in rows
    )
    pins = tuple(
        SnapshotPin(**columns(pin, leave_out=("pinned_at",)), since=pin.pinned_at)
        for pin in current_pins(connection)
    )
    return entries, pins


def _pin_or_end(row: Row[Any]) -> PinRecord | UnpinRecord:
    return to_record(PinRecord, row, PINS) if row.settings_key else to_record(UnpinRecord, row, PINS)
