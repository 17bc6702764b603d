"""Settings that failed in production: remembered by this process, and noted in the spool for the tuner."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autotuner.environment import Environment
from autotuner.serving.resolution import Resolution
from storage.whole_files import written_whole

_failed: dict[tuple[str, str, str], str] = {}


@dataclass(frozen=True, kw_only=True)
class Quarantine:
    """One failure of settings to load, to compile or to stay compiled; ``failed_at`` is UTC."""

    resolution: Resolution
    environment: Environment
    reason: str
    failed_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the note."""
        found = self.resolution
        return {
            "kind": "quarantine",
            "symbol": found.symbol,
            "model": found.model,
            "workload": None if found.workload is None else found.workload.to_dict(),
            "workload_signature": None if found.workload is None else found.workload.signature,
            "profile": found.profile,
            "source": found.source,
            "settings_key": found.settings_key,
            "settings": found.settings.to_dict(),
            "environment_fingerprint": self.environment.fingerprint,
            "environment": json.loads(self.environment.to_json()),
            "reason": self.reason,
            "failed_at": self.failed_at.astimezone(UTC).isoformat(),
            "pid": os.getpid(),
        }

    @property
    def file_name(self) -> str:
        """One name per symbol, model, settings and environment, so that a crash loop leaves one note."""
        found = self.resolution
        parts = (found.symbol, found.model, found.settings_key, self.environment.fingerprint)
        return f"quarantine-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}.json"


def remembered(resolution: Resolution, environment: Environment) -> str | None:
    """Why these settings failed in this process for this model on this device; None when they did not."""
    return _failed.get(_key(resolution, environment))


def remember(quarantine: Quarantine) -> None:
    """Keep the failure for the life of this process."""
    _failed[_key(quarantine.resolution, quarantine.environment)] = quarantine.reason


def write_note(folder: Path, name: str, fields: Mapping[str, Any]) -> None:
    """Write a JSON note, 0600, whole or not at all, over an earlier one; ``folder`` is made 0700.

    Raises ``OSError``.
    """
    with written_whole(folder / name) as aside:
        aside.write_text(json.dumps(fields, separators=(",", ":")), encoding="utf-8")


def _key(resolution: Resolution, environment: Environment) -> tuple[str, str, str]:
    return environment.device, resolution.model, resolution.settings_key
