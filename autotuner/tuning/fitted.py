"""What production had memory for, as a limit of the next run."""

from __future__ import annotations

from autotuner.record_mapping import read_note
from autotuner.serving.spool import NoteError, Window
from autotuner.store import Store, Subject


def most_together(store: Store, subject: Subject) -> int | None:
    """The fewest sample paths that production had to decode together for lack of memory, None where it never did.

    Only calls of the same workload on the same environment count, as long as their telemetry is kept. Raises
    ``StorageError``.
    """
    wanted = subject.workload.signature, subject.environment.fingerprint
    found = []
    for record in store.records.telemetry(subject.symbol):
        try:
            note = read_note(record)
        except NoteError:  # the daemon says so where it matters
            continue
        if (note.workload_signature, note.environment_fingerprint) == wanted and isinstance(note, Window):
            found.append(note.fitted_samples)
    return min((fitted for fitted in found if fitted), default=None)
