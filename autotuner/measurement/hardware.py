"""What the hardware itself says while blocks are timed: clock rates, and who else computes on a GPU.

NVIDIA's own library answers for a GPU where ``nvidia-ml-py`` is installed; where nothing can be read, nothing
is reported. Run on no GPU so far.
"""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import dataclass
from typing import Any

import psutil

CLOCK_DROP = 0.9
"""A clock below this share of the fastest one seen disturbs a round: timings would differ by as much."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Clock rate in MHz (None where none can be read) and ids of the processes that compute on the GPU."""

    clock_mhz: float | None = None
    gpu_processes: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """All readings so far: fastest and slowest clock in MHz, most foreign GPU processes at once."""

    fastest_mhz: float = 0.0
    slowest_mhz: float = float("inf")
    foreign_gpu_processes: int = 0

    @property
    def clock_share(self) -> float:
        """The slowest clock over the fastest, 1 where no clock was read."""
        return self.slowest_mhz / self.fastest_mhz if self.fastest_mhz else 1.0


def judge(seen: Seen, reading: Reading, own: frozenset[int]) -> tuple[Seen, bool]:
    """What is seen now, and whether ``reading`` disturbs: another's GPU process, or a clock that dropped.

    ``own`` are the ids of this process and its children.
    """
    foreign = len(reading.gpu_processes - own)
    clock = reading.clock_mhz
    now = Seen(
        fastest_mhz=max(seen.fastest_mhz, clock or 0.0),
        slowest_mhz=min(seen.slowest_mhz, clock or float("inf")),
        foreign_gpu_processes=max(seen.foreign_gpu_processes, foreign),
    )
    dropped = clock is not None and clock < CLOCK_DROP * now.fastest_mhz
    return now, foreign > 0 or dropped


def read(device: str) -> Reading:
    """The present state of ``device`` (``cpu`` or ``cuda``); what cannot be read is left out."""
    if device == "cuda":
        return _read_gpu()
    with contextlib.suppress(OSError, NotImplementedError, AttributeError):
        frequency = psutil.cpu_freq()
        if frequency is not None and frequency.current > 0:
            return Reading(clock_mhz=float(frequency.current))
    return Reading()


def own_processes() -> frozenset[int]:
    """This process and its children."""
    process = psutil.Process()
    return frozenset((process.pid, *(child.pid for child in process.children(recursive=True))))


def _read_gpu() -> Reading:
    with contextlib.suppress(ImportError):
        nvml: Any = importlib.import_module("pynvml")
        try:
            nvml.nvmlInit()
            handle = nvml.nvmlDeviceGetHandleByIndex(0)
            running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
            clock = nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
            return Reading(clock_mhz=float(clock), gpu_processes=frozenset(each.pid for each in running))
        except nvml.NVMLError:
            return Reading()
    return Reading()
