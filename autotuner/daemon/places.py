"""Where a tick measures: on this machine, or in each environment of a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum
from typing import Protocol

from autotuner.daemon.measuring_child import Tuned
from autotuner.engines.interpreters import NO_OTHERS, environment_like
from autotuner.environment import Environment
from autotuner.machine.engine_versions import engine_name


class Whose(IntEnum):
    """Whose an environment is, as a place sees it: nearer ones are greater."""

    OTHERS = 0
    BEFORE = 1
    """This machine's before an upgrade, or on another of its devices."""
    HERE = 2


@dataclass(frozen=True, kw_only=True)
class Place:
    """An environment that symbols are kept right in; ``name`` is what people call it, empty for this machine.

    ``engines`` are the environments that engines have on its nodes; this machine is asked for those it has. A place
    that ``is_away`` has no node now: what is unsafe there is taken back, and nothing is measured.
    """

    environment: Environment
    name: str = ""
    engines: tuple[Environment, ...] = ()
    is_away: bool = False

    def of(self, symbol: str) -> str:
        """A symbol there, for people."""
        return in_place(symbol, self.name)

    def like(self, there: Environment, pythons: Mapping[str, str] = NO_OTHERS) -> Environment:
        """What an environment is compared with: this one with the engine of ``there``.

        ``pythons`` are this machine's interpreters of engines. Of an engine that nobody asked the nodes for it is
        not known whether it is another one.
        """
        if not self.name:
            return environment_like(there, self.environment, pythons)
        known = (self.environment, *self.engines)
        if there in known:
            return there
        engine = engine_name(there.engine)
        same = (each for each in known if engine_name(each.engine) == engine)
        return next(same, replace(self.environment, engine=there.engine))

    def whose(
        self, there: Environment, pythons: Mapping[str, str] = NO_OTHERS, others: Iterable[Place] = ()
    ) -> Whose:
        """Whose ``there`` is, where ``others`` are places, too."""
        if self.like(there, pythons) == there:
            return Whose.HERE
        if there.machine != self.environment.machine or any(
            each.like(there) == there for each in others if each != self
        ):
            return Whose.OTHERS
        return Whose.BEFORE

    def may_have_run(self, there: Environment, pythons: Mapping[str, str] = NO_OTHERS) -> bool:
        """Whether a run in ``there`` was made here, on nodes even one by another version of its engine."""
        return self.like(there, pythons) == there or (
            bool(self.name) and self.environment.is_but_for_its_engine(there)
        )


def in_place(symbol: str, place: str) -> str:
    """A symbol in a place of that name, for people."""
    return f"{symbol} ({place})" if place else symbol


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
        """Where symbols are kept right, as it is now, and where what is unsafe is taken back."""

    def measure(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Tuned]]:
        """Run the jobs, and tell of each that was begun as it ends.

        Who runs them one after the other asks for the next one only then.
        """

    def stopping(self) -> str | None:
        """Why nothing may be begun any more, None where something may."""


class OneByOne(ABC):
    """A machine that measures in its own environment, one command after the other."""

    @abstractmethod
    def environment(self) -> Environment:
        """The environment as it is now."""

    @abstractmethod
    def tune(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        """Run ``autotune run`` with ``arguments``."""

    @abstractmethod
    def recheck(self, arguments: Sequence[str], *, seconds: float) -> Tuned:
        """Run ``autotune recheck`` with ``arguments``."""

    def places(self) -> Sequence[Place]:
        """This machine."""
        return (Place(environment=self.environment()),)

    def measure(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Tuned]]:
        """One after the other; whether the next one is begun at all is asked once this one has ended."""
        for job in jobs:
            command, *arguments = job.arguments
            act = self.recheck if command == "recheck" else self.tune
            yield job, act(arguments, seconds=job.seconds)
