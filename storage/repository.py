"""All queries on a store: subjects, runs and measurements here, the ledger and upkeep by inheritance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from typing import Any, TypedDict, Unpack

from sqlalchemy import Connection, Table, select, update

from storage.damage import Damage
from storage.errors import InvalidRecord, NotFound, StorageError
from storage.exchange import Exchange, Validator, build_document, parse_document
from storage.ledger import Ledger, active_promotions, append_promotions
from storage.models import ENVIRONMENTS, MEASUREMENTS, PINS, RUNS, SERIES, WORKLOADS
from storage.publication import current_pins
from storage.records import (
    UNFINISHED,
    EnvironmentRecord,
    ImportCounts,
    MeasurementRecord,
    PromotionRecord,
    Record,
    RunRecord,
    RunStatus,
    SeriesRecord,
    WorkloadRecord,
)
from storage.rows import PromotedFor, RecordT, append_all, insert_if_absent, matching, records, to_record
from storage.survey import Survey
from storage.together import Together
from storage.upkeep import Upkeep

_SUBJECTS: dict[type[Record], Table] = {
    EnvironmentRecord: ENVIRONMENTS,
    WorkloadRecord: WORKLOADS,
    SeriesRecord: SERIES,
}
# what tells one promotion of a symbol from another, and one pin from another
_PROMOTION_IDENTITY = attrgetter(
    "profile", "workload_signature", "environment_fingerprint", "settings_key", "promoted_at"
)
_PIN_IDENTITY = attrgetter("symbol", "settings_key", "pinned_at")


class MeasuredFor(TypedDict, total=False):
    """What tells measurements of one symbol apart; None stands for any."""

    workload_signature: str | None
    environment_fingerprint: str | None
    model_digest: str | None
    settings_key: str | None
    stage: str | None
    run_id: str | None


class Repository(Ledger, Upkeep, Survey, Together):
    """Each method is one transaction and raises `StoreUnavailable` or `StoreCorrupt` when the store fails.

    `MissingReference` is raised by what names an environment, workload, series or run that is not stored.
    """

    def put(self, *subjects: EnvironmentRecord | WorkloadRecord | SeriesRecord) -> None:
        """Store each unless its key is known; what is known stays as it was first seen."""
        with self._database.write() as connection:
            for subject in subjects:
                insert_if_absent(connection, _SUBJECTS[type(subject)], subject)

    def environment(self, fingerprint: str) -> EnvironmentRecord:
        """The environment of that fingerprint. Raises `NotFound`."""
        return self._named(EnvironmentRecord, fingerprint, "environment", "measure there")

    def workload(self, signature: str) -> WorkloadRecord:
        """The workload of that signature. Raises `NotFound`."""
        return self._named(WorkloadRecord, signature, "workload", "tune for it")

    def series(self, digest: str) -> SeriesRecord:
        """The series of that digest. Raises `NotFound`."""
        return self._named(SeriesRecord, digest, "series", "measure on it")

    def _named(self, kind: type[RecordT], key: str, what: str, remedy: str) -> RecordT:
        with self._database.read() as connection:
            table = _SUBJECTS[kind]
            (name,) = table.primary_key.columns.keys()
            row = connection.execute(matching(table, **{name: key})).first()
            if row is None:
                raise NotFound(f"no {what} {key} is stored: list what is stored, or {remedy} first")
            return to_record(kind, row, table)

    def add_measurement(self, measurement: MeasurementRecord) -> int:
        """Append a measurement; its id. Raises `InvalidRecord` when it has an id, `MissingReference`."""
        if measurement.id is not None:
            raise InvalidRecord("MeasurementRecord.id is set: a new measurement gets it from the store")
        return self._append(MEASUREMENTS, measurement)

    def measurements(
        self, symbol: str | None = None, *, since: datetime | None = None, **wanted: Unpack[MeasuredFor]
    ) -> tuple[MeasurementRecord, ...]:
        """The measurements that match every field given and were made at `since` or later, oldest first."""
        statement = matching(MEASUREMENTS, symbol=symbol, **wanted).order_by(MEASUREMENTS.c.id)
        if since is not None:
            statement = statement.where(MEASUREMENTS.c.measured_at >= since)
        return self._records(MeasurementRecord, statement)

    def start_run(self, run: RunRecord) -> None:
        """Store a run that begins. Raises `InvalidRecord` unless running, `StorageError` for a known id."""
        if run.status != "running":
            raise InvalidRecord(f"RunRecord.status is {run.status}: a run starts as running")
        with self._database.write() as connection:
            if not insert_if_absent(connection, RUNS, run):
                raise StorageError(f"run {run.run_id} is stored already: give a new run a new id")

    def resume_run(
        self, run_id: str, *, owner_pid: int, owner_started: float, owner_host: str, resumed_at: datetime
    ) -> RunRecord:
        """Hand an unfinished run to another process. Raises `NotFound`, `StorageError` when it has ended."""
        with self._database.write() as connection:
            return _change_run(
                connection,
                run_id,
                status="running",
                finished_at=None,
                owner_pid=owner_pid,
                owner_started=owner_started,
                owner_host=owner_host,
                resumed_at=resumed_at,
            )

    def finish_run(
        self, run_id: str, status: RunStatus, finished_at: datetime, summary_json: str | None = None
    ) -> RunRecord:
        """End an unfinished run. Raises `NotFound`, or `StorageError` when it has ended before."""
        with self._database.write() as connection:
            return _change_run(
                connection, run_id, status=status, finished_at=finished_at, summary_json=summary_json
            )

    def unfinished_runs(
        self, symbol: str | None = None, **wanted: Unpack[PromotedFor]
    ) -> tuple[RunRecord, ...]:
        """The running and interrupted runs for what is wanted, oldest first."""
        statement = matching(RUNS, symbol=symbol, **wanted).where(RUNS.c.status.in_(UNFINISHED))
        return self._records(RunRecord, statement.order_by(RUNS.c.started_at, RUNS.c.run_id))

    def runs(self, symbol: str | None = None) -> tuple[RunRecord, ...]:
        """Every run, or those of one symbol, oldest first."""
        statement = matching(RUNS, symbol=symbol)
        return self._records(RunRecord, statement.order_by(RUNS.c.started_at, RUNS.c.run_id))

    def export_document(self) -> dict[str, Any]:
        """One JSON document of the active promotions, the pins, and the workloads and environments named."""
        with self._database.read() as connection:
            promotions = active_promotions(connection, self.damage)
            fingerprints = {promotion.environment_fingerprint for promotion in promotions}
            signatures = {promotion.workload_signature for promotion in promotions}
            environments = select(ENVIRONMENTS).where(ENVIRONMENTS.c.fingerprint.in_(fingerprints))
            workloads = select(WORKLOADS).where(WORKLOADS.c.signature.in_(signatures))
            by_fingerprint = environments.order_by(ENVIRONMENTS.c.fingerprint)
            by_signature = workloads.order_by(WORKLOADS.c.signature)
            places = records(connection, EnvironmentRecord, by_fingerprint, self.damage)
            asked = records(connection, WorkloadRecord, by_signature, self.damage)
            return build_document(
                environments=places,
                workloads=asked,
                promotions=self._whole(promotions, places, asked),
                pins=current_pins(connection, self.damage),
            )

    def _whole(
        self,
        promotions: Sequence[PromotionRecord],
        environments: Sequence[EnvironmentRecord],
        workloads: Sequence[WorkloadRecord],
    ) -> list[PromotionRecord]:
        """Those whose environment and workload can be read."""
        fingerprints = {each.fingerprint for each in environments}
        signatures = {each.signature for each in workloads}
        found = []
        for each in promotions:
            if each.environment_fingerprint in fingerprints and each.workload_signature in signatures:
                found.append(each)
                continue
            reason = f"what a promotion of {each.symbol} was made for is damaged: restore a backup"
            self.damage.note("promotions", each.symbol, (each.id,), reason)
        return found

    def import_document(
        self, document: object, *, validate_settings: Validator, validate_workload: Validator | None = None
    ) -> ImportCounts:
        """Append what a document (parsed JSON) carries, all or nothing; what is active already is left alone.

        `validate_settings` gives the canonical key of settings' JSON text, `validate_workload` the signature
        of a workload's; both raise ValueError to refuse. Raises `InvalidDocument` naming the field.
        """
        return self.import_exchange(
            parse_document(document, validate_settings=validate_settings, validate_workload=validate_workload)
        )

    def import_exchange(self, exchange: Exchange) -> ImportCounts:
        """Append what a document carries that was parsed before, all or nothing, as `import_document` does."""
        with self._changing() as connection:
            environments = sum(
                insert_if_absent(connection, ENVIRONMENTS, item) for item in exchange.environments
            )
            workloads = sum(insert_if_absent(connection, WORKLOADS, item) for item in exchange.workloads)
            return ImportCounts(
                environments=environments,
                workloads=workloads,
                promotions=_import_promotions(connection, exchange),
                pins=_import_pins(connection, exchange),
            )


def _import_promotions(connection: Connection, exchange: Exchange) -> int:
    # Symbol by symbol, because the order of a symbol's promotions says what it was last promoted for.
    held = _by_symbol(active_promotions(connection, Damage()))
    offered = _by_symbol(exchange.promotions)
    new = [item for item in exchange.promotions if offered[item.symbol] != held.get(item.symbol)]
    return append_promotions(connection, new)


def _by_symbol(promotions: tuple[PromotionRecord, ...]) -> dict[str, list[tuple[object, ...]]]:
    symbols: dict[str, list[tuple[object, ...]]] = {}
    for promotion in promotions:
        symbols.setdefault(promotion.symbol, []).append(_PROMOTION_IDENTITY(promotion))
    return symbols


def _import_pins(connection: Connection, exchange: Exchange) -> int:
    held = set(map(_PIN_IDENTITY, current_pins(connection, Damage())))
    new = [pin for pin in exchange.pins if _PIN_IDENTITY(pin) not in held]
    return append_all(connection, PINS, new)


def _change_run(connection: Connection, run_id: str, **changes: Any) -> RunRecord:
    row = connection.execute(matching(RUNS, run_id=run_id).with_for_update()).first()
    if row is None:
        raise NotFound(f"no run {run_id} is stored: list the runs to see which are")
    if row.status not in UNFINISHED:
        raise StorageError(f"run {run_id} has ended as {row.status}: start a new one")
    changed = replace(to_record(RunRecord, row, RUNS), **changes)
    connection.execute(update(RUNS).where(RUNS.c.run_id == run_id).values(**changes))
    return changed
