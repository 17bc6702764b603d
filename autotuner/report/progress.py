"""What a run that is going on has measured so far: its trials, and the best of them with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from autotuner.measurement.outcome import Interval, Measured
from autotuner.record_mapping import owner_runs_still, read_outcome, read_settings
from autotuner.store import Store
from storage.records import RunRecord


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One trial of the run: the label of its settings, what came of it, and its speed-up where it was measured."""

    label: str
    outcome: str
    at: datetime
    ratio: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A run under way and its trials so far, oldest first; ``best`` is the fastest of them, None before the first."""

    run: RunRecord
    trials: tuple[Tried, ...]

    @property
    def best(self) -> Tried | None:
        """By what is sure of its speed-up."""
        measured = [trial for trial in self.trials if trial.ratio is not None]
        return max(measured, key=lambda trial: trial.ratio.low if trial.ratio else 0.0, default=None)


def under_way(store: Store, symbol: str | None = None) -> tuple[RunRecord, ...]:
    """Runs whose process is still there, oldest first. Raises ``StorageError``."""
    runs = store.records.unfinished_runs(symbol)
    return tuple(run for run in runs if run.status == "running" and owner_runs_still(run))


def progress(store: Store, symbol: str) -> Progress | None:
    """The newest run of ``symbol`` that is going on, None where there is none. Raises ``StorageError``."""
    runs = under_way(store, symbol)
    if not runs:
        return None
    trials = []
    for record in store.records.measurements(symbol, run_id=runs[-1].run_id):
        settings, outcome = read_settings(record.settings_json), read_outcome(record)
        trials.append(
            Tried(
                label="settings that cannot be read" if settings is None else settings.label,
                outcome=record.outcome,
                at=record.measured_at,
                ratio=outcome.ratio if isinstance(outcome, Measured) else None,
            )
        )
    return Progress(run=runs[-1], trials=tuple(trials))
