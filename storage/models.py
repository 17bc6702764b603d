"""The tables, whose columns have the names of the records' fields."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
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
        except (TypeError, ValueError, OverflowError) as error:  # the last for one that UTC has not
            raise StoreCorrupt(f"the store holds {value!r} where a time belongs: restore a backup") from error


METADATA = MetaData(naming_convention=NAMING)

ENVIRONMENTS = Table(
    "environments",
    METADATA,
    Column("fingerprint", Text, primary_key=True),
    Column("facts_json", Text, nullable=False),
    Column("first_seen", UtcTime, nullable=False),
)
"""Environments by fingerprint."""

WORKLOADS = Table(
    "workloads",
    METADATA,
    Column("signature", Text, primary_key=True),
    Column("workload_json", Text, nullable=False),
    Column("first_seen", UtcTime, nullable=False),
)
"""Workloads by signature."""

SERIES = Table(
    "series",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("symbol", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("first_timestamp", UtcTime, nullable=False),
    Column("last_timestamp", UtcTime, nullable=False),
    Column("first_seen", UtcTime, nullable=False),
)
"""Series by digest."""

RUNS = Table(
    "runs",
    METADATA,
    Column("run_id", Text, primary_key=True),
    Column("symbol", Text, nullable=False),
    Column("workload_signature", Text, ForeignKey("workloads.signature"), nullable=False),
    Column("environment_fingerprint", Text, ForeignKey("environments.fingerprint"), nullable=False),
    Column("profile", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("finished_at", UtcTime, nullable=True),
    Column("status", Text, nullable=False),
    Column("owner_pid", BigInteger, nullable=False),
    Column("owner_started", Double, nullable=False),
    Column("owner_host", Text, nullable=True),
    Column("resumed_at", UtcTime, nullable=True),
    Column("study_name", Text, nullable=False),
    Column("summary_json", Text, nullable=True),
    Index(None, "symbol", "started_at"),
)
"""Tuning runs; the only rows besides leases that change."""

MEASUREMENTS = Table(
    "measurements",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("run_id", Text, ForeignKey("runs.run_id"), nullable=False),
    Column("symbol", Text, nullable=False),
    Column("workload_signature", Text, ForeignKey("workloads.signature"), nullable=False),
    Column("environment_fingerprint", Text, ForeignKey("environments.fingerprint"), nullable=False),
    Column("series_digest", Text, ForeignKey("series.digest"), nullable=False),
    Column("model_digest", Text, nullable=False),
    Column("settings_key", Text, nullable=False),
    Column("settings_json", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("measurement_json", Text, nullable=True),
    Column("measured_at", UtcTime, nullable=False),
    Index(None, "run_id"),
    Index(None, "symbol", "measured_at"),
    Index("ix_measurements_lookup", "workload_signature", "environment_fingerprint", "settings_key"),
)
"""Raw measurements, one row per trial."""

PROMOTIONS = Table(
    "promotions",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("run_id", Text, ForeignKey("runs.run_id"), nullable=True),
    Column("symbol", Text, nullable=False),
    Column("profile", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("workload_signature", Text, ForeignKey("workloads.signature"), nullable=False),
    Column("environment_fingerprint", Text, ForeignKey("environments.fingerprint"), nullable=False),
    Column("settings_key", Text, nullable=False),
    Column("settings_json", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("evidence_json", Text, nullable=False),
    Column("promoted_at", UtcTime, nullable=False),
    Column("kind", Text, nullable=False),
    Index("ix_promotions_active", "symbol", "profile", "workload_signature", "environment_fingerprint"),
)
"""The ledger: append-only."""

ROLLBACKS = Table(
    "rollbacks",
    METADATA,
    Column("promotion_id", Integer, ForeignKey("promotions.id"), primary_key=True, autoincrement=False),
    Column("reason", Text, nullable=False),
    Column("rolled_back_at", UtcTime, nullable=False),
)
"""Which promotions were taken back: append-only, at most one row a promotion."""

PINS = Table(
    "pins",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("symbol", Text, nullable=False),
    Column("settings_key", Text, nullable=True),
    Column("settings_json", Text, nullable=True),
    Column("reason", Text, nullable=False),
    Column("pinned_at", UtcTime, nullable=False),
    Index(None, "symbol"),
)
"""Pins: append-only; the newest row of a symbol holds, and one without settings unpins."""

ARTIFACTS = Table(
    "artifacts",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("environment_fingerprint", Text, ForeignKey("environments.fingerprint"), nullable=False),
    Column("settings_key", Text, nullable=False),
    Column("model_digest", Text, nullable=False),
    Column("engine_version", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index(None, "environment_fingerprint", "settings_key"),
)
"""Compile artifacts on disk."""

LEASES = Table(
    "leases",
    METADATA,
    Column("device", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("acquired_at", UtcTime, nullable=False),
    Column("heartbeat_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)
"""One row per device for ever, so that its fencing token never goes back."""

TELEMETRY = Table(
    "telemetry",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("symbol", Text, nullable=False),
    Column("settings_key", Text, nullable=False),
    Column("window_start", UtcTime, nullable=False),
    Column("window_end", UtcTime, nullable=False),
    Column("payload_json", Text, nullable=False),
    Index(None, "symbol", "window_start"),
)
"""What production saw, window by window."""

SELFTESTS = Table(
    "selftests",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("environment_fingerprint", Text, ForeignKey("environments.fingerprint"), nullable=False),
    Column("measured_at", UtcTime, nullable=False),
    Column("result_json", Text, nullable=False),
    Index(None, "environment_fingerprint"),
)
"""What self-tests found of a machine."""
