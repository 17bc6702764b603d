"""A daemon that owns a cluster: each tick has a child process that speaks to it, and puts there what is due."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from autotuner.daemon.away import away_places
from autotuner.daemon.cluster_child import ClusterChild
from autotuner.daemon.intake import Log
from autotuner.daemon.measuring_child import Tuned
from autotuner.daemon.places import Job, Place
from autotuner.environment import Environment
from autotuner.errors import AutotuneError, cause, one_line
from autotuner.store import Store


@dataclass(frozen=True, kw_only=True)
class Owned:
    """The cluster of a daemon: its address, which of its environments, and for which device and models."""

    on: str
    environments: tuple[str, ...] = ()
    device: str = "cpu"
    models: tuple[str, ...] = ()

    def to_json(self) -> str:
        """For the child."""
        return json.dumps(vars(self))


@dataclass(kw_only=True)
class OnCluster:
    """The world of a tick whose runs are made on the nodes of a cluster; a context manager.

    Ray ends the process that it is gone from, so that a child process speaks to it. Where it cannot be reached, what
    is known is still settled and taken back: only nothing is measured, and ``fault`` says why. ``quiet`` says why
    nothing may be measured now, None where it may.
    """

    owned: Owned
    store: Store
    stop: threading.Event
    quiet: Callable[[], str | None]
    beat: Callable[[], None]
    log: Log
    fault: str | None = None
    _child: ClusterChild | None = field(default=None, init=False)
    _places: tuple[Place, ...] = field(default=(), init=False)
    _was_quiet: str | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        if not self._pulse():  # in a quiet window nothing is asked of the cluster
            return self
        try:
            self._child = ClusterChild(
                self.owned.to_json(), self.store.location, self._pulse, self._pass_over
            )
            self._places = _places_of(self._child.found)
        except AutotuneError as error:
            self._gone(str(error))
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.leave()

    def now(self) -> datetime:
        """The time, UTC."""
        return datetime.now(UTC)

    def load(self) -> float:
        """None: nothing is measured on this machine."""
        return 0.0

    def stopping(self) -> str | None:
        """Why nothing is begun any more."""
        return "the daemon is stopping" if self.stop.is_set() else self.fault or self._was_quiet

    def places(self) -> Sequence[Place]:
        """The cluster's environments, and those of it that have no node now."""
        away = away_places(self.store, self.owned.device, self.owned.environments, self._places)
        return (*self._places, *away)

    def measure(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Tuned]]:
        """Side by side, on as many nodes as there are; a stop or a quiet window ends those under way."""
        every = list(jobs)
        if not every or self._child is None:
            return
        began: set[int] = set()
        left = dict(enumerate(every))
        try:
            for event in self._child.work(every):
                number: int = event["job"]
                job = left[number]
                if "host" in event:
                    began.add(number)
                    self.log("begun", symbol=job.symbol, environment=job.place.name, host=event["host"])
                    continue
                del left[number]
                yield job, Tuned(document=event["document"], cause=event["cause"], began=number in began)
        except AutotuneError as error:
            self._gone(str(error))
        why = "stopped" if self.fault is None else self.fault
        for number in sorted(
            began & left.keys()
        ):  # they store that they were interrupted, and are gone on with
            yield left[number], Tuned(document=None, cause=why, stopped=True)

    def _pulse(self) -> bool:
        """Whether to go on; a tick that had to be quiet once is so to its end."""
        self.beat()
        self._was_quiet = self._was_quiet or self.quiet()
        return not self.stop.is_set() and self._was_quiet is None

    def _gone(self, reason: str) -> None:
        if self.stopping() is not None:  # it was ended
            return
        self.fault = one_line(reason)
        self.log("cluster", reason=self.fault, kept="nothing is measured until the next tick")

    def _pass_over(self, what: str) -> None:
        self.log("cluster", reason=one_line(what), kept="the tick goes on")


def _places_of(found: Mapping[str, Any]) -> tuple[Place, ...]:
    try:
        return tuple(
            Place(
                environment=Environment.from_dict(each["facts"]),
                name=each["name"],
                engines=tuple(map(Environment.from_dict, each.get("engines", ()))),
            )
            for each in found["places"]
        )
    except (KeyError, TypeError, ValueError, AutotuneError) as error:
        raise AutotuneError(f"what was said of the cluster's nodes cannot be read: {cause(error)}") from None
