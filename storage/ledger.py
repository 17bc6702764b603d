"""Queries on the ledger: promotions, roll-backs, pins, and the snapshot made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Unpack

from sqlalchemy import Connection, Row, insert

from storage.damage import Damage
from storage.database import Database
from storage.errors import DamagedRow, InvalidRecord, NotFound, StorageError, StoreUnavailable
from storage.models import PINS, PROMOTIONS, ROLLBACKS
from storage.patience import until_done
from storage.publication import (
    ACTIVE_IDS,
    CURRENT_PINS,
    LEDGER,
    NOT_ROLLED_BACK,
    aside_of,
    current_pins,
    fill_aside,
    ledger_state,
    publish_contents,
    snapshot_contents,
)
from storage.records import PinRecord, PromotionRecord, UnpinRecord
from storage.rows import (
    PromotedFor,
    Queries,
    append,
    append_all,
    conditions,
    matching,
    mended,
    records,
    to_record,
)
from storage.snapshot import SnapshotEntry, SnapshotPin, is_of
from storage.whole_files import take_place

_BY_READING = ("id", "rolled_back_at", "rolled_back_reason")


class Ledger(Queries):
    """What was promoted, taken back and pinned.

    With a `snapshot`, its path, every change is published with it: the snapshot is written and synced before the
    change is committed and gets its name afterwards, so that a change whose snapshot finds no space is none.
    """

    def __init__(self, database: Database, snapshot: Path | None = None) -> None:
        super().__init__(database)
        self._snapshot = snapshot

    def add_promotion(self, promotion: PromotionRecord, *, instead_of: int | None = None) -> int:
        """Append a promotion, which makes it the active one, and return its id.

        With `instead_of`, an id, only while that promotion is active for the same. Raises `NotFound` when it is not,
        `MissingReference` when the workload, environment or run is not stored, `InvalidRecord` when it has an id or a
        roll-back already.
        """
        taken = [name for name in _BY_READING if getattr(promotion, name) is not None]
        if taken:
            raise InvalidRecord(f"PromotionRecord.{taken[0]} is set: a new promotion gets it from the store")
        with self._changing() as connection:
            if instead_of is not None:
                same = PromotedFor(
                    profile=promotion.profile,
                    workload_signature=promotion.workload_signature,
                    environment_fingerprint=promotion.environment_fingerprint,
                )
                row = _active_row(connection, promotion.symbol, same)
                if row is None or row.id != instead_of:
                    raise NotFound(f"promotion {instead_of} of {promotion.symbol} is not active any more")
            return append_promotion(connection, promotion)

    def promotions(self, symbol: str | None = None) -> tuple[PromotionRecord, ...]:
        """The ledger, oldest first, with what was rolled back marked."""
        statement = LEDGER.where(*conditions(PROMOTIONS, symbol=symbol)).order_by(PROMOTIONS.c.id)
        with self._database.read() as connection:
            return records(connection, PromotionRecord, statement, self.damage)

    def active_promotion(self, symbol: str, **wanted: Unpack[PromotedFor]) -> PromotionRecord | None:
        """The newest promotion of the symbol that is not rolled back and was made for what is wanted.

        What is not given is whatever the symbol was last promoted for. Raises `DamagedRow`.
        """
        with self._database.read() as connection:
            row = _active_row(connection, symbol, wanted)
            return None if row is None else to_record(PromotionRecord, row, PROMOTIONS)

    def active_promotions(self) -> tuple[PromotionRecord, ...]:
        """The active promotion of every (symbol, profile, workload, environment), oldest first."""
        with self._database.read() as connection:
            return active_promotions(connection, self.damage)

    def roll_back(
        self,
        symbol: str,
        reason: str,
        now: datetime,
        *,
        every_line: bool = False,
        only: int | None = None,
        **wanted: Unpack[PromotedFor],
    ) -> tuple[PromotionRecord, PromotionRecord | None]:
        """Take back `active_promotion`; it and what is active instead, for the same, from now on.

        With `every_line`, what would be active instead goes too while its settings are the same; with `only`, an id,
        no other promotion than that one is taken back. A promotion that is damaged can be taken back as well: what
        cannot be read of it is given as unknown. Raises `NotFound` when there is nothing to roll back,
        `InvalidRecord` for a time without a zone.
        """
        with self._changing() as connection:
            row = _active_row(connection, symbol, wanted)
            if row is None:
                raise NotFound(f"nothing to roll back for {symbol}: no promotion of it is active")
            if only not in {None, row.id}:
                raise NotFound(f"nothing to roll back for {symbol}: promotion {only} is not active any more")
            marked = replace(mended(PromotionRecord, row), rolled_back_at=now, rolled_back_reason=reason)
            _take_back(connection, row, reason, now)
            below = _active_row(connection, symbol, wanted)
            while every_line and below is not None and below.settings_key == row.settings_key:
                _take_back(connection, below, reason, now)
                below = _active_row(connection, symbol, wanted)
            return marked, None if below is None else mended(PromotionRecord, below)

    def pin(self, pin: PinRecord) -> None:
        """Fix the symbol's configuration; a pin it had before is replaced and stays in the history."""
        with self._changing() as connection:
            append(connection, PINS, pin)

    def unpin(self, symbol: str, reason: str, now: datetime) -> PinRecord:
        """Let go of the symbol's pin and return it. Raises `NotFound` when it has none."""
        with self._changing() as connection:
            held = connection.execute(CURRENT_PINS.where(PINS.c.symbol == symbol)).first()
            if held is None:
                raise NotFound(f"{symbol} is not pinned: there is nothing to unpin")
            append(connection, PINS, UnpinRecord(symbol=symbol, reason=reason, pinned_at=now))
            return mended(PinRecord, held)

    def pins(self) -> tuple[PinRecord, ...]:
        """The pins that hold, by symbol."""
        with self._database.read() as connection:
            return current_pins(connection, self.damage)

    def pin_history(self, symbol: str | None = None) -> tuple[PinRecord | UnpinRecord, ...]:
        """Every pin and every end of one, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(matching(PINS, symbol=symbol).order_by(PINS.c.id))
            return tuple(each for row in rows if (each := self._pin_or_end(row)) is not None)

    def _pin_or_end(self, row: Row[Any]) -> PinRecord | UnpinRecord | None:
        try:
            return to_record(PinRecord, row, PINS) if row.settings_key else to_record(UnpinRecord, row, PINS)
        except DamagedRow as error:
            self.damage.add(PINS, row, error)
            return None

    def snapshot_contents(self) -> tuple[tuple[SnapshotEntry, ...], tuple[SnapshotPin, ...]]:
        """What a snapshot of this moment holds."""
        with self._database.read() as connection:
            return snapshot_contents(connection, self.damage)

    def publish_snapshot(self, path: str | Path) -> None:
        """Publish the snapshot while no one can write, so that an older state never replaces a newer one.

        Raises `StoreUnavailable` when the snapshot cannot be written.
        """
        with self._alone() as connection:
            publish_contents(connection, Path(path), self.damage)

    def publish_if_behind(self) -> bool:
        """Publish the snapshot when it is not of the ledger's newest state; whether it was.

        So it is when its publisher was killed between the commit and the rename, or when it was damaged or removed.
        An empty ledger publishes nothing. Raises `StoreUnavailable` when the snapshot cannot be written.
        """
        if self._snapshot is None:
            return False
        with self._database.read() as connection:
            state = ledger_state(connection)
        if not state or is_of(self._snapshot, state):
            return False
        self.publish_snapshot(self._snapshot)
        return True

    @contextmanager
    def _alone(self) -> Iterator[Connection]:
        """A write transaction during which no one else changes the ledger."""
        with self._database.write() as connection:
            self._database.lock(connection, PROMOTIONS, ROLLBACKS, PINS)
            yield connection

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        """A change of the ledger and the snapshot of what it leaves: both, or neither and an error that says so.

        Only where the snapshot cannot get its name after the commit, which takes no space, the change stays alone;
        the error says that, and whoever opens the store next publishes it.
        """
        if self._snapshot is None:
            with self._alone() as connection:
                yield connection
            return
        with aside_of(self._snapshot) as aside:
            with self._alone() as connection:
                yield connection
                state = fill_aside(connection, aside, self._snapshot, self.damage)
            self._name(aside, self._snapshot, state)

    def _name(self, aside: Path, snapshot: Path, state: str) -> None:
        """Give the snapshot its name, unless the ledger was changed since: then publish what it says now."""

        def name() -> None:
            with self._alone() as connection:
                if ledger_state(connection) == state:
                    take_place(aside, snapshot)
                else:
                    publish_contents(connection, snapshot, self.damage)

        try:
            until_done(name)  # by itself: to begin the whole again would store the change twice
        except (OSError, StorageError) as error:
            raise StoreUnavailable(
                f"the change is stored, but production does not see it yet: {snapshot} cannot be replaced ({error}); "
                "the next command that opens the store publishes it"
            ) from error


def append_promotion(connection: Connection, promotion: PromotionRecord) -> int:
    """Append within the caller's transaction; the id."""
    return append(connection, PROMOTIONS, promotion, leave_out=_BY_READING)


def append_promotions(connection: Connection, promotions: Iterable[PromotionRecord]) -> int:
    """Append all in their order within the caller's transaction; how many."""
    return append_all(connection, PROMOTIONS, promotions, leave_out=_BY_READING)


def active_promotions(connection: Connection, damage: Damage) -> tuple[PromotionRecord, ...]:
    """The active promotion of every (symbol, profile, workload, environment), oldest first."""
    active = LEDGER.where(PROMOTIONS.c.id.in_(ACTIVE_IDS)).order_by(PROMOTIONS.c.id)
    return records(connection, PromotionRecord, active, damage)


def _take_back(connection: Connection, row: Row[Any], reason: str, now: datetime) -> None:
    connection.execute(insert(ROLLBACKS).values(promotion_id=row.id, reason=reason, rolled_back_at=now))


def _active_row(connection: Connection, symbol: str, wanted: PromotedFor) -> Row[Any] | None:
    statement = LEDGER.where(NOT_ROLLED_BACK, *conditions(PROMOTIONS, symbol=symbol, **wanted))
    return connection.execute(statement.order_by(PROMOTIONS.c.id.desc()).limit(1)).first()
