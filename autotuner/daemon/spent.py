"""What measuring took of the last day: the budget's other side."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from autotuner.daemon.intake import Log, say_once, stored_notes
from autotuner.daemon.situation import DAY
from autotuner.serving.spool import Recheck
from autotuner.store import Store
from storage.errors import StoreCorrupt


def spent_seconds(store: Store, now: datetime, log: Log) -> float:
    """Seconds of the day before ``now`` that ended runs and rechecks took. Raises ``StorageError``."""
    runs = sum(
        _of_the_day(run.started_at, run.finished_at, now)
        for run in store.records.run_rows(ended_since=now - DAY)
        if run.finished_at is not None
    )
    notes = stored_notes(store.records.promoted_telemetry_with('"recheck"', since=now - DAY), log)
    rechecks = (note for note in notes if isinstance(note, Recheck))
    return runs + sum(_of_the_day(note.window_start, note.window_end, now) for note in rechecks)


def _of_the_day(begun: datetime, ended: datetime, now: datetime) -> float:
    # At most what there was: a time of a clock that was wrong must not use up the budget of years.
    return max(0.0, (min(ended, now) - max(begun, now - DAY)) / timedelta(seconds=1))


class Budget:
    """What is left of a day's ``seconds`` at the time that ``now`` tells: a tick's own rechecks count, too."""

    def __init__(self, store: Store, seconds: float, now: Callable[[], datetime], log: Log) -> None:
        self._store, self._seconds, self._now, self._log = store, seconds, now, log
        self._left: float | None = None

    def at_most(self) -> float:
        """What was left when that was last read: others may have spent more since. Raises ``StorageError``."""
        return self.left() if self._left is None else self._left

    def left(self) -> float:
        """What is left, read now; nothing where damage keeps that from being known. Raises ``StorageError``."""
        try:
            self._left = self._seconds - spent_seconds(self._store, self._now(), self._log)
        except StoreCorrupt as error:  # what is unsafe is taken back all the same
            say_once(self._log, "damaged", ("spent", str(error)), reason=f"nothing is measured: {error}")
            self._left = 0.0
        return self._left
