"""The only mapping between the tuner's own types and the store's records."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import pandas as pd
import psutil
from sqlalchemy import select

from autotuner.errors import AutotuneError
from autotuner.identity import Environment
from autotuner.locations import is_file, snapshot_path, store_path
from autotuner.measurement.trial import Failed, Measured, Outcome, measured_from_json, measured_to_json
from autotuner.workload import Workload
from storage.database import open_database
from storage.models import PinRow, RunRow
from storage.records import (
    MEASURED,
    EnvironmentRecord,
    MeasurementRecord,
    PinRecord,
    PromotionKind,
    PromotionRecord,
    RunRecord,
    RunStatus,
    SeriesRecord,
    Stage,
    UnpinRecord,
    WorkloadRecord,
)
from storage.repository import Repository
from storage.rows import to_record
from toto_core.series import PriceSeries
from toto_core.settings import RuntimeSettings, SettingsError


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a run is about: everything two measurements must share to be comparable."""

    symbol: str
    workload: Workload
    environment: Environment
    series_digest: str
    model_digest: str


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """One line of the ledger in the tuner's own types; ``evidence`` are the figures it was promoted for."""

    symbol: str
    profile: str
    workload: Workload
    environment: Environment
    settings: RuntimeSettings
    verdict: str
    reason: str
    evidence: Mapping[str, Any]
    promoted_at: datetime
    kind: PromotionKind = "run"
    id: int | None = None
    run_id: str | None = None
    rolled_back_at: datetime | None = None
    rolled_back_reason: str | None = None


