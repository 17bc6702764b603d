"""What production saw of its calls: counted in process at a fraction of a microsecond, spooled in the background.

Lossy rather than slow: a window that cannot be written is dropped, and nothing here ever raises into a forecast.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from autotuner.serving.note_values import BUCKETS, MOST_SHAPES, PER_OCTAVE, Shape
from autotuner.serving.spool import LOWEST_MS, Labels, Window, write_note

if TYPE_CHECKING:
    from toto_core.compile_report import CompileReport

WINDOW_SECONDS = 60.0
FILES_OF_A_PROCESS = 64
"""Windows of a process that wait in the spool at most; the newest overwrite the oldest when nobody takes them in."""
_SCALE = PER_OCTAVE / math.log(2.0)


@dataclass(kw_only=True)
class Counts:
    """What is counted of a window while it is open; see ``Window`` for what its fields say."""

    begun: datetime
    buckets: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    shapes: dict[Shape, int] = field(default_factory=dict)
    longest_ms: float = 0.0
    recompiles: int = 0
    eager_calls: int = 0
    limit_hits: int = 0
    out_of_memory: int = 0
    fitted_samples: int | None = None

    def count(self, latency_ms: float, shape: Shape = (0, 0, 0)) -> None:
        """Count one call of ``shape``: context length, steps, samples; beyond some distinct ones not by shape."""
        place = int(math.log(latency_ms / LOWEST_MS) * _SCALE) if latency_ms > LOWEST_MS else 0
        self.buckets[place if place < BUCKETS else BUCKETS - 1] += 1
        self.longest_ms = max(self.longest_ms, latency_ms)
        if shape in self.shapes or len(self.shapes) < MOST_SHAPES:
            self.shapes[shape] = self.shapes.get(shape, 0) + 1

    def window(self, labels: Labels, ended: datetime) -> Window:
        """What was counted until ``ended``, of the calls that ``labels`` name."""
        counted = vars(self) | {"buckets": {place: n for place, n in enumerate(self.buckets) if n}}
        begun = counted.pop("begun")
        ended = max(begun, ended)  # clocks are set back
        return Window(**vars(labels), **counted, window_start=begun, window_end=ended)


class Telemetry:
    """Counts the calls of one pipeline; ``spool`` is the folder its windows are written to.

    ``labels`` say whose calls these are and go into every window. ``observe`` may be called from one thread at
    a time, as the pipeline itself.
    """

    def __init__(
        self,
        labels: Labels,
        spool: Path,
        *,
        window_seconds: float = WINDOW_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._labels = labels
        self._spool = spool
        self._clock = clock
        self._counts = Counts(begun=clock())
        self._seen = (0, 0, False)
        self._number = 0
        self._name = os.urandom(4).hex()
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=_flush_until_stopped,
            args=(weakref.ref(self), self._stopped, window_seconds),
            name="autotune-telemetry",
            daemon=True,
        )
        self._thread.start()
        atexit.register(_close, weakref.ref(self))

    def observe(
        self, latency_ms: float, shape: Shape, report: CompileReport, fitted: int | None = None
    ) -> None:
        """Count one call of ``shape`` and what compiling did meanwhile; never raises.

        ``fitted`` is the sample paths decoded together where there was no memory for those asked for.
        """
        try:
            counts = self._counts
            counts.count(latency_ms, shape)
            if fitted is not None:
                counts.out_of_memory += 1
                counts.fitted_samples = min(fitted, counts.fitted_samples or fitted)
            now = (report.recompiles, report.eager_calls, report.recompile_limit_hit)
            if now != self._seen:
                before, self._seen = self._seen, now
                counts.recompiles += now[0] - before[0]
                counts.eager_calls += now[1] - before[1]
                counts.limit_hits += now[2] and not before[2]
        except Exception:  # counting must never cost a forecast
            return

    def flush(self) -> None:
        """Write the window that is open and begin another; what cannot be written is lost. Never raises."""
        counts, self._counts = self._counts, Counts(begun=self._clock())
        window = counts.window(self._labels, self._clock())
        if not window.calls:
            return
        name = f"telemetry-{os.getpid()}-{self._name}-{self._number % FILES_OF_A_PROCESS}.json"
        self._number += 1
        with contextlib.suppress(Exception):  # a full disk, a folder that is gone: lossy, not in the way
            write_note(self._spool, name, window)

    def close(self) -> None:
        """Write what is open and end the background thread; safe to call twice."""
        if not self._stopped.is_set():
            self._stopped.set()
            self.flush()


def _flush_until_stopped(
    telemetry: weakref.ref[Telemetry], stopped: threading.Event, window_seconds: float
) -> None:
    # A weak reference, so that a pipeline that is dropped takes its counter and this thread with it.
    while not stopped.wait(window_seconds):
        counter = telemetry()
        if counter is None:
            return
        counter.flush()
        del counter


def _close(telemetry: weakref.ref[Telemetry]) -> None:
    counter = telemetry()
    if counter is not None:
        counter.close()
