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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from autotuner.serving.quarantine import write_note

WINDOW_SECONDS = 60.0
FILES_OF_A_PROCESS = 64
"""Windows of a process that wait in the spool at most; the newest overwrite the oldest when nobody takes them in."""
PER_OCTAVE = 8
"""Buckets of the latency histogram for each doubling: a quantile read from it is at most 9 % too high."""
_MOST_SHAPES = 32
_LOWEST_MS = 0.01
_BUCKETS = 24 * PER_OCTAVE
_SCALE = PER_OCTAVE / math.log(2.0)


class Report(Protocol):
    """The running counts of a pipeline's ``CompileReport``."""

    @property
    def recompiles(self) -> int:
        """Graphs beyond the first of each call."""
        ...

    @property
    def recompile_limit_hit(self) -> bool:
        """Whether torch goes on eagerly with further shapes."""
        ...

    @property
    def eager_calls(self) -> int:
        """Calls that ran eagerly because compiling was on hold."""
        ...


@dataclass(kw_only=True)
class Window:
    """Counts of one stretch of calls.

    ``buckets`` is a histogram of milliseconds, ``PER_OCTAVE`` a doubling; ``shapes`` counts calls by context
    length, steps and samples.
    """

    begun: datetime
    buckets: list[int] = field(default_factory=lambda: [0] * _BUCKETS)
    shapes: dict[tuple[int, int, int], int] = field(default_factory=dict)
    longest_ms: float = 0.0
    recompiles: int = 0
    eager_calls: int = 0
    limit_hits: int = 0

    def count(self, latency_ms: float, shape: tuple[int, int, int] = (0, 0, 0)) -> None:
        """Count one call of ``shape``: context length, steps, samples; beyond some distinct ones not by shape."""
        place = int(math.log(latency_ms / _LOWEST_MS) * _SCALE) if latency_ms > _LOWEST_MS else 0
        self.buckets[place if place < _BUCKETS else _BUCKETS - 1] += 1
        self.longest_ms = max(self.longest_ms, latency_ms)
        if shape in self.shapes or len(self.shapes) < _MOST_SHAPES:
            self.shapes[shape] = self.shapes.get(shape, 0) + 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values; empty buckets are left out."""
        return {
            "calls": sum(self.buckets),
            "longest_ms": self.longest_ms,
            "recompiles": self.recompiles,
            "eager_calls": self.eager_calls,
            "limit_hits": self.limit_hits,
            "shapes": {"/".join(map(str, shape)): count for shape, count in self.shapes.items()},
            "buckets": {str(place): count for place, count in enumerate(self.buckets) if count},
        }


class Telemetry:
    """Counts the calls of one pipeline; ``spool`` is the folder its windows are written to.

    ``labels`` say whose calls these are and go into every window. ``observe`` may be called from one thread at
    a time, as the pipeline itself.
    """

    def __init__(
        self,
        labels: Mapping[str, Any],
        spool: Path,
        *,
        window_seconds: float = WINDOW_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._labels = dict(labels)
        self._spool = spool
        self._clock = clock
        self._window = Window(begun=clock())
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

    def observe(self, latency_ms: float, shape: tuple[int, int, int], report: Report) -> None:
        """Count one call of ``shape`` and what compiling did meanwhile; never raises."""
        try:
            window = self._window
            window.count(latency_ms, shape)
            now = (report.recompiles, report.eager_calls, report.recompile_limit_hit)
            if now != self._seen:
                before, self._seen = self._seen, now
                window.recompiles += now[0] - before[0]
                window.eager_calls += now[1] - before[1]
                window.limit_hits += now[2] and not before[2]
        except Exception:  # counting must never cost a forecast
            return

    def flush(self) -> None:
        """Write the window that is open and begin another; what cannot be written is lost. Never raises."""
        window, self._window = self._window, Window(begun=self._clock())
        counts = window.to_dict()
        if not counts["calls"]:
            return
        name = f"telemetry-{os.getpid()}-{self._name}-{self._number % FILES_OF_A_PROCESS}.json"
        self._number += 1
        times = {"window_start": window.begun.isoformat(), "window_end": self._clock().isoformat()}
        with contextlib.suppress(
            Exception
        ):  # a full disk, a folder that is gone: lossy rather than in the way
            write_note(self._spool, name, {"kind": "telemetry", **self._labels, **times, **counts})

    def close(self) -> None:
        """Write what is open and end the background thread; safe to call twice."""
        if not self._stopped.is_set():
            self._stopped.set()
            self.flush()


def quantile_ms(buckets: Mapping[str, int], share: float) -> float:
    """The ``share`` quantile of a histogram in milliseconds: the upper end of its bucket, at most 9 % too high.

    Raises ``ValueError`` for a histogram without calls.
    """
    total = sum(buckets.values())
    if total <= 0:
        raise ValueError("telemetry: no call to take a quantile of")
    seen = 0
    for place in sorted(map(int, buckets)):
        seen += buckets[str(place)]
        if seen >= share * total:
            break
    return _LOWEST_MS * math.exp((place + 1) / _SCALE)


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
