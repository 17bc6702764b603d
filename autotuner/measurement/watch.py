"""Notices work of other processes, and clocks that drop, while blocks are timed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psutil

from autotuner.measurement.hardware import Reading, Seen, judge, own_processes, read
from autotuner.measurement.placement import busy_seconds, with_siblings
from autotuner.measurement.trial import Conditions

FOREIGN_SHARE = 0.15
"""CPU seconds of others per second of wall time from which a round counts as disturbed."""
_TICK = 0.01
"""The kernel counts in ticks of 10 ms, so two of them may be ours at the edges of a round."""
_HOPELESS = 3


class Watch:
    """Compares busy time with that of our own processes; ``own`` gives their CPU seconds.

    A round that was kept on some CPUs is disturbed by what others do on those, or on siblings that share their
    cores; a round that was not, by what others do anywhere. ``reading`` tells what the hardware says at the end
    of a round.
    """

    def __init__(
        self, own: Callable[[], float], reading: Callable[[], Reading] = lambda: read("cpu")
    ) -> None:
        self._own = own
        self._reading = reading
        self._seen = Seen()
        self._foreign_total = 0.0
        self._flagged = 0
        self._quiet = 0
        self.start()

    @property
    def never_quiet(self) -> bool:
        """The machine has been busy all along: taking rounds again would only take longer."""
        return self._quiet == 0 and self._flagged >= _HOPELESS

    def start(self, cpus: frozenset[int] | None = None) -> None:
        """Begin a round on ``cpus``, None for all."""
        self._cpus = None if cpus is None else with_siblings(cpus)
        self._wall = time.monotonic()
        self._busy = busy_seconds()
        self._mine = self._own() + _this_process()

    def disturbed(self) -> bool:
        """Whether someone else used the device since ``start``."""
        wall = time.monotonic() - self._wall
        mine = self._own() + _this_process() - self._mine
        spent = [late - early for early, late in zip(self._busy, busy_seconds(), strict=True)]
        self._foreign_total += max(0.0, sum(spent) - mine)
        foreign = sum(spent[cpu] for cpu in self._cpus if cpu < len(spent)) if self._cpus else sum(spent)
        self._seen, slowed = judge(self._seen, self._reading(), own_processes())
        seen = slowed or foreign - mine > max(2 * _TICK, FOREIGN_SHARE * wall)
        self._quiet += not seen
        return seen

    def flag(self) -> None:
        """Count a round that stays disturbed however often it is taken."""
        self._flagged += 1

    def conditions(self, blocks: int) -> Conditions:
        """What was seen over all rounds."""
        return Conditions(
            load_average=os.getloadavg()[0],
            foreign_cpu_seconds=round(self._foreign_total, 3),
            disturbed_blocks=self._flagged,
            blocks=blocks,
            foreign_gpu_processes=self._seen.foreign_gpu_processes,
            clock_share=round(self._seen.clock_share, 3),
        )


def _this_process() -> float:
    times = psutil.Process().cpu_times()
    return float(times.user + times.system)
