"""Runs orders on the nodes of a cluster until all have ended, whatever nodes come and go meanwhile."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from autotuner.daemon.measuring_child import Tuned
from autotuner.errors import AutotuneError
from autotuner.fleet.cluster import Cluster, Handle, LostError
from autotuner.fleet.nodes import Fleet, Node, Teller
from autotuner.fleet.orders import Order, Schedule
from autotuner.fleet.station import Task

SECONDS_GONE = 120.0
"""How long the runs of an environment wait for a node once its last one is lost."""
SECONDS_TO_BEGIN = 300.0
"""How long a run may wait on its node for what another task of the cluster has, before it is taken back."""
_IN_USE = "other tasks of the cluster use what it needs"
_SECONDS_BETWEEN, _SECONDS_TO_END = 0.5, 15.0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How one order ended: its run's document, or None and why there is none; ``host`` None where it never began."""

    order: Order
    document: dict[str, Any] | None
    reason: str = ""
    host: str | None = None


class Audience(Teller, Protocol):
    """Hears how a fleet goes on."""

    def begun(self, order: Order, host: str) -> None:
        """A run has begun on a node."""
        ...

    def said(self, order: Order, host: str, line: str) -> None:
        """A line of a run."""
        ...

    def ended(self, ended: Ended) -> None:
        """An order has ended."""
        ...


@dataclass(kw_only=True)
class _Run:
    order: Order
    node: Node
    handle: Handle
    since: float = field(default_factory=time.monotonic)
    has_begun: bool = False


def drive(
    fleet: Fleet,
    cluster: Cluster,
    schedule: Schedule,
    *,
    task_of: Callable[[Order], Task],
    audience: Audience,
) -> Iterator[Ended]:
    """Run every order, and tell of each as it ends, in whatever order.

    Of orders whose environment has no node for ``SECONDS_GONE``, lost or in use by others, as failed. Raises
    ``AutotuneError`` when the cluster is gone. On an interrupt every run stores that it was interrupted, within
    seconds.
    """
    driver = _Driver(fleet, cluster, schedule, task_of, audience)
    try:
        while not schedule.done:
            fleet.refresh()
            driver.place()
            yield from driver.hear()
            yield from driver.give_up()
            time.sleep(_SECONDS_BETWEEN)
    except BaseException:
        driver.stop()
        raise


class _Driver:
    """Orders under way."""

    def __init__(
        self,
        fleet: Fleet,
        cluster: Cluster,
        schedule: Schedule,
        task_of: Callable[[Order], Task],
        audience: Audience,
    ) -> None:
        self._fleet, self._cluster, self._schedule = fleet, cluster, schedule
        self._task_of, self._audience = task_of, audience
        self._runs: list[_Run] = []
        self._known = {node.environment for node in fleet.nodes.values()}
        self._gone_since: dict[str, float] = {}
        self._in_use: set[str] = set()
        self._turn, self._turns = itertools.count(1), defaultdict[str, int](int)

    def place(self) -> None:
        """Put an order on every free device. Devices take turns, so that each environment gets its share."""
        turns = sorted(self._fleet.nodes.values(), key=lambda node: self._turns[node.ray.id])
        for node in turns:
            on_device = sum(run.node.device == node.device for run in self._runs)
            while on_device < node.slots:
                order = self._schedule.next(node.environment)
                if order is None:
                    break
                handle = self._cluster.begin(node.ray, self._task_of(order))
                self._runs.append(_Run(order=order, node=node, handle=handle))
                self._turns[node.ray.id] = next(self._turn)
                on_device += 1

    def hear(self) -> Iterator[Ended]:
        """What runs say; those that have ended."""
        for run in list(self._runs):
            try:
                news = self._cluster.news(run.handle)
            except LostError as error:
                self._end(run)
                self._fleet.doubt(run.node)
                yield from self._again(run, str(error))
                continue
            if news is None:
                yield from self._not_begun(run)
                continue
            if not run.has_begun:
                run.has_begun = True
                self._audience.begun(run.order, run.node.host)
            for line in news.lines:
                self._audience.said(run.order, run.node.host, line)
            if news.ended is not None:
                self._end(run)
                yield from self._closed(run, news.ended)

    def give_up(self) -> Iterator[Ended]:
        """Orders of environments that had no node for too long."""
        here = {node.environment for node in self._fleet.nodes.values()}
        for environment in self._known:
            if environment in here or not self._schedule.waiting(environment):
                self._gone_since.pop(environment, None)
                continue
            since = self._gone_since.setdefault(environment, time.monotonic())
            if time.monotonic() - since >= SECONDS_GONE:
                why = f": {_IN_USE}" if environment in self._in_use else ""
                reason = f"its environment has had no node for {SECONDS_GONE:.0f} s{why}; run again when it has one"
                for order in self._schedule.given_up(environment):
                    yield self._told(Ended(order=order, document=None, reason=reason))

    def stop(self) -> None:
        """End every run: each stores what it is at, or is killed when that takes too long."""
        for run in self._runs:
            self._cluster.stop(run.handle)
        until = time.monotonic() + _SECONDS_TO_END
        while self._runs and time.monotonic() < until:
            for run in list(self._runs):
                try:
                    news = self._cluster.news(run.handle)
                except (LostError, AutotuneError):
                    self._end(run)
                else:
                    if news is not None and news.ended is not None:
                        self._end(run)
            time.sleep(0.1)
        for run in list(self._runs):
            self._end(run)

    def _end(self, run: _Run) -> None:
        self._runs.remove(run)
        self._cluster.end(run.handle)

    def _closed(self, run: _Run, found: Tuned) -> Sequence[Ended]:
        if found.killed:
            return self._again(run, f"its process was {found.cause}")
        self._schedule.ended(run.order, finished=found.document is not None)
        ended = Ended(order=run.order, document=found.document, reason=found.cause, host=run.node.host)
        return [self._told(ended)]

    def _not_begun(self, run: _Run) -> Sequence[Ended]:
        """Take it back where its node has not begun it for too long."""
        if run.has_begun or time.monotonic() - run.since < SECONDS_TO_BEGIN:
            return []
        self._end(run)
        self._fleet.set_aside(run.node)
        self._in_use.add(run.node.environment)
        return self._again(run, f"not begun for {SECONDS_TO_BEGIN:.0f} s: {_IN_USE}")

    def _again(self, run: _Run, why: str) -> Sequence[Ended]:
        if self._schedule.lost(run.order):
            self._audience.tell(
                f"{run.order.symbol} on {run.node.host} ({run.order.place}): lost ({why}): it is begun again"
            )
            return []
        host = run.node.host if run.has_begun else None
        reason = f"lost again and again: {why}"
        return [self._told(Ended(order=run.order, document=None, reason=reason, host=host))]

    def _told(self, ended: Ended) -> Ended:
        self._audience.ended(ended)
        return ended
