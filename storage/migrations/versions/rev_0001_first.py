"""The first schema; the ledger's tables refuse UPDATE and DELETE."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = ("promotions", "rollbacks", "pins")

Text = sa.Text()
Time = sa.String(32)


def upgrade() -> None:
    _create_subjects()
    _create_runs()
    _create_ledger()
    _create_upkeep()
    if op.get_bind().dialect.name == "sqlite":
        _forbid_changes_on_sqlite()
    else:
        _forbid_changes_on_postgresql()


def downgrade() -> None:
    for table in (
        "telemetry",
        "leases",
        "artifacts",
        "pins",
        "rollbacks",
        "promotions",
        "measurements",
        "runs",
        "series",
        "workloads",
        "environments",
    ):
        op.drop_table(table)
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION refuse_change")


def _create_subjects() -> None:
    op.create_table(
        "environments",
        sa.Column("fingerprint", Text, nullable=False),
        sa.Column("facts_json", Text, nullable=False),
        sa.Column("first_seen", Time, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_environments"),
    )
    op.create_table(
        "workloads",
        sa.Column("signature", Text, nullable=False),
        sa.Column("workload_json", Text, nullable=False),
        sa.Column("first_seen", Time, nullable=False),
        sa.PrimaryKeyConstraint("signature", name="pk_workloads"),
    )
    op.create_table(
        "series",
        sa.Column("digest", Text, nullable=False),
        sa.Column("symbol", Text, nullable=False),
        sa.Column("source", Text, nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("first_timestamp", Time, nullable=False),
        sa.Column("last_timestamp", Time, nullable=False),
        sa.Column("first_seen", Time, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_series"),
    )


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", Text, nullable=False),
        sa.Column("symbol", Text, nullable=False),
        sa.Column("workload_signature", Text, nullable=False),
        sa.Column("environment_fingerprint", Text, nullable=False),
        sa.Column("profile", Text, nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("started_at", Time, nullable=False),
        sa.Column("finished_at", Time, nullable=True),
        sa.Column("status", Text, nullable=False),
        sa.Column("owner_pid", sa.BigInteger(), nullable=False),
        sa.Column("owner_started", sa.Double(), nullable=False),
        sa.Column("study_name", Text, nullable=False),
        sa.Column("summary_json", Text, nullable=True),
        sa.PrimaryKeyConstraint("run_id", name="pk_runs"),
        _workload_of("runs"),
        _environment_of("runs"),
    )
    op.create_index("ix_runs_symbol_started_at", "runs", ["symbol", "started_at"])
    op.create_table(
        "measurements",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", Text, nullable=False),
        sa.Column("symbol", Text, nullable=False),
        sa.Column("workload_signature", Text, nullable=False),
        sa.Column("environment_fingerprint", Text, nullable=False),
        sa.Column("series_digest", Text, nullable=False),
        sa.Column("model_digest", Text, nullable=False),
        sa.Column("settings_key", Text, nullable=False),
        sa.Column("settings_json", Text, nullable=False),
        sa.Column("stage", Text, nullable=False),
        sa.Column("outcome", Text, nullable=False),
        sa.Column("detail", Text, nullable=False),
        sa.Column("measurement_json", Text, nullable=True),
        sa.Column("measured_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_measurements"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="fk_measurements_run_id"),
        sa.ForeignKeyConstraint(["series_digest"], ["series.digest"], name="fk_measurements_series_digest"),
        _workload_of("measurements"),
        _environment_of("measurements"),
    )
    op.create_index("ix_measurements_run_id", "measurements", ["run_id"])
    op.create_index("ix_measurements_symbol_measured_at", "measurements", ["symbol", "measured_at"])
    op.create_index(
        "ix_measurements_lookup",
        "measurements",
        ["workload_signature", "environment_fingerprint", "settings_key"],
    )


def _create_ledger() -> None:
    op.create_table(
        "promotions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", Text, nullable=True),
        sa.Column("symbol", Text, nullable=False),
        sa.Column("profile", Text, nullable=False),
        sa.Column("model", Text, nullable=False),
        sa.Column("workload_signature", Text, nullable=False),
        sa.Column("environment_fingerprint", Text, nullable=False),
        sa.Column("settings_key", Text, nullable=False),
        sa.Column("settings_json", Text, nullable=False),
        sa.Column("verdict", Text, nullable=False),
        sa.Column("reason", Text, nullable=False),
        sa.Column("evidence_json", Text, nullable=False),
        sa.Column("promoted_at", Time, nullable=False),
        sa.Column("kind", Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_promotions"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name="fk_promotions_run_id"),
        _workload_of("promotions"),
        _environment_of("promotions"),
    )
    op.create_index(
        "ix_promotions_active",
        "promotions",
        ["symbol", "profile", "workload_signature", "environment_fingerprint"],
    )
    op.create_table(
        "rollbacks",
        sa.Column("promotion_id", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("reason", Text, nullable=False),
        sa.Column("rolled_back_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("promotion_id", name="pk_rollbacks"),
        sa.ForeignKeyConstraint(["promotion_id"], ["promotions.id"], name="fk_rollbacks_promotion_id"),
    )
    op.create_table(
        "pins",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("symbol", Text, nullable=False),
        sa.Column("settings_key", Text, nullable=True),
        sa.Column("settings_json", Text, nullable=True),
        sa.Column("reason", Text, nullable=False),
        sa.Column("pinned_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pins"),
    )
    op.create_index("ix_pins_symbol", "pins", ["symbol"])


def _create_upkeep() -> None:
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("environment_fingerprint", Text, nullable=False),
        sa.Column("settings_key", Text, nullable=False),
        sa.Column("model_digest", Text, nullable=False),
        sa.Column("engine_version", Text, nullable=False),
        sa.Column("path", Text, nullable=False),
        sa.Column("sha256", Text, nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_artifacts"),
        _environment_of("artifacts"),
    )
    op.create_index(
        "ix_artifacts_environment_fingerprint_settings_key",
        "artifacts",
        ["environment_fingerprint", "settings_key"],
    )
    op.create_table(
        "leases",
        sa.Column("device", Text, nullable=False),
        sa.Column("owner", Text, nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("acquired_at", Time, nullable=False),
        sa.Column("heartbeat_at", Time, nullable=False),
        sa.Column("expires_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("device", name="pk_leases"),
    )
    op.create_table(
        "telemetry",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("symbol", Text, nullable=False),
        sa.Column("settings_key", Text, nullable=False),
        sa.Column("window_start", Time, nullable=False),
        sa.Column("window_end", Time, nullable=False),
        sa.Column("payload_json", Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_telemetry"),
    )
    op.create_index("ix_telemetry_symbol_window_start", "telemetry", ["symbol", "window_start"])


def _workload_of(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["workload_signature"], ["workloads.signature"], name=f"fk_{table}_workload_signature"
    )


def _environment_of(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["environment_fingerprint"],
        ["environments.fingerprint"],
        name=f"fk_{table}_environment_fingerprint",
    )


def _forbid_changes_on_sqlite() -> None:
    for table in APPEND_ONLY:
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )


def _forbid_changes_on_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "EXECUTE FUNCTION refuse_change()"
        )
