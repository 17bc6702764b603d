"""All queries on a store: subjects, runs and measurements here, the ledger and upkeep by inheritance."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from storage.errors import InvalidRecord, NotFound, StorageError
from storage.exchange import Exchange, Validator, build_document, parse_document
from storage.ledger import Ledger, active_promotions, append_pin, append_promotion, current_pins
from storage.models import EnvironmentRow, MeasurementRow, RunRow, SeriesRow, WorkloadRow
from storage.records import (
    UNFINISHED,
    EnvironmentRecord,
    ImportCounts,
    MeasurementRecord,
    PromotionRecord,
    RunRecord,
    RunStatus,
    SeriesRecord,
    WorkloadRecord,
)
from storage.rows import columns, insert_if_absent, to_record
from storage.upkeep import Upkeep


class Repository(Ledger, Upkeep):
    """Each method is one transaction and raises `StoreUnavailable` or `StoreCorrupt` when the store fails.

    `MissingReference` is raised by what names an environment, workload, series or run that is not stored.
    """

    def put_environment(self, environment: EnvironmentRecord) -> None:
        """Store it unless its fingerprint is known; what is known stays as it was first seen."""
        with self._database.write() as session:
            insert_if_absent(session, EnvironmentRow, environment)

    def put_workload(self, workload: WorkloadRecord) -> None:
        """Store it unless its signature is known."""
        with self._database.write() as session:
            insert_if_absent(session, WorkloadRow, workload)

    def put_series(self, series: SeriesRecord) -> None:
        """Store it unless its digest is known."""
        with self._database.write() as session:
            insert_if_absent(session, SeriesRow, series)

    def environment(self, fingerprint: str) -> EnvironmentRecord:
        """The environment of that fingerprint. Raises `NotFound`."""
        with self._database.read() as session:
            row = session.get(EnvironmentRow, fingerprint)
            if row is None:
                raise NotFound(
                    f"no environment {fingerprint} is stored: list what is stored, or measure there first"
                )
            return to_record(EnvironmentRecord, row)

    def workload(self, signature: str) -> WorkloadRecord:
        """The workload of that signature. Raises `NotFound`."""
        with self._database.read() as session:
            row = session.get(WorkloadRow, signature)
            if row is None:
                raise NotFound(
                    f"no workload {signature} is stored: list what is stored, or tune for it first"
                )
            return to_record(WorkloadRecord, row)

    def series(self, digest: str) -> SeriesRecord:
        """The series of that digest. Raises `NotFound`."""
        with self._database.read() as session:
            row = session.get(SeriesRow, digest)
            if row is None:
                raise NotFound(f"no series {digest} is stored: list what is stored, or measure on it first")
            return to_record(SeriesRecord, row)

    def add_measurement(self, measurement: MeasurementRecord) -> int:
        """Append a measurement; its id. Raises `InvalidRecord` when it bears an id, `MissingReference`."""
        if measurement.id is not None:
            raise InvalidRecord("MeasurementRecord.id is set: a new measurement gets it from the store")
        with self._database.write() as session:
            row = MeasurementRow(**columns(measurement, leave_out=("id",)))
            session.add(row)
            session.flush()
            return row.id

    def measurements(
        self,
        symbol: str | None = None,
        *,
        workload_signature: str | None = None,
        environment_fingerprint: str | None = None,
        model_digest: str | None = None,
        settings_key: str | None = None,
        stage: str | None = None,
        since: datetime | None = None,
        run_id: str | None = None,
    ) -> tuple[MeasurementRecord, ...]:
        """The measurements that bear every field given and were made at `since` or later, oldest first."""
        wanted = (
            (MeasurementRow.symbol, symbol),
            (MeasurementRow.workload_signature, workload_signature),
            (MeasurementRow.environment_fingerprint, environment_fingerprint),
            (MeasurementRow.model_digest, model_digest),
            (MeasurementRow.settings_key, settings_key),
            (MeasurementRow.stage, stage),
            (MeasurementRow.run_id, run_id),
        )
        statement = select(MeasurementRow).order_by(MeasurementRow.id)
        statement = statement.where(*(column == value for column, value in wanted if value is not None))
        if since is not None:
            statement = statement.where(MeasurementRow.measured_at >= since)
        with self._database.read() as session:
            return tuple(to_record(MeasurementRecord, row) for row in session.scalars(statement))

    def start_run(self, run: RunRecord) -> None:
        """Store a run that begins. Raises `InvalidRecord` unless running, `StorageError` for a known id."""
        if run.status != "running":
            raise InvalidRecord(f"RunRecord.status is {run.status}: a run starts as running")
        with self._database.write() as session:
            if not insert_if_absent(session, RunRow, run):
                raise StorageError(f"run {run.run_id} is stored already: give a new run a new id")

    def resume_run(
        self, run_id: str, *, owner_pid: int, owner_started: float, owner_host: str, resumed_at: datetime
    ) -> RunRecord:
        """Hand an unfinished run to another process. Raises `NotFound`, `StorageError` when it has ended."""
        with self._database.write() as session:
            return _change_run(
                session,
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
        with self._database.write() as session:
            return _change_run(
                session, run_id, status=status, finished_at=finished_at, summary_json=summary_json
            )

    def unfinished_runs(
        self,
        symbol: str | None = None,
        workload_signature: str | None = None,
        environment_fingerprint: str | None = None,
        profile: str | None = None,
    ) -> tuple[RunRecord, ...]:
        """The running and interrupted runs that bear every field given, oldest first."""
        wanted = (
            (RunRow.symbol, symbol),
            (RunRow.workload_signature, workload_signature),
            (RunRow.environment_fingerprint, environment_fingerprint),
            (RunRow.profile, profile),
        )
        statement = select(RunRow).where(
            RunRow.status.in_(UNFINISHED), *(column == value for column, value in wanted if value is not None)
        )
        with self._database.read() as session:
            return _runs(session, statement.order_by(RunRow.started_at, RunRow.run_id))

    def runs(self, symbol: str | None = None) -> tuple[RunRecord, ...]:
        """Every run, or those of one symbol, oldest first."""
        statement = select(RunRow).order_by(RunRow.started_at, RunRow.run_id)
        if symbol is not None:
            statement = statement.where(RunRow.symbol == symbol)
        with self._database.read() as session:
            return _runs(session, statement)

    def export_document(self) -> dict[str, Any]:
        """One JSON document of the active promotions, the pins, and the workloads and environments named."""
        with self._database.read() as session:
            promotions = active_promotions(session)
            fingerprints = {promotion.environment_fingerprint for promotion in promotions}
            signatures = {promotion.workload_signature for promotion in promotions}
            environments = session.scalars(select(EnvironmentRow).order_by(EnvironmentRow.fingerprint))
            workloads = session.scalars(select(WorkloadRow).order_by(WorkloadRow.signature))
            exchange = Exchange(
                environments=tuple(
                    to_record(EnvironmentRecord, row)
                    for row in environments
                    if row.fingerprint in fingerprints
                ),
                workloads=tuple(
                    to_record(WorkloadRecord, row) for row in workloads if row.signature in signatures
                ),
                promotions=promotions,
                pins=current_pins(session),
            )
        return build_document(exchange)

    def import_document(
        self, document: object, *, validate_settings: Validator, validate_workload: Validator | None = None
    ) -> ImportCounts:
        """Append what a document (parsed JSON) carries, all or nothing; what is active already is left alone.

        `validate_settings` gives the canonical key of settings' JSON text, `validate_workload` the signature
        of a workload's; both raise ValueError to refuse. Raises `InvalidDocument` naming the field.
        """
        exchange = parse_document(
            document, validate_settings=validate_settings, validate_workload=validate_workload
        )
        with self._database.write() as session:
            environments = sum(
                insert_if_absent(session, EnvironmentRow, item) for item in exchange.environments
            )
            workloads = sum(insert_if_absent(session, WorkloadRow, item) for item in exchange.workloads)
            return ImportCounts(
                environments=environments,
                workloads=workloads,
                promotions=_import_promotions(session, exchange),
                pins=_import_pins(session, exchange),
            )


def _import_promotions(session: Session, exchange: Exchange) -> int:
    # Symbol by symbol, because the order of a symbol's promotions says what it was last promoted for.
    held = _by_symbol(active_promotions(session))
    offered = _by_symbol(exchange.promotions)
    new = [
        promotion
        for promotion in exchange.promotions
        if offered[promotion.symbol] != held.get(promotion.symbol)
    ]
    for promotion in new:
        append_promotion(session, promotion)
    return len(new)


def _by_symbol(promotions: tuple[PromotionRecord, ...]) -> dict[str, list[tuple[object, ...]]]:
    symbols: dict[str, list[tuple[object, ...]]] = {}
    for promotion in promotions:
        symbols.setdefault(promotion.symbol, []).append(_identity(promotion))
    return symbols


def _identity(promotion: PromotionRecord) -> tuple[object, ...]:
    return (
        promotion.profile,
        promotion.workload_signature,
        promotion.environment_fingerprint,
        promotion.settings_key,
        promotion.promoted_at,
    )


def _import_pins(session: Session, exchange: Exchange) -> int:
    held = {(pin.symbol, pin.settings_key, pin.pinned_at) for pin in current_pins(session)}
    new = [pin for pin in exchange.pins if (pin.symbol, pin.settings_key, pin.pinned_at) not in held]
    for pin in new:
        append_pin(session, pin)
    return len(new)


def _runs(session: Session, statement: Select[RunRow]) -> tuple[RunRecord, ...]:
    return tuple(to_record(RunRecord, row) for row in session.scalars(statement))


def _run_row(session: Session, run_id: str, *, to_change: bool = False) -> RunRow:
    row = session.get(RunRow, run_id, with_for_update=to_change)
    if row is None:
        raise NotFound(f"no run {run_id} is stored: list the runs to see which are")
    return row


def _change_run(session: Session, run_id: str, **changes: Any) -> RunRecord:
    row = _run_row(session, run_id, to_change=True)
    if row.status not in UNFINISHED:
        raise StorageError(f"run {run_id} has ended as {row.status}: start a new one")
    changed = replace(to_record(RunRecord, row), **changes)
    for name, value in changes.items():
        setattr(row, name, value)
    return changed
