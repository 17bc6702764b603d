"""The tables, as SQLAlchemy classes whose columns have the names of the records' fields."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Dialect, Double, ForeignKey, Index, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from storage.errors import StoreCorrupt

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcTime(TypeDecorator[datetime]):
    """An aware time as ISO 8601 text in UTC with microseconds, so that text order is time order."""

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Text for the database; naive times were refused by the records."""
        return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """The time back. Raises `StoreCorrupt` when the text is not one."""
        if value is None:
            return None
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except (TypeError, ValueError) as error:
            raise StoreCorrupt(f"the store holds {value!r} where a time belongs: restore a backup") from error


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {str: Text(), datetime: UtcTime(), float: Double()}  # noqa: RUF012 - SQLAlchemy's form


class EnvironmentRow(Base):
    """Environments by fingerprint."""

    __tablename__ = "environments"

    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    facts_json: Mapped[str]
    first_seen: Mapped[datetime]


class WorkloadRow(Base):
    """Workloads by signature."""

    __tablename__ = "workloads"

    signature: Mapped[str] = mapped_column(primary_key=True)
    workload_json: Mapped[str]
    first_seen: Mapped[datetime]


class SeriesRow(Base):
    """Series by digest."""

    __tablename__ = "series"

    digest: Mapped[str] = mapped_column(primary_key=True)
    symbol: Mapped[str]
    source: Mapped[str]
    points: Mapped[int] = mapped_column(BigInteger)
    first_timestamp: Mapped[datetime]
    last_timestamp: Mapped[datetime]
    first_seen: Mapped[datetime]


class RunRow(Base):
    """Tuning runs; the only rows besides leases that change."""

    __tablename__ = "runs"
    __table_args__ = (Index(None, "symbol", "started_at"),)

    run_id: Mapped[str] = mapped_column(primary_key=True)
    symbol: Mapped[str]
    workload_signature: Mapped[str] = mapped_column(ForeignKey("workloads.signature"))
    environment_fingerprint: Mapped[str] = mapped_column(ForeignKey("environments.fingerprint"))
    profile: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    status: Mapped[str]
    owner_pid: Mapped[int] = mapped_column(BigInteger)
    owner_started: Mapped[float]
    owner_host: Mapped[str | None]
    resumed_at: Mapped[datetime | None]
    study_name: Mapped[str]
    summary_json: Mapped[str | None]


class MeasurementRow(Base):
    """Raw measurements, one row per trial."""

    __tablename__ = "measurements"
    __table_args__ = (
        Index(None, "run_id"),
        Index(None, "symbol", "measured_at"),
        Index("ix_measurements_lookup", "workload_signature", "environment_fingerprint", "settings_key"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.run_id"))
    symbol: Mapped[str]
    workload_signature: Mapped[str] = mapped_column(ForeignKey("workloads.signature"))
    environment_fingerprint: Mapped[str] = mapped_column(ForeignKey("environments.fingerprint"))
    series_digest: Mapped[str] = mapped_column(ForeignKey("series.digest"))
    model_digest: Mapped[str]
    settings_key: Mapped[str]
    settings_json: Mapped[str]
    stage: Mapped[str]
    outcome: Mapped[str]
    detail: Mapped[str]
    measurement_json: Mapped[str | None]
    measured_at: Mapped[datetime]


class PromotionRow(Base):
    """The ledger: append-only."""

    __tablename__ = "promotions"
    __table_args__ = (
        Index("ix_promotions_active", "symbol", "profile", "workload_signature", "environment_fingerprint"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str | None] = mapped_column(ForeignKey("runs.run_id"))
    symbol: Mapped[str]
    profile: Mapped[str]
    model: Mapped[str]
    workload_signature: Mapped[str] = mapped_column(ForeignKey("workloads.signature"))
    environment_fingerprint: Mapped[str] = mapped_column(ForeignKey("environments.fingerprint"))
    settings_key: Mapped[str]
    settings_json: Mapped[str]
    verdict: Mapped[str]
    reason: Mapped[str]
    evidence_json: Mapped[str]
    promoted_at: Mapped[datetime]
    kind: Mapped[str]


class RollbackRow(Base):
    """Which promotions were taken back: append-only, at most one row a promotion."""

    __tablename__ = "rollbacks"

    promotion_id: Mapped[int] = mapped_column(
        ForeignKey("promotions.id"), primary_key=True, autoincrement=False
    )
    reason: Mapped[str]
    rolled_back_at: Mapped[datetime]


class PinRow(Base):
    """Pins: append-only; the newest row of a symbol holds, and one without settings unpins."""

    __tablename__ = "pins"
    __table_args__ = (Index(None, "symbol"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    symbol: Mapped[str]
    settings_key: Mapped[str | None]
    settings_json: Mapped[str | None]
    reason: Mapped[str]
    pinned_at: Mapped[datetime]


class ArtifactRow(Base):
    """Compile artifacts on disk."""

    __tablename__ = "artifacts"
    __table_args__ = (Index(None, "environment_fingerprint", "settings_key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    environment_fingerprint: Mapped[str] = mapped_column(ForeignKey("environments.fingerprint"))
    settings_key: Mapped[str]
    model_digest: Mapped[str]
    engine_version: Mapped[str]
    path: Mapped[str]
    sha256: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


class LeaseRow(Base):
    """One row per device for ever, so that its fencing token never goes back."""

    __tablename__ = "leases"

    device: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    token: Mapped[int] = mapped_column(BigInteger)
    acquired_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class TelemetryRow(Base):
    """What production saw, window by window."""

    __tablename__ = "telemetry"
    __table_args__ = (Index(None, "symbol", "window_start"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    symbol: Mapped[str]
    settings_key: Mapped[str]
    window_start: Mapped[datetime]
    window_end: Mapped[datetime]
    payload_json: Mapped[str]


class SelfTestRow(Base):
    """What self-tests found of a machine."""

    __tablename__ = "selftests"
    __table_args__ = (Index(None, "environment_fingerprint"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    environment_fingerprint: Mapped[str] = mapped_column(ForeignKey("environments.fingerprint"))
    measured_at: Mapped[datetime]
    result_json: Mapped[str]