class Store:
    """The store in the tuner's own words; a context manager. Methods raise ``StorageError``, one line each."""

    def __init__(self, location: str, *, create: bool = True) -> None:
        """Open the store at a path or URL; without ``create`` a missing file raises ``AutotuneError``."""
        if not create and is_file(location) and not store_path(location).exists():
            raise AutotuneError(
                f"{store_path(location)}: no store yet; `autotune run --symbol AMD` makes one, "
                "--db or AUTOTUNE_DB names another"
            )
        self.location = location
        self._database = open_database(location)
        self.records = Repository(self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def remember(self, subject: Subject, series: PriceSeries) -> None:
        """Store what a run's records will refer to."""
        now = datetime.now(UTC)
        self.remember_setting(subject.workload, subject.environment)
        self.records.put_series(
            SeriesRecord(
                digest=series.digest,
                symbol=series.symbol,
                source=series.source,
                points=len(series),
                first_timestamp=_moment(series.timestamps[0]),
                last_timestamp=_moment(series.timestamps[-1]),
                first_seen=now,
            )
        )

    def remember_setting(self, workload: Workload, environment: Environment) -> None:
        """Store a workload and an environment."""
        now = datetime.now(UTC)
        self.records.put_environment(
            EnvironmentRecord(
                fingerprint=environment.fingerprint, facts_json=environment.to_json(), first_seen=now
            )
        )
        self.records.put_workload(
            WorkloadRecord(signature=workload.signature, workload_json=workload.to_json(), first_seen=now)
        )

    def begin_run(
        self, subject: Subject, *, profile: str, seed: int, study: str, resume: bool
    ) -> tuple[str, bool]:
        """The id of a new run, or of a matching unfinished one whose owner is gone, and whether it goes on."""
        pid, started = os.getpid(), psutil.Process().create_time()
        unfinished = self.records.unfinished_runs(
            subject.symbol, subject.workload.signature, subject.environment.fingerprint, profile
        )
        for run in reversed(unfinished):
            if run.status == "running" and _runs_still(run):
                continue
            if resume and run.study_name == study:
                self.records.resume_run(run.run_id, owner_pid=pid, owner_started=started)
                return run.run_id, True
            self.records.finish_run(run.run_id, "failed", datetime.now(UTC))
        run_id = str(uuid.uuid4())
        self.records.start_run(
            RunRecord(
                run_id=run_id,
                symbol=subject.symbol,
                workload_signature=subject.workload.signature,
                environment_fingerprint=subject.environment.fingerprint,
                profile=profile,
                seed=seed,
                started_at=datetime.now(UTC),
                owner_pid=pid,
                owner_started=started,
                study_name=study,
            )
        )
        return run_id, False

    def end_run(self, run_id: str, status: RunStatus, summary: Mapping[str, Any] | None = None) -> None:
        """Mark a run as finished, interrupted or failed."""
        text = None if summary is None else json.dumps(summary)
        self.records.finish_run(run_id, status, datetime.now(UTC), text)

    def record(
        self, subject: Subject, run_id: str, settings: RuntimeSettings, outcome: Outcome, stage: Stage
    ) -> None:
        """Append one outcome; it is durable when this returns."""
        self.records.add_measurement(
            MeasurementRecord(
                run_id=run_id,
                symbol=subject.symbol,
                workload_signature=subject.workload.signature,
                environment_fingerprint=subject.environment.fingerprint,
                series_digest=subject.series_digest,
                model_digest=subject.model_digest,
                settings_key=settings.key,
                settings_json=settings.to_json(),
                stage=stage,
                outcome=MEASURED if isinstance(outcome, Measured) else outcome.kind,
                detail="" if isinstance(outcome, Measured) else outcome.detail,
                measurement_json=measured_to_json(outcome) if isinstance(outcome, Measured) else None,
                measured_at=datetime.now(UTC),
            )
        )

    def known(
        self, subject: Subject, *, run_id: str | None, stage: Stage = "search"
    ) -> dict[RuntimeSettings, Outcome]:
        """The newest outcome of every settings measured on the same prices, model, workload and environment.

        A failure counts only within the run that is going on: what failed another day (no compiler, too little
        time) deserves another try.
        """
        found: dict[RuntimeSettings, Outcome] = {}
        for record in self.records.measurements(
            subject.symbol,
            workload_signature=subject.workload.signature,
            environment_fingerprint=subject.environment.fingerprint,
            model_digest=subject.model_digest,
            stage=stage,
        ):
            if record.series_digest != subject.series_digest:
                continue
            outcome = _outcome(record)
            if isinstance(outcome, Measured) or (
                outcome and record.run_id == run_id and outcome.kind != "timeout"
            ):
                found[RuntimeSettings.from_json(record.settings_json)] = outcome
        return found

    def champion(self, subject: Subject, profile: str) -> Promotion | None:
        """What is active for exactly this symbol, profile, workload and environment."""
        record = self.records.active_promotion(
            subject.symbol, profile, subject.workload.signature, subject.environment.fingerprint
        )
        return None if record is None else self._promotion(record)

    def active(self, symbol: str, profile: str | None = None) -> Promotion | None:
        """What the symbol was last promoted for."""
        record = self.records.active_promotion(symbol, profile)
        return None if record is None else self._promotion(record)

    def winners_elsewhere(self, subject: Subject) -> tuple[RuntimeSettings, ...]:
        """Settings active for other symbols of the same workload signature and environment, newest first."""
        found = [
            RuntimeSettings.from_json(record.settings_json)
            for record in self.records.active_promotions()
            if record.symbol != subject.symbol
            and record.workload_signature == subject.workload.signature
            and record.environment_fingerprint == subject.environment.fingerprint
        ]
        return tuple(dict.fromkeys(reversed(found)))

    def ledger(self, symbol: str | None = None) -> tuple[Promotion, ...]:
        """Every promotion, oldest first."""
        return tuple(self._promotion(record) for record in self.records.promotions(symbol))

    def promote(self, promotion: Promotion) -> None:
        """Append to the ledger and publish the snapshot."""
        self.remember_setting(promotion.workload, promotion.environment)
        self.records.add_promotion(
            PromotionRecord(
                symbol=promotion.symbol,
                profile=promotion.profile,
                model=promotion.workload.model,
                workload_signature=promotion.workload.signature,
                environment_fingerprint=promotion.environment.fingerprint,
                settings_key=promotion.settings.key,
                settings_json=promotion.settings.to_json(),
                verdict=promotion.verdict,
                reason=promotion.reason,
                evidence_json=json.dumps(promotion.evidence),
                promoted_at=promotion.promoted_at,
                kind=promotion.kind,
                run_id=promotion.run_id,
            )
        )
        self.publish()

    def roll_back(self, symbol: str, reason: str) -> tuple[Promotion, Promotion | None]:
        """Take back the symbol's newest promotion; it and what is active now."""
        taken, now_active = self.records.roll_back(symbol, reason, datetime.now(UTC))
        self.publish()
        return self._promotion(taken), None if now_active is None else self._promotion(now_active)

    def pin(self, symbol: str, settings: RuntimeSettings, reason: str) -> None:
        """Fix a symbol's settings, whatever is promoted."""
        self.records.pin(
            PinRecord(
                symbol=symbol,
                settings_key=settings.key,
                settings_json=settings.to_json(),
                reason=reason,
                pinned_at=datetime.now(UTC),
            )
        )
        self.publish()

    def unpin(self, symbol: str, reason: str) -> RuntimeSettings:
        """Let go of a symbol's pin; its settings."""
        record = self.records.unpin(symbol, reason, datetime.now(UTC))
        self.publish()
        return RuntimeSettings.from_json(record.settings_json)

    def pinned(self) -> dict[str, RuntimeSettings]:
        """Pinned settings by symbol."""
        return {pin.symbol: RuntimeSettings.from_json(pin.settings_json) for pin in self.records.pins()}

    def publish(self) -> None:
        """Write the snapshot that production reads."""
        self.records.publish_snapshot(snapshot_path(self.location), datetime.now(UTC))

    def last_run(self, symbol: str) -> RunRecord | None:
        """The symbol's newest run."""
        return self.records.latest_run(symbol)

    def read(self, record: PromotionRecord) -> Promotion:
        """A line of the ledger in the tuner's own types. Raises ``AutotuneError`` when it cannot be read."""
        return self._promotion(record)

    def runs(self, symbol: str | None = None) -> tuple[RunRecord, ...]:
        """Every run, oldest first."""
        statement = select(RunRow).order_by(RunRow.started_at, RunRow.run_id)
        if symbol is not None:
            statement = statement.where(RunRow.symbol == symbol)
        with self._database.read() as session:
            return tuple(to_record(RunRecord, row) for row in session.scalars(statement))

    def pin_history(self, symbol: str | None = None) -> tuple[PinRecord | UnpinRecord, ...]:
        """Every pin and every end of one, oldest first."""
        statement = select(PinRow).order_by(PinRow.id)
        if symbol is not None:
            statement = statement.where(PinRow.symbol == symbol)
        with self._database.read() as session:
            return tuple(_pin(row) for row in session.scalars(statement))

    def measured_subject(self, symbol: str) -> Subject | None:
        """What the symbol's newest run with search trials was about, whether measured by it or taken up."""
        for run in reversed(self.runs(symbol)):
            found = self.records.measurements(
                symbol,
                workload_signature=run.workload_signature,
                environment_fingerprint=run.environment_fingerprint,
                stage="search",
            )
            if found:
                own = [record for record in found if record.run_id == run.run_id]
                return self._subject((own or found)[-1])
        return None

    def _subject(self, record: MeasurementRecord) -> Subject:
        workload = self.records.workload(record.workload_signature)
        environment = self.records.environment(record.environment_fingerprint)
        try:
            return Subject(
                symbol=record.symbol,
                workload=Workload.from_dict(json.loads(workload.workload_json)),
                environment=Environment.from_dict(json.loads(environment.facts_json)),
                series_digest=record.series_digest,
                model_digest=record.model_digest,
            )
        except (AutotuneError, TypeError, ValueError) as error:
            raise AutotuneError(
                f"{self.location}: what {record.symbol} was measured for cannot be read: {error}; "
                f"measure it afresh with `autotune run --symbol {record.symbol}`"
            ) from None

    def _promotion(self, record: PromotionRecord) -> Promotion:
        workload = self.records.workload(record.workload_signature)
        environment = self.records.environment(record.environment_fingerprint)
        try:
            return Promotion(
                symbol=record.symbol,
                profile=record.profile,
                workload=Workload.from_dict(json.loads(workload.workload_json)),
                environment=Environment.from_dict(json.loads(environment.facts_json)),
                settings=RuntimeSettings.from_json(record.settings_json),
                verdict=record.verdict,
                reason=record.reason,
                evidence=json.loads(record.evidence_json),
                promoted_at=record.promoted_at,
                kind=record.kind,
                id=record.id,
                run_id=record.run_id,
                rolled_back_at=record.rolled_back_at,
                rolled_back_reason=record.rolled_back_reason,
            )
        except (AutotuneError, SettingsError, TypeError, ValueError) as error:
            raise AutotuneError(
                f"{self.location}: promotion {record.id} of {record.symbol} cannot be read: {error}; "
                f"`autotune rollback {record.symbol}` takes it out of use"
            ) from None


def settings_key(text: str) -> str:
    """Check settings JSON from outside and return its key. Raises ``SettingsError``."""
    return RuntimeSettings.from_json(text).key


def workload_signature(text: str) -> str:
    """Check workload JSON from outside and return its signature. Raises ``UsageError``."""
    return Workload.from_dict(json.loads(text)).signature


def _outcome(record: MeasurementRecord) -> Outcome | None:
    """The outcome of a record, None when another version wrote something this one cannot read."""
    try:
        if record.outcome == MEASURED:
            return measured_from_json(record.measurement_json or "")
        return Failed(kind=record.outcome, detail=record.detail)
    except ValueError:
        return None


def _pin(row: PinRow) -> PinRecord | UnpinRecord:
    return to_record(UnpinRecord, row) if row.settings_key is None else to_record(PinRecord, row)


def _runs_still(run: RunRecord) -> bool:
    try:
        started = psutil.Process(run.owner_pid).create_time()
    except psutil.Error:
        return False
    return abs(started - run.owner_started) < 2.0


def _moment(stamp: Any) -> datetime:
    moment: datetime = pd.Timestamp(stamp).tz_localize("UTC").to_pydatetime()
    return moment
