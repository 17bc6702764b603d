"""Where a tick measures: on this machine, or in each environment of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from autotuner.daemon.measuring_child import Tuned
from autotuner.environment import Environment


@dataclass(frozen=True, kw_only=True)
class Place:
    """An environment that symbols are kept right in; ``name`` is what people call it, empty for this machine."""

    environment: Environment
    name: str = ""

    def of(self, symbol: str) -> str:
        """A symbol there, for people."""
        return f"{symbol} ({self.name})" if self.name else symbol


@dataclass(frozen=True, kw_only=True)
class Job:
    """``autotune`` with ``arguments``, the command first, to be run in a place; stopped after ``seconds``."""

    symbol: str
    place: Place
    arguments: tuple[str, ...]
    seconds: float


class Machine(Protocol):
    """What a tick asks of the world; a simulation answers for tests."""

    def now(self) -> datetime:
        """The time, aware."""

    def load(self) -> float:
        """The load average of the last minute."""

    def places(self) -> Sequence[Place]:
        """Where symbols are kept right, as it is now."""

    def measure(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Tuned]]:
        """Run the jobs, and tell of each that was begun as it ends.

        Who runs them one after the other asks for the next one only then.
        """

    def stopping(self) -> str | None:
        """Why nothing may be begun any more, None where something may."""


class OneByOne:
    """A machine that measures in its own environment, one command after the other."""

    def environment(self) -> Environment:
        """The environment as it is now."""
        raise NotImplementedError

    def tune(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        """Run ``autotune run`` with ``arguments``."""
        raise NotImplementedError

    def recheck(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        """Run ``autotune recheck`` with ``arguments``."""
        raise NotImplementedError

    def places(self) -> Sequence[Place]:
        """This machine."""
        return (Place(environment=self.environment()),)

    def measure(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Tuned]]:
        """One after the other; whether the next one is begun at all is asked once this one has ended."""
        for job in jobs:
            command, *arguments = job.arguments
            act = self.recheck if command == "recheck" else self.tune
            yield job, act(arguments, seconds=job.seconds)
