"""Settings that failed in production: remembered by this process, and noted in the spool for the tuner."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from autotuner.environment import Environment
from autotuner.serving.resolution import Resolution
from autotuner.serving.spool import Labels, Quarantine

_failed: dict[tuple[str, str, str], str] = {}


def labels(found: Resolution, environment: Environment, *, settings_key: str, source: str | None) -> Labels:
    """Whose calls those of ``found``'s pipeline are, as notes say it; ``source`` is where its settings come from."""
    return Labels(
        symbol=found.symbol,
        settings_key=settings_key,
        environment_fingerprint=environment.fingerprint,
        profile=found.profile,
        model=found.model,
        workload_signature=None if found.workload is None else found.workload.signature,
        source=source,
    )


def quarantine_of(found: Resolution, environment: Environment, reason: str) -> Quarantine:
    """The note that ``found``'s settings failed here and now."""
    about = labels(found, environment, settings_key=found.settings_key, source=found.source)
    return Quarantine(
        **vars(about),
        reason=reason,
        failed_at=datetime.now(UTC),
        settings=found.settings,
        workload=found.workload,
        environment=environment,
        pid=os.getpid(),
    )


def remembered(resolution: Resolution, environment: Environment) -> str | None:
    """Why these settings failed in this process for this model on this device; None when they did not."""
    return _failed.get(_key(resolution, environment))


def remember(found: Resolution, environment: Environment, reason: str) -> None:
    """Keep for the life of this process why these settings failed."""
    _failed[_key(found, environment)] = reason


def _key(resolution: Resolution, environment: Environment) -> tuple[str, str, str]:
    return environment.device, resolution.model, resolution.settings_key
