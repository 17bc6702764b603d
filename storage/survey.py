"""Queries over all symbols at once, for pages and reports that show a thousand of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, select

from storage.checks import text_fault, time_fault
from storage.models import (
    ENVIRONMENTS,
    MEASUREMENTS,
    PINS,
    PROMOTIONS,
    ROLLBACKS,
    RUNS,
    TELEMETRY,
    WORKLOADS,
)
from storage.publication import NOT_ROLLED_BACK
from storage.records import EnvironmentRecord, RunRecord, TelemetryRecord, WorkloadRecord
from storage.rows import Queries, conditions


class TrialRow(NamedTuple):
    """A trial without what it measured."""

    symbol: str
    environment_fingerprint: str
    model_digest: str
    series_digest: str
    settings_key: str
    settings_json: str
    outcome: str
    run_id: str


class RunRow(NamedTuple):
    """A run without its summary."""

    run_id: str
    symbol: str
    profile: str
    workload_signature: str
    environment_fingerprint: str
    status: str
    started_at: datetime
    owner_host: str | None
    resumed_at: datetime | None
    finished_at: datetime | None


class PromotedKeys(NamedTuple):
    """What a promotion is for, and by what key its settings go."""

    symbol: str
    profile: str
    workload_signature: str
    environment_fingerprint: str
    settings_key: str


Mark = tuple[object, ...]
"""What differs as soon as anything was appended or a run changed its state."""

_MOST_IDS = 500
"""Ids of one query: databases limit how many values a statement takes."""


class Survey(Queries):
    """What is known of all symbols, each kind of thing in one query."""

    def environments(self) -> tuple[EnvironmentRecord, ...]:
        """Every environment, by fingerprint."""
        return self._records(EnvironmentRecord, select(ENVIRONMENTS).order_by(ENVIRONMENTS.c.fingerprint))

    def workloads(self) -> tuple[WorkloadRecord, ...]:
        """Every workload, by signature."""
        return self._records(WorkloadRecord, select(WORKLOADS).order_by(WORKLOADS.c.signature))

    def last_finished(self) -> dict[str, datetime]:
        """When the newest finished run of each symbol ended."""
        ended = func.max(RUNS.c.finished_at, type_=RUNS.c.finished_at.type).label("finished_at")
        statement = select(RUNS.c.symbol, ended).where(RUNS.c.status == "finished").group_by(RUNS.c.symbol)
        with self._database.read() as connection:
            rows = connection.execute(statement).all()
        return {row.symbol: row.finished_at for row in rows if not time_fault("finished_at", row.finished_at)}

    def newest_telemetry(self, each: int) -> tuple[int, ...]:
        """Ids of the newest ``each`` rows of telemetry of every symbol that was promoted, oldest first."""
        columns = TELEMETRY.c.symbol, TELEMETRY.c.window_start, TELEMETRY.c.id
        newest_first = (TELEMETRY.c.window_start.desc(), TELEMETRY.c.id.desc())
        place = func.row_number().over(partition_by=TELEMETRY.c.symbol, order_by=newest_first)
        promoted = TELEMETRY.c.symbol.in_(select(PROMOTIONS.c.symbol))
        placed = select(*columns, place.label("place")).where(promoted).subquery()
        statement = (
            select(placed.c.id)
            .where(placed.c.place <= each)
            .order_by(placed.c.symbol, placed.c.window_start, placed.c.id)
        )
        with self._database.read() as connection:
            return tuple(connection.execute(statement).scalars())

    def telemetry_rows(self, ids: Sequence[int]) -> tuple[TelemetryRecord, ...]:
        """The rows of telemetry with these ids, in no order."""
        found: list[TelemetryRecord] = []
        for begin in range(0, len(ids), _MOST_IDS):
            some = select(TELEMETRY).where(TELEMETRY.c.id.in_(ids[begin : begin + _MOST_IDS]))
            found += self._records(TelemetryRecord, some)
        return tuple(found)

    def telemetry_with(self, text: str, *, since: datetime | None = None) -> tuple[TelemetryRecord, ...]:
        """The rows of telemetry whose payload holds ``text`` and that ended at ``since`` or later, oldest first."""
        about = select(TELEMETRY)
        if since is not None:  # first, because to search a text takes longer than to compare two times
            about = about.where(TELEMETRY.c.window_end >= since)
        about = about.where(TELEMETRY.c.payload_json.contains(text, autoescape=True))
        return self._records(TelemetryRecord, about.order_by(TELEMETRY.c.window_start, TELEMETRY.c.id))

    def promoted_telemetry_with(self, text: str, *, since: datetime) -> tuple[TelemetryRecord, ...]:
        """As ``telemetry_with``, of symbols that were ever promoted, in as long as their windows take.

        What began more than two days before ``since`` is left out.
        """
        promoted = select(PROMOTIONS.c.symbol).distinct().subquery()
        about = (
            select(TELEMETRY)
            .select_from(promoted.join(TELEMETRY, TELEMETRY.c.symbol == promoted.c.symbol))
            .where(
                TELEMETRY.c.window_start >= since - timedelta(days=2),
                TELEMETRY.c.window_end >= since,
                TELEMETRY.c.payload_json.contains(text, autoescape=True),
            )
        )
        return self._records(TelemetryRecord, about.order_by(TELEMETRY.c.window_start, TELEMETRY.c.id))

    def trial_rows(self, workload_signature: str) -> tuple[TrialRow, ...]:
        """Every trial of a search of that workload, oldest first, without what it measured."""
        columns = [MEASUREMENTS.c[name] for name in TrialRow._fields]
        statement = (
            select(*columns)
            .where(MEASUREMENTS.c.workload_signature == workload_signature, MEASUREMENTS.c.stage == "search")
            .order_by(MEASUREMENTS.c.id)
        )
        with self._database.read() as connection:
            return tuple(TrialRow(*row) for row in connection.execute(statement))

    def run_rows(self, *, ended_since: datetime | None = None) -> tuple[RunRow, ...]:
        """Every run, oldest first, without its summary; one whose times are damaged is left out.

        Of a time on, those that ended then or later.
        """
        statement = select(*(RUNS.c[name] for name in RunRow._fields))
        if ended_since is not None:
            statement = statement.where(RUNS.c.finished_at >= ended_since)
        with self._database.read() as connection:
            found = connection.execute(statement.order_by(RUNS.c.started_at, RUNS.c.run_id)).all()
        rows = (RunRow(*row) for row in found)
        return tuple(row for row in rows if _are_times(row.started_at, row.resumed_at, row.finished_at))

    def roll_backs(self) -> dict[tuple[str, str], list[datetime]]:
        """When promotions of each symbol were taken back in each environment, by its fingerprint."""
        columns = PROMOTIONS.c.symbol, PROMOTIONS.c.environment_fingerprint, ROLLBACKS.c.rolled_back_at
        taken_back = select(*columns).select_from(PROMOTIONS.join(ROLLBACKS))
        found: dict[tuple[str, str], list[datetime]] = {}
        with self._database.read() as connection:
            for symbol, environment, at in connection.execute(taken_back):
                if _are_times(at):
                    found.setdefault((symbol, environment), []).append(at)
        return found

    def trial_times(self, run_ids: Collection[str]) -> dict[str, list[tuple[str, datetime]]]:
        """The settings (JSON) of each run's trials and when they ended, oldest first."""
        columns = MEASUREMENTS.c.run_id, MEASUREMENTS.c.settings_json, MEASUREMENTS.c.measured_at
        statement = select(*columns).where(MEASUREMENTS.c.run_id.in_(run_ids)).order_by(MEASUREMENTS.c.id)
        found: dict[str, list[tuple[str, datetime]]] = {}
        with self._database.read() as connection:
            for run_id, settings, at in connection.execute(statement):
                if _are_times(at):
                    found.setdefault(run_id, []).append((settings, at))
        return found

    def promoted_keys(self) -> tuple[PromotedKeys, ...]:
        """Of every promotion that is not rolled back, oldest first; one whose keys are damaged is left out."""
        statement = select(*(PROMOTIONS.c[name] for name in PromotedKeys._fields)).where(NOT_ROLLED_BACK)
        with self._database.read() as connection:
            found = connection.execute(statement.order_by(PROMOTIONS.c.id)).all()
        return tuple(
            PromotedKeys._make(row)
            for row in found
            if not any(text_fault(name, value) for name, value in row._mapping.items())
        )

    def telemetry_symbols(self, holding: str, *, but: str) -> frozenset[str]:
        """The symbols with a row of telemetry that holds this text and not ``but``."""
        payload = TELEMETRY.c.payload_json
        holds = payload.contains(holding, autoescape=True) & ~payload.contains(but, autoescape=True)
        with self._database.read() as connection:
            return frozenset(connection.execute(select(TELEMETRY.c.symbol).where(holds).distinct()).scalars())

    def last_runs(self) -> dict[str, datetime]:
        """When a run last ended in each environment, by its fingerprint."""
        statement = select(RUNS.c.environment_fingerprint, func.max(RUNS.c.finished_at))
        ended = statement.where(RUNS.c.finished_at.is_not(None)).group_by(RUNS.c.environment_fingerprint)
        with self._database.read() as connection:
            found = connection.execute(ended).all()
        return {fingerprint: at for fingerprint, at in found if _are_times(at)}

    def newest_runs(self, most: int) -> tuple[RunRecord, ...]:
        """The last ``most`` runs that began, newest first."""
        newest_first = select(RUNS).order_by(RUNS.c.started_at.desc(), RUNS.c.run_id)
        return self._records(RunRecord, newest_first.limit(most))

    def trials(self, run_ids: Collection[str]) -> dict[str, int]:
        """How many measurements each of the runs has made."""
        statement = (
            select(MEASUREMENTS.c.run_id, func.count().label("trials"))
            .where(MEASUREMENTS.c.run_id.in_(run_ids))
            .group_by(MEASUREMENTS.c.run_id)
        )
        with self._database.read() as connection:
            return {row.run_id: row.trials for row in connection.execute(statement)}

    def mark(self, symbol: str | None = None) -> Mark:
        """What differs from an earlier mark when something was appended since, or a run changed its state.

        Of everything, or of one symbol, for which a roll-back of another one counts too.
        """
        newest = [
            select(func.max(table.c.id)).where(*conditions(table, symbol=symbol))
            for table in (MEASUREMENTS, PROMOTIONS, PINS, TELEMETRY)
        ]
        taken_back = select(func.count(ROLLBACKS.c.promotion_id))
        columns = RUNS.c.run_id, RUNS.c.finished_at, RUNS.c.resumed_at
        runs = [
            select(func.count(each), func.max(each)).where(*conditions(RUNS, symbol=symbol))
            for each in columns
        ]
        with self._database.read() as connection:
            rows = [connection.execute(each).one() for each in (*newest, taken_back, *runs)]
        return tuple(value for row in rows for value in row)


def _are_times(*values: datetime | None) -> bool:
    """Whether each is None or a time that a record may hold; what the store holds may be anything."""
    return not any(value is not None and time_fault("", value) for value in values)
