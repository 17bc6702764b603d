"""Which CPUs a round runs on: those that were least busy before it, the same ones for every arm.

Left to the scheduler, an arm stays for a whole launch on the CPU it woke up on, and CPUs differ: one serves
interrupts, one has a busy sibling. On two CPUs that made launches of one configuration differ by 7 to 8 %; with all
arms of a round on the same CPU by 4 to 6 % (docs/decisions/0012-one-place-a-round.md).
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import psutil

LAUNCHING_CPUS = 2
"""CPUs that an arm on a GPU is kept on: one launches kernels, one serves what the driver and Python do beside."""


class Placement:
    """Chooses ``width`` CPUs a round; None where arms want every CPU, or where nobody can be placed.

    A container's quota takes none of them away: it bounds time, on whichever CPUs that is spent.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        self._before = busy_seconds()

    def next(self) -> frozenset[int] | None:
        """The CPUs of the next round."""
        if not 0 < self._width < len(self._cpus):
            return None
        now = busy_seconds()
        spent = [late - early for early, late in zip(self._before, now, strict=True)]
        self._before = now
        return least_busy(self._cpus, spent, self._width)

    @property
    def everywhere(self) -> frozenset[int]:
        """All CPUs this process may use."""
        return frozenset(self._cpus)


def least_busy(cpus: Sequence[int], spent: Sequence[float], width: int) -> frozenset[int]:
    """The ``width`` of ``cpus`` with the least of ``spent`` (busy seconds by CPU number); low numbers last.

    Our own last round made its CPUs busy, so on a quiet machine the rounds go round the CPUs.
    """
    order = sorted(cpus, key=lambda cpu: (spent[cpu] if cpu < len(spent) else 0.0, -cpu))
    return frozenset(order[:width])


def place(pid: int, cpus: frozenset[int]) -> None:
    """Keep every thread of a process on ``cpus`` from now on; what cannot be placed is left where it is."""
    with contextlib.suppress(OSError, AttributeError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names are numbers, not paths
            os.sched_setaffinity(int(thread), cpus)


def busy_seconds() -> list[float]:
    """CPU seconds that every CPU was busy since the machine started, by CPU number."""
    # Guest time is already inside user time.
    return [
        sum(times) - sum(getattr(times, name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice"))
        for times in psutil.cpu_times(percpu=True)
    ]


def with_siblings(cpus: frozenset[int]) -> frozenset[int]:
    """``cpus`` and those that share a core with one of them, as far as the system tells."""
    return cpus.union(*map(_siblings, cpus))


@functools.cache
def _siblings(cpu: int) -> frozenset[int]:
    with contextlib.suppress(OSError, ValueError):
        text = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
        ends = [[int(end) for end in part.split("-")] for part in text.strip().split(",")]
        return frozenset(each for part in ends for each in range(part[0], part[-1] + 1))
    return frozenset()
