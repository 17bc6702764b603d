"""Records and stores for the tests of the store."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storage.database import Database, open_database
from storage.records import (
    EnvironmentRecord,
    MeasurementRecord,
    PinRecord,
    PromotionRecord,
    RunRecord,
    SeriesRecord,
    WorkloadRecord,
)
from storage.repository import Repository

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
NOW = datetime(2026, 5, 4, 12, 30, 15, 250_001, tzinfo=UTC)

ENVIRONMENT = EnvironmentRecord(fingerprint="env-1", facts_json='{"device":"cpu"}', first_seen=NOW)
WORKLOAD = WorkloadRecord(signature="load-1", workload_json='{"context_length":512}', first_seen=NOW)
SERIES = SeriesRecord(
    digest="series-1",
    symbol="AMD",
    source="AMD.csv.gz",
    points=1000,
    first_timestamp=NOW - timedelta(days=1000),
    last_timestamp=NOW,
    first_seen=NOW,
)
RUN = RunRecord(
    run_id="6f1c0c5e-1b2d-4a53-9d5c-0a8f3c1f7e21",
    symbol="AMD",
    workload_signature="load-1",
    environment_fingerprint="env-1",
    profile="production",
    seed=7,
    started_at=NOW,
    owner_pid=4321,
    owner_started=1_777_000_000.25,
    owner_host="here",
    study_name="AMD/load-1/env-1",
)
MEASUREMENT = MeasurementRecord(
    run_id=RUN.run_id,
    symbol="AMD",
    workload_signature="load-1",
    environment_fingerprint="env-1",
    series_digest="series-1",
    model_digest="model-1",
    settings_key="eager/fp32",
    settings_json='{"compile_mode":"eager"}',
    stage="search",
    outcome="measured",
    measured_at=NOW,
    measurement_json='{"latency_ms":[1.5,1.25]}',
)
PROMOTION = PromotionRecord(
    symbol="AMD",
    profile="production",
    model="mini@1",
    workload_signature="load-1",
    environment_fingerprint="env-1",
    settings_key="default/bf16",
    settings_json='{"compile_mode":"default"}',
    verdict="better",
    reason="12 % faster, at least 9 %",
    evidence_json='{"ratio":1.12}',
    promoted_at=NOW,
    kind="run",
    run_id=RUN.run_id,
)
PIN = PinRecord(
    symbol="AMD",
    settings_key="eager/fp32",
    settings_json='{"compile_mode":"eager"}',
    reason="trading week",
    pinned_at=NOW,
)


@functools.cache
def empty_store() -> bytes:
    """The file of a store with nothing in it, made once: migrations take longer than most tests."""
    with tempfile.TemporaryDirectory() as folder:
        open_database(Path(folder) / "empty.db").close()
        return (Path(folder) / "empty.db").read_bytes()


def new_store(path: Path, *, busy_timeout_s: float = 5.0) -> Database:
    """An open, empty store at `path`."""
    path.write_bytes(empty_store())
    return open_database(path, busy_timeout_s=busy_timeout_s)


def with_subjects(database: Database) -> Repository:
    """A repository that knows the environment, workload, series and run of the records above."""
    repository = Repository(database)
    repository.put(ENVIRONMENT, WORKLOAD, SERIES)
    repository.start_run(RUN)
    return repository


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user whom file permissions bind, which they do not bind root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A temporary folder that `unprivileged` code can enter and read, not write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)
