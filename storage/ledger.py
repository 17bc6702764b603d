"""Queries on the ledger: promotions, roll-backs, pins, and the snapshot made of them."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Unpack

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from storage.errors import InvalidRecord, NotFound
from storage.models import EnvironmentRow, PinRow, PromotionRow, RollbackRow, WorkloadRow
from storage.records import PinRecord, PromotionRecord, UnpinRecord
from storage.rows import PromotedFor, Queries, append, columns, conditions, matching, records, to_record
from storage.snapshot import SnapshotEntry, SnapshotPin, publish

_BY_READING = ("id", "rolled_back_at", "rolled_back_reason")
_PROMOTED = [field.name for field in fields(SnapshotEntry) if hasattr(PromotionRow, field.name)]
_NOT_ROLLED_BACK = PromotionRow.id.not_in(select(RollbackRow.promotion_id).correlate(None))
_ACTIVE_IDS = (
    select(func.max(PromotionRow.id))
    .where(_NOT_ROLLED_BACK)
    .group_by(
        PromotionRow.symbol,
        PromotionRow.profile,
        PromotionRow.workload_signature,
        PromotionRow.environment_fingerprint,
    )
    .correlate(None)
)
_LEDGER = select(PromotionRow, RollbackRow.rolled_back_at, RollbackRow.reason).outerjoin(
    RollbackRow, RollbackRow.promotion_id == PromotionRow.id
)


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
        with self._database.write() as session:
            return append_promotion(session, promotion)

    def promotions(self, symbol: str | None = None) -> tuple[PromotionRecord, ...]:
        """The ledger, oldest first, with what was rolled back marked."""
        statement = _LEDGER.where(*conditions(PromotionRow, symbol=symbol)).order_by(PromotionRow.id)
        with self._database.read() as session:
            return _promotions(session, statement)

    def active_promotion(self, symbol: str, **wanted: Unpack[PromotedFor]) -> PromotionRecord | None:
        """The newest promotion of the symbol that is not rolled back and was made for what is wanted.

        What is not given is whatever the symbol was last promoted for.
        """
        with self._database.read() as session:
            return _active(session, symbol, wanted)

    def active_promotions(self) -> tuple[PromotionRecord, ...]:
        """The active promotion of every (symbol, profile, workload, environment), oldest first."""
        with self._database.read() as session:
            return active_promotions(session)

    def roll_back(
        self, symbol: str, reason: str, now: datetime, **wanted: Unpack[PromotedFor]
    ) -> tuple[PromotionRecord, PromotionRecord | None]:
        """Take back `active_promotion`; it and what is active instead, for the same, from now on.

        Raises `NotFound` when there is nothing to roll back, `InvalidRecord` for a time without a zone.
        """
        with self._database.write() as session:
            active = _active(session, symbol, wanted)
            if active is None:
                raise NotFound(f"nothing to roll back for {symbol}: no promotion of it is active")
            marked = replace(active, rolled_back_at=now, rolled_back_reason=reason)
            session.add(RollbackRow(promotion_id=active.id, reason=reason, rolled_back_at=now))
            session.flush()
            return marked, _active(session, symbol, wanted)

    def pin(self, pin: PinRecord) -> None:
        """Fix the symbol's configuration; a pin it had before is replaced and stays in the history."""
        with self._database.write() as session:
            append(session, PinRow, pin)

    def unpin(self, symbol: str, reason: str, now: datetime) -> PinRecord:
        """Let go of the symbol's pin and return it. Raises `NotFound` when it has none."""
        with self._database.write() as session:
            held = [pin for pin in current_pins(session) if pin.symbol == symbol]
            if not held:
                raise NotFound(f"{symbol} is not pinned: there is nothing to unpin")
            append(session, PinRow, UnpinRecord(symbol=symbol, reason=reason, pinned_at=now))
            return held[0]

    def pins(self) -> tuple[PinRecord, ...]:
        """The pins that hold, by symbol."""
        with self._database.read() as session:
            return current_pins(session)

    def pin_history(self, symbol: str | None = None) -> tuple[PinRecord | UnpinRecord, ...]:
        """Every pin and every end of one, oldest first."""
        with self._database.read() as session:
            rows = session.scalars(matching(PinRow, symbol=symbol).order_by(PinRow.id))
            return tuple(
                to_record(PinRecord, row) if row.settings_key else to_record(UnpinRecord, row) for row in rows
            )

    def snapshot_contents(self) -> tuple[tuple[SnapshotEntry, ...], tuple[SnapshotPin, ...]]:
        """What a snapshot of this moment holds."""
        with self._database.read() as session:
            return _snapshot_contents(session)

    def publish_snapshot(self, path: str | Path, now: datetime) -> None:
        """Publish the snapshot while no one can write, so that an older state never replaces a newer one.

        Raises `StoreUnavailable` when the snapshot cannot be written.
        """
        with self._database.write() as session:
            self._database.lock(session, PromotionRow, RollbackRow, PinRow)
            entries, pins = _snapshot_contents(session)
            publish(path, entries, pins, generation_time=now)


