"""``Owner``: which process a run, trial, lease or folder belongs to, and whether that process is still there."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

SAME_START_SECONDS = 2.0
"""Start times this close are the same process: the boot time they are counted from may be corrected."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BEYOND_1970 = 1e10  # no such start is also one in seconds since 1970
FOREIGN_LASTS = timedelta(days=1)
"""What a process of another host has begun counts as dead after this long: nobody here can ask after it, and runs
have a timeout, so that few take a day."""


_BEGUN = time.time_ns()


def this_process() -> str:
    """Text that no other process has, on whatever host; ids alone are used again, in a container at every start."""
    return hashlib.sha256(f"{this_host()} {os.getpid()} {_BEGUN}".encode()).hexdigest()[:16]


def this_host() -> str:
    """The name by which processes that can be asked after know each other.

    Not the kernel's boot id: containers share that but not their processes, and it is another one after a reboot,
    when all that was left behind must be known as dead. Machines and containers that share a store or a cache
    folder need names of their own, as they have unless someone gives them one name.
    """
    return platform.node() or "localhost"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process: its id, when it started and its host; ids alone are used again.

    ``started`` is in seconds: since 1970 as earlier versions wrote it, else as ``_unmoved_start`` counts.
    """

    pid: int
    started: float
    host: str

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        import psutil

        started = _unmoved_start(os.getpid()) or psutil.Process().create_time()
        return cls(pid=os.getpid(), started=started, host=this_host())

    @classmethod
    def from_dict(cls, values: object) -> Owner | None:
        """The inverse of ``to_dict``; None for anything that is no owner."""
        if not isinstance(values, Mapping):
            return None
        try:
            return cls(pid=int(values["pid"]), started=float(values["started"]), host=str(values["host"]))
        except (KeyError, TypeError, ValueError):
            return None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    def is_alive(self) -> bool | None:
        """Whether the process still runs; None when it belongs to another host and cannot be asked after."""
        if self.host != this_host():
            return None
        import psutil

        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            starts = (_unmoved_start(self.pid), process.create_time())
            return any(
                start is not None and abs(start - self.started) < SAME_START_SECONDS for start in starts
            )
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:  # somebody else's process may have the id by now: leave its work alone
            return True

    def may_work_on(self, since: datetime | None) -> bool:
        """Whether to leave alone what the process has begun at ``since`` (with a time zone; None: not yet).

        True while it is alive, and for ``FOREIGN_LASTS`` from ``since`` where only another host could tell.
        """
        alive = self.is_alive()
        if alive is not None:
            return alive
        return since is not None and datetime.now(UTC) - since <= FOREIGN_LASTS


def _unmoved_start(pid: int) -> float | None:
    """When a process started, in seconds that no change of the clock moves and no other boot repeats.

    The time of day it started at is no such thing: that of the boot, from which it is counted, moves with the clock.
    None where it cannot be told.
    """
    try:
        boot = int(_BOOT_ID.read_text(encoding="ascii")[:8], 16)
        ticks = int(
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()[19]
        )
    except (OSError, ValueError, IndexError):
        return None
    return _BEYOND_1970 + boot + ticks / os.sysconf("SC_CLK_TCK")
