"""A tick's world where it measures on the daemon's own machine, one command after the other."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from autotuner.daemon.measuring_child import Tuned, run_tuner
from autotuner.daemon.places import OneByOne
from autotuner.daemon.quiet import Quiet, why_quiet
from autotuner.daemon.service_manager import notify
from autotuner.engines.interpreters import variable_of
from autotuner.environment import Environment, current_environment
from autotuner.paths import DATABASE_VARIABLE


@dataclass(kw_only=True)
class ThisMachine(OneByOne):
    """The real world of a tick."""

    stop: threading.Event
    nice: int
    device: str
    location: str
    quiet: Sequence[Quiet] = ()
    pythons: Mapping[str, str] = field(default_factory=dict)

    def now(self) -> datetime:
        """The time, UTC."""
        return datetime.now(UTC)

    def load(self) -> float:
        """The load average of the last minute."""
        return os.getloadavg()[0]

    def environment(self) -> Environment:
        """The environment as it was when this tick began."""
        return current_environment(self.device)

    def stopping(self) -> str | None:
        """Whether the daemon was asked to end."""
        return "the daemon is stopping" if self.stop.is_set() else None

    def tune(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        """Run ``autotune run`` in a process of its own; a quiet window that begins meanwhile ends it."""
        return self._measure(["run", "--json", *arguments], seconds)

    def recheck(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        """Run ``autotune recheck`` likewise."""
        return self._measure(["recheck", "--json", *arguments], seconds)

    def _measure(self, arguments: Sequence[str], seconds: float) -> Tuned:
        return run_tuner(
            arguments,
            nice=self.nice,
            seconds=seconds,
            stop=lambda: self.stop.is_set() or why_quiet(self.now(), self.quiet) is not None,
            beat=lambda: notify(WATCHDOG="1"),
            variables={
                DATABASE_VARIABLE: self.location,
                **{variable_of(engine): python for engine, python in self.pythons.items()},
            },
        )
