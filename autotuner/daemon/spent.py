"""What measuring took of the last day: the budget's other side."""

from __future__ import annotations

from datetime import datetime, timedelta

from autotuner.daemon.intake import Log, stored_notes
from autotuner.daemon.situation import DAY
from autotuner.serving.spool import Recheck
from autotuner.store import Store


def spent_seconds(store: Store, now: datetime, log: Log) -> float:
    """Seconds of the day before ``now`` that ended runs and rechecks took. Raises ``StorageError``."""
    runs = sum(
        (run.finished_at - max(run.started_at, now - DAY)) / timedelta(seconds=1)
        for run in store.records.runs()
        if run.finished_at is not None and run.finished_at > now - DAY
    )
    notes = stored_notes(store.records.telemetry(since=now - DAY), log)
    return runs + sum(note.seconds for note in notes if isinstance(note, Recheck))
