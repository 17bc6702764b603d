"""What searches have measured, in the tuner's own types: the part of the store that runs score and choose from."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from autotuner.measurement.outcome import ColdStart, Measured, Outcome
from autotuner.record_mapping import (
    Subject,
    Subjects,
    measurement_record,
    read_outcome,
    read_settings,
    read_subject,
    stands,
)
from storage.records import MeasurementRecord, Stage
from storage.repository import Repository
from toto_core.settings import RuntimeSettings


class StoredTrials:
    """Trials in the store. Methods raise ``StorageError``, one line each."""

    location: str
    records: Repository
    _subjects: Subjects

    def record(
        self, subject: Subject, run_id: str, settings: RuntimeSettings, outcome: Outcome, stage: Stage
    ) -> None:
        """Append one outcome; it is durable when this returns."""
        self.records.add_measurement(measurement_record(subject, run_id, settings, outcome, stage))

    def known(
        self, subject: Subject, *, run_id: str | None, stage: Stage = "search"
    ) -> dict[RuntimeSettings, Outcome]:
        """The newest outcome of every configuration measured on the same prices, model, workload and environment.

        A failure counts only within the run that is going on: what failed another day (no compiler, too little
        time) deserves another try.
        """
        return {
            settings: outcome
            for record, settings, outcome in self._outcomes(subject, stage)
            if stands(record, subject.series_digest, run_id)
        }

    def tried(self, subject: Subject) -> dict[RuntimeSettings, Outcome]:
        """The newest outcome of every configuration, failures included, whatever run they are from.

        A failure stands only where nothing was measured: what compiles today is not ruled out by yesterday.
        """
        found: dict[RuntimeSettings, Outcome] = {}
        for _, settings, outcome in self._outcomes(subject, "search"):
            if isinstance(outcome, Measured) or not isinstance(found.get(settings), Measured):
                found[settings] = outcome
        return found

    def cold_starts(self, subject: Subject) -> dict[RuntimeSettings, ColdStart]:
        """The newest cold start of each compiled configuration, for any symbol of the same workload."""
        return {
            settings: outcome.cold_start
            for _, settings, outcome in self._outcomes(subject, "search", any_symbol=True)
            if isinstance(outcome, Measured) and outcome.cold_start is not None and settings.compiled
        }

    def measured_subject(self, symbol: str, environments: Collection[str] | None = None) -> Subject | None:
        """What the symbol's newest run with search trials was about, whether measured by it or taken up.

        ``environments`` are the fingerprints of those whose runs count, None for all.
        """
        for run in reversed(self.records.runs(symbol)):
            if environments is not None and run.environment_fingerprint not in environments:
                continue
            found = self.records.measurements(
                symbol,
                workload_signature=run.workload_signature,
                environment_fingerprint=run.environment_fingerprint,
                stage="search",
            )
            if found:
                own = [record for record in found if record.run_id == run.run_id]
                return self.subject_of((own or found)[-1])
        return None

    def subject_of(self, record: MeasurementRecord) -> Subject:
        """What a measurement was about. Raises ``AutotuneError`` when it cannot be read."""
        return read_subject(record, self._subjects, self.location)

    def _outcomes(
        self, subject: Subject, stage: Stage, *, any_symbol: bool = False
    ) -> Iterator[tuple[MeasurementRecord, RuntimeSettings, Outcome]]:
        """What was measured of this model, workload and environment, oldest first, as far as it can be read."""
        keys = subject.keys | ({"symbol": None} if any_symbol else {})
        for record in self.records.measurements(**keys, model_digest=subject.model_digest, stage=stage):
            outcome, settings = read_outcome(record), read_settings(record.settings_json)
            if outcome is not None and settings is not None:  # else written by another version
                yield record, settings, outcome
