"""Folders where trials keep what they compiled, one per settings."""

from __future__ import annotations

import hashlib
from pathlib import Path

from toto_core.settings import RuntimeSettings


def trial_artifacts(caches: Path, settings: RuntimeSettings) -> Path:
    """Where below ``caches`` the trials of some settings keep what they compiled."""
    return caches / hashlib.sha256(settings.key.encode()).hexdigest()[:16]


def holds_artifacts(caches: Path, settings: RuntimeSettings) -> bool:
    """Whether an earlier trial left there what it compiled."""
    return any(path.is_file() for path in trial_artifacts(caches, settings).rglob("*"))
