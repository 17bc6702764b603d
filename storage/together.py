"""Queries over some symbols at once, for who looks at thousands of them in turn: each kind of thing in one query."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, literal, null, select

from storage.checks import time_fault
from storage.errors import DamagedRow
from storage.models import MEASUREMENTS, PROMOTIONS, ROLLBACKS, RUNS, SERIES, TELEMETRY
from storage.publication import LEDGER
from storage.records import (
    MEASURED,
    MeasurementRecord,
    PromotionRecord,
    RunRecord,
    SeriesRecord,
    TelemetryRecord,
)
from storage.rows import Queries, RecordT, to_record

MOST_SYMBOLS = 250
"""Symbols to ask for at once: databases limit how many values a statement takes, and memory what is read of them."""
_OUTLINE = [null().label(column.name) if column.name == "summary_json" else column for column in RUNS.c]


class LedgerRow(NamedTuple):
    """A line of the ledger without what was promoted; a roll-back whose time is damaged has no time."""

    id: int
    symbol: str
    profile: str
    environment_fingerprint: str
    is_rolled_back: bool
    rolled_back_at: datetime | None


class LastTrial(NamedTuple):
    """The newest trial of a search that one run made for one symbol, workload and environment."""

    symbol: str
    workload_signature: str
    environment_fingerprint: str
    run_id: str
    id: int


class MeasuredOn(NamedTuple):
    """That a search measured settings on a series."""

    symbol: str
    workload_signature: str
    environment_fingerprint: str
    settings_key: str
    series_digest: str


class Together(Queries):
    """What is known of some symbols, at most ``MOST_SYMBOLS``.

    What is asked for by its key comes as a record, or as the error that says how it is damaged.
    """

    def ledger_rows(self, symbols: Collection[str]) -> tuple[LedgerRow, ...]:
        """The lines of the ledger of these symbols, oldest first."""
        columns = [PROMOTIONS.c[name] for name in LedgerRow._fields[:4]]
        statement = (
            select(*columns, ROLLBACKS.c.promotion_id, ROLLBACKS.c.rolled_back_at)
            .select_from(PROMOTIONS.outerjoin(ROLLBACKS, ROLLBACKS.c.promotion_id == PROMOTIONS.c.id))
            .where(PROMOTIONS.c.symbol.in_(symbols))
            .order_by(PROMOTIONS.c.id)
        )
        with self._database.read() as connection:
            found = connection.execute(statement).all()
        return tuple(
            LedgerRow(*row[:4], row.promotion_id is not None, self._time_of_roll_back(row)) for row in found
        )

    def _time_of_roll_back(self, row: Any) -> datetime | None:
        at: datetime | None = row.rolled_back_at
        if row.promotion_id is None:
            return None
        fault = time_fault("rolled_back_at", at)
        if fault:
            reason = f"a roll-back of {row.symbol} is damaged (rolled_back_at {fault}): restore a backup"
            self.damage.note("rollbacks", row.symbol, (row.id,), reason)
            return None
        return at

    def promotions_by_id(self, ids: Collection[int]) -> dict[int, PromotionRecord | DamagedRow]:
        """These lines of the ledger."""
        return dict(self._by_key(PromotionRecord, LEDGER.where(PROMOTIONS.c.id.in_(ids)), PROMOTIONS.c.id))

    def measurements_by_id(self, ids: Collection[int]) -> dict[int, MeasurementRecord | DamagedRow]:
        """These measurements."""
        statement = select(MEASUREMENTS).where(MEASUREMENTS.c.id.in_(ids))
        return dict(self._by_key(MeasurementRecord, statement, MEASUREMENTS.c.id))

    def series_by_digest(self, digests: Collection[str]) -> dict[str, SeriesRecord | DamagedRow]:
        """These series, as far as they are stored."""
        statement = select(SERIES).where(SERIES.c.digest.in_(digests))
        return dict(self._by_key(SeriesRecord, statement, SERIES.c.digest))

    def _by_key(
        self, kind: type[RecordT], statement: Select[Any], key: ColumnElement[Any]
    ) -> Iterator[tuple[Any, RecordT | DamagedRow]]:
        with self._database.read() as connection:
            rows = connection.execute(statement).all()
        for row in rows:
            try:
                yield row._mapping[key], to_record(kind, row, key.table)
            except DamagedRow as error:
                yield row._mapping[key], error

    def run_outlines(self, symbols: Collection[str]) -> tuple[RunRecord, ...]:
        """Every run of these symbols, oldest first, without its summary."""
        statement = select(*_OUTLINE).where(RUNS.c.symbol.in_(symbols))
        return self._records(RunRecord, statement.order_by(RUNS.c.started_at, RUNS.c.run_id))

    def last_trials(self, **among: Collection[str]) -> tuple[LastTrial, ...]:
        """The last trials of searches whose ``run_id`` or ``symbol`` is among those given."""
        wanted = [MEASUREMENTS.c[name].in_(values) for name, values in among.items()]
        columns = [MEASUREMENTS.c[name] for name in LastTrial._fields[:-1]]
        statement = (
            select(*columns, func.max(MEASUREMENTS.c.id))
            .where(MEASUREMENTS.c.stage == "search", *wanted)
            .group_by(*columns)
        )
        with self._database.read() as connection:
            return tuple(LastTrial._make(row) for row in connection.execute(statement))

    def measured_on(self, symbols: Collection[str], settings_keys: Collection[str]) -> frozenset[MeasuredOn]:
        """On which series searches have measured these settings for these symbols."""
        columns = [MEASUREMENTS.c[name] for name in MeasuredOn._fields]
        statement = (
            select(*columns)
            .distinct()
            .where(
                MEASUREMENTS.c.symbol.in_(symbols),
                MEASUREMENTS.c.settings_key.in_(settings_keys),
                MEASUREMENTS.c.stage == "search",
                MEASUREMENTS.c.outcome == MEASURED,
            )
        )
        with self._database.read() as connection:
            return frozenset(MeasuredOn._make(row) for row in connection.execute(statement))

    def telemetry_counts(
        self, promotion_ids: Collection[int], settings_keys: Collection[str], *, label: str
    ) -> dict[str, int]:
        """How many windows ``telemetry_since`` finds of each symbol that has any."""
        counted = _since(
            select(TELEMETRY.c.symbol, func.count()), promotion_ids, settings_keys, label=label
        ).group_by(TELEMETRY.c.symbol)
        with self._database.read() as connection:
            return {symbol: int(count) for symbol, count in connection.execute(counted)}

    def telemetry_since(
        self, promotion_ids: Collection[int], settings_keys: Collection[str], *, label: str
    ) -> tuple[TelemetryRecord, ...]:
        """The windows of these settings that start with the promotion of their symbol or later, oldest first.

        ``label`` is what stands in a payload before an environment's fingerprint: where another one's follows than
        that of the promotion, a window is of another environment and left out.
        """
        found = _since(select(TELEMETRY), promotion_ids, settings_keys, label=label)
        return self._records(TelemetryRecord, found.order_by(TELEMETRY.c.window_start, TELEMETRY.c.id))


def _since(
    wanted: Select[Any], promotion_ids: Collection[int], settings_keys: Collection[str], *, label: str
) -> Select[Any]:
    payload = TELEMETRY.c.payload_json
    its_own = payload.contains(literal(label) + PROMOTIONS.c.environment_fingerprint)
    return (
        wanted.select_from(PROMOTIONS)
        .join(TELEMETRY, TELEMETRY.c.symbol == PROMOTIONS.c.symbol)
        .where(
            PROMOTIONS.c.id.in_(promotion_ids),
            TELEMETRY.c.window_start >= PROMOTIONS.c.promoted_at,
            TELEMETRY.c.settings_key.in_(settings_keys),
            its_own | ~payload.contains(label),
        )
    )
