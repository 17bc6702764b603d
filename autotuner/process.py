"""``Owner``: which process a trial belongs to, and whether that process is still there."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

SAME_START_SECONDS = 2.0
"""Start times this close are the same process: the boot time they are counted from may be corrected."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process: its id, when it started (seconds since 1970) and its machine; ids alone are used again."""

    pid: int
    started: float
    host: str

    @classmethod
    def current(cls) -> Owner:
        """This process."""
        return cls(pid=os.getpid(), started=psutil.Process().create_time(), host=platform.node())

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
        """Whether the process still runs; None when it belongs to another machine."""
        if self.host != platform.node():
            return None
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return abs(process.create_time() - self.started) < SAME_START_SECONDS
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:  # somebody else's process may have the id by now: leave its trial alone
            return True
