"""Notices what disturbs timing: work of other processes, a clock that drops, other processes on a GPU."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from autotuner.machine.nvidia import gpu_state
from autotuner.measurement.outcome import Conditions
from autotuner.measurement.placement import busy_seconds, with_siblings

CLOCK_DROP = 0.9
"""A clock below this share of the fastest one seen disturbs a round: timings would differ by as much."""


@dataclass(frozen=True, kw_only=True)
class HardwareReading:
    """Clock rate in MHz (None where none can be read) and ids of the processes that compute on the GPU."""

    clock_mhz: float | None = None
    gpu_processes: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class ReadingsSoFar:
    """All readings so far: fastest and slowest clock in MHz, most foreign GPU processes at once."""

    fastest_mhz: float = 0.0
    slowest_mhz: float = float("inf")
    foreign_gpu_processes: int = 0

    @property
    def clock_share(self) -> float:
        """The slowest clock over the fastest, 1 where no clock was read."""
        return self.slowest_mhz / self.fastest_mhz if self.fastest_mhz else 1.0


def add_reading(
    seen: ReadingsSoFar, reading: HardwareReading, own: frozenset[int]
) -> tuple[ReadingsSoFar, bool]:
    """What is seen now, and whether ``reading`` disturbs: another's GPU process, or a clock that dropped.

    ``own`` are the ids of this process and its children. Where none of them is among the GPU's although they compute
    there, its ids are those of another namespace (the driver's, outside this container) and tell nothing.
    """
    foreign = len(reading.gpu_processes - own) if reading.gpu_processes & own else 0
    clock = reading.clock_mhz
    now = ReadingsSoFar(
        fastest_mhz=max(seen.fastest_mhz, clock or 0.0),
        slowest_mhz=min(seen.slowest_mhz, clock or float("inf")),
        foreign_gpu_processes=max(seen.foreign_gpu_processes, foreign),
    )
    dropped = clock is not None and clock < CLOCK_DROP * now.fastest_mhz
    return now, foreign > 0 or dropped


def read_hardware(device: str) -> HardwareReading:
    """The present state of ``device`` (``cpu`` or ``cuda``); what cannot be read is left out."""
    if device == "cuda":
        return _read_gpu()
    with contextlib.suppress(OSError, NotImplementedError, AttributeError):
        frequency = psutil.cpu_freq()
        if frequency is not None and frequency.current > 0:
            return HardwareReading(clock_mhz=float(frequency.current))
    return HardwareReading()


def own_processes() -> frozenset[int]:
    """This process and its children."""
    process = psutil.Process()
    return frozenset((process.pid, *(child.pid for child in process.children(recursive=True))))


def _read_gpu() -> HardwareReading:
    state = gpu_state()
    if state is None:
        return HardwareReading()
    return HardwareReading(clock_mhz=state.clock_mhz, gpu_processes=state.processes)


FOREIGN_SHARE = 0.15
"""CPU seconds of others per second of wall time from which a round counts as disturbed."""
_TICK = 0.01
"""The kernel counts in ticks of 10 ms, so two of them may be ours at the edges of a round."""
_HOPELESS = 3


class DisturbanceWatch:
    """Compares busy time with that of our own processes; ``own`` gives their CPU seconds.

    A round that was kept on some CPUs is disturbed by what others do on those, or on siblings that share their
    cores; a round that was not, by what others do anywhere. ``reading`` tells what the hardware says at the end
    of a round.
    """

    def __init__(
        self, own: Callable[[], float], reading: Callable[[], HardwareReading] = lambda: read_hardware("cpu")
    ) -> None:
        self._own = own
        self._reading = reading
        self._seen = ReadingsSoFar()
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
        self._seen, slowed = add_reading(self._seen, self._reading(), own_processes())
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
