"""Snapshots for the tests of looking up: entries of this very environment, published as the store does."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from autotuner.environment import Environment, current_environment
from autotuner.paths import snapshot_path
from autotuner.workload import RequestShape, Workload
from storage.snapshot import SnapshotEntry, SnapshotPin, publish
from toto_core.settings import RuntimeSettings

START = datetime(2026, 5, 4, 12, tzinfo=UTC)
BF16 = RuntimeSettings(precision="bf16")
COMPILED = RuntimeSettings(compile_mode="default", freezing=True)
SMALL = Workload(shapes=(RequestShape(context_length=64, prediction_length=4, num_samples=8),))


def elsewhere(**changes: Any) -> Environment:
    """This environment with other values in some fields."""
    return replace(current_environment(), **changes)


def entry(
    symbol: str = "AMD",
    *,
    settings: RuntimeSettings = BF16,
    workload: Workload = SMALL,
    profile: str = "production",
    environment: Environment | None = None,
    number: int = 1,
    newest: bool = True,
    **raw: Any,
) -> SnapshotEntry:
    """What a promotion leaves in the snapshot, made on day ``number``; ``raw`` overrides stored fields."""
    environment = environment or current_environment()
    fields: dict[str, Any] = {
        "symbol": symbol,
        "profile": profile,
        "model": workload.model,
        "workload_signature": workload.signature,
        "workload_json": workload.to_json(),
        "environment_fingerprint": environment.fingerprint,
        "environment_json": json.dumps(asdict(environment)),
        "settings_key": settings.key,
        "settings_json": settings.to_json(),
        "promised_json": "{}",
        "since": START + timedelta(days=number),
        "promotion_id": number,
        "newest": newest,
    }
    return SnapshotEntry(**{**fields, **raw})


def pin(symbol: str = "AMD", settings: RuntimeSettings = COMPILED, **raw: Any) -> SnapshotPin:
    """What a pin leaves in the snapshot; ``raw`` overrides stored fields."""
    fields: dict[str, Any] = {
        "symbol": symbol,
        "settings_key": settings.key,
        "settings_json": settings.to_json(),
        "reason": "trading week",
        "since": START,
    }
    return SnapshotPin(**{**fields, **raw})


def published(store: str, *entries: SnapshotEntry, pins: tuple[SnapshotPin, ...] = ()) -> Path:
    """The snapshot of ``store``, newly written."""
    path = snapshot_path(store)
    publish(path, entries, pins, generation_time=START)
    return path
