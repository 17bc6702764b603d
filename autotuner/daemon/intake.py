"""Takes what production left in the spool into the store: telemetry windows and notes of quarantined settings."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from storage.errors import InvalidRecord
from storage.records import TelemetryRecord
from storage.repository import Repository

MOST_FILES = 10_000
"""Notes taken in at once: a spool that grew for months must not hold up a tick."""
LARGEST_BYTES = 1 << 20
KINDS = ("telemetry", "quarantine")


@dataclass(frozen=True, kw_only=True)
class Intake:
    """How many notes of each kind were stored, and how many were no notes and were removed."""

    telemetry: int = 0
    quarantines: int = 0
    refused: int = 0


def take_in(records: Repository, spool: Path) -> Intake:
    """Store every note in ``spool`` and remove it; a note that cannot be read is removed and counted.

    A note is removed only once the store has it, so that a kill in between costs nothing. Raises
    ``StorageError`` when the store fails; what was not stored stays.
    """
    counts = {"telemetry": 0, "quarantine": 0, "refused": 0}
    for path in _notes(spool):
        record = _read(path)
        if record is None:
            counts["refused"] += 1
        else:
            records.add_telemetry(record)
            counts[json.loads(record.payload_json)["kind"]] += 1
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return Intake(telemetry=counts["telemetry"], quarantines=counts["quarantine"], refused=counts["refused"])


def _notes(spool: Path) -> list[Path]:
    try:
        found = sorted(path for path in spool.iterdir() if path.suffix == ".json")
    except OSError:  # nothing was ever left there
        return []
    return found[:MOST_FILES]


def _read(path: Path) -> TelemetryRecord | None:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST_BYTES:
            return None
        note = json.loads(path.read_text(encoding="utf-8"))
        return _record(note)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidRecord):
        return None


def _record(note: Mapping[str, Any]) -> TelemetryRecord:
    if note["kind"] not in KINDS:
        raise ValueError("another kind")
    begun, ended = (
        (note["failed_at"], note["failed_at"])
        if note["kind"] == "quarantine"
        else (note["window_start"], note["window_end"])
    )
    return TelemetryRecord(
        symbol=note["symbol"],
        settings_key=note["settings_key"],
        window_start=datetime.fromisoformat(begun),
        window_end=datetime.fromisoformat(ended),
        payload_json=json.dumps(note),
    )