def append_promotion(session: Session, promotion: PromotionRecord) -> int:
    """Append within the caller's transaction; the id."""
    return append(session, PromotionRow, promotion, leave_out=_BY_READING)


def active_promotions(session: Session) -> tuple[PromotionRecord, ...]:
    """The active promotion of every (symbol, profile, workload, environment), oldest first."""
    return _promotions(session, _LEDGER.where(PromotionRow.id.in_(_ACTIVE_IDS)).order_by(PromotionRow.id))


def current_pins(session: Session) -> tuple[PinRecord, ...]:
    """The newest pin of every symbol that was not unpinned since, by symbol."""
    newest = select(func.max(PinRow.id)).group_by(PinRow.symbol)
    statement = (
        select(PinRow).where(PinRow.id.in_(newest), PinRow.settings_key.is_not(None)).order_by(PinRow.symbol)
    )
    return records(session, PinRecord, statement)


def _promotions(
    session: Session, statement: Select[PromotionRow, datetime, str]
) -> tuple[PromotionRecord, ...]:
    return tuple(
        to_record(PromotionRecord, row, rolled_back_at=at, rolled_back_reason=reason)
        for row, at, reason in session.execute(statement)
    )


def _active(session: Session, symbol: str, wanted: PromotedFor) -> PromotionRecord | None:
    statement = _LEDGER.where(_NOT_ROLLED_BACK, *conditions(PromotionRow, symbol=symbol, **wanted))
    return next(iter(_promotions(session, statement.order_by(PromotionRow.id.desc()).limit(1))), None)


def _snapshot_contents(session: Session) -> tuple[tuple[SnapshotEntry, ...], tuple[SnapshotPin, ...]]:
    statement = (
        select(PromotionRow, WorkloadRow.workload_json, EnvironmentRow.facts_json)
        .join(WorkloadRow, WorkloadRow.signature == PromotionRow.workload_signature)
        .join(EnvironmentRow, EnvironmentRow.fingerprint == PromotionRow.environment_fingerprint)
        .where(PromotionRow.id.in_(_ACTIVE_IDS))
        .order_by(PromotionRow.id)
    )
    rows = session.execute(statement).all()
    newest = {row.symbol: row.id for row, _, _ in rows}  # the last of each symbol stays
    entries = tuple(
        SnapshotEntry(
            **{name: getattr(row, name) for name in _PROMOTED},
            workload_json=workload_json,
            environment_json=facts_json,
            promised_json=row.evidence_json,
            since=row.promoted_at,
            promotion_id=row.id,
            newest=newest[row.symbol] == row.id,
        )
        for row, workload_json, facts_json in rows
    )
    pins = tuple(
        SnapshotPin(**columns(pin, leave_out=("pinned_at",)), since=pin.pinned_at)
        for pin in current_pins(session)
    )
    return entries, pins
