"""Runs orders on the nodes of a cluster until all have ended, whatever nodes come and go meanwhile."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from autotuner import __version__
from autotuner.daemon.measuring_child import Tuned
from autotuner.environment import Environment
from autotuner.errors import AutotuneError
from autotuner.fleet.cluster import Cluster, Handle, LostError, RayNode
from autotuner.fleet.orders import Order, Schedule
from autotuner.fleet.station import Task, file_here

SECONDS_TO_LOOK = 60.0
"""How long a node has to say what it is; a new process takes one to ten, more while others measure."""
SECONDS_GONE = 120.0
"""How long the runs of an environment wait for a node once its last one is lost."""
_SECONDS_BETWEEN, _SECONDS_OF_NODES, _SECONDS_TO_END = 0.5, 5.0, 15.0


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that runs can be put on; ``device`` names what of its machine only one run may measure on at a time.

    ``slots`` is how many runs it takes: its cards, or one on its CPUs. ``environments`` are by engine, and the first
    stands for the node.
    """

    ray: RayNode
    host: str
    label: str | None
    device: str
    slots: int
    environments: Mapping[str, Environment]

    @property
    def environment(self) -> str:
        """The fingerprint that it is known by."""
        return next(iter(self.environments.values())).fingerprint


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a node must have; ``store`` is the path of a store that is a file, ``environments`` None for any."""

    device: str
    engines: tuple[str, ...]
    store: str | None
    environments: Collection[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How one order ended: its run's document, or None and why there is none; ``host`` None where it never began."""

    order: Order
    document: dict[str, Any] | None
    reason: str = ""
    host: str | None = None


class Audience(Protocol):
    """Hears how a fleet goes on."""

    def tell(self, line: str) -> None:
        """Something about nodes."""
        ...

    def begun(self, order: Order, host: str) -> None:
        """A run is put on a node."""
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


class Fleet:
    """The nodes of a cluster that can be used, found anew as they come and go."""

    def __init__(self, cluster: Cluster, wanted: Wanted, audience: Audience) -> None:
        self._cluster, self._wanted, self._audience = cluster, wanted, audience
        self._file = None if wanted.store is None else file_here(wanted.store)
        self.nodes: dict[str, Node] = {}
        self.refused: dict[str, str] = {}
        self._looks: dict[str, tuple[RayNode, Any, float]] = {}
        self._looked_at = -_SECONDS_OF_NODES

    def settle(self) -> None:
        """Look at every node that is there. Raises ``AutotuneError`` when none can be used."""
        self.refresh()
        while self._looks:
            time.sleep(0.1)
            self.refresh()
        if not self.nodes:
            raise AutotuneError(_none_fits(self._wanted, self.refused))

    def refresh(self) -> None:
        """Forget nodes that are gone, look at those that are new."""
        if time.monotonic() - self._looked_at >= _SECONDS_OF_NODES:
            self._looked_at = time.monotonic()
            alive = {node.id: node for node in self._cluster.nodes()}
            for gone in self.nodes.keys() - alive.keys():
                self._audience.tell(f"{self.nodes.pop(gone).host}: the node is gone")
            for node_id in alive.keys() - self.nodes.keys() - self.refused.keys() - self._looks.keys():
                self._begin_look(alive[node_id])
        for node_id, (node, asked, since) in list(self._looks.items()):
            found = self._cluster.looked(asked)
            if found is None and time.monotonic() - since > SECONDS_TO_LOOK:
                found = {"fault": f"it did not answer for {SECONDS_TO_LOOK:.0f} s"}
            if found is not None:
                del self._looks[node_id]
                self._take(node, found)

    def _begin_look(self, node: RayNode) -> None:
        wanted = self._wanted
        if (node.gpus if wanted.device == "cuda" else node.cpus) < 1:
            what = "GPU" if wanted.device == "cuda" else "CPU"
            self._refuse(node, f"Ray has no {what} of it", quietly=True)
            return
        asked = self._cluster.begin_look(node, wanted.device, wanted.engines, wanted.store)
        self._looks[node.id] = node, asked, time.monotonic()

    def _take(self, node: RayNode, found: Mapping[str, Any]) -> None:
        fault = found["fault"] or self._fault(found)
        if fault:
            self._refuse(node, str(fault))
            return
        taken = Node(
            ray=node,
            host=found["host"],
            label=found["label"],
            device=found["device"] if self._wanted.device == "cpu" else node.id,
            slots=1 if self._wanted.device == "cpu" else node.gpus,
            environments={
                name: Environment.from_dict(facts) for name, facts in found["environments"].items()
            },
        )
        if self._wanted.environments is not None and not names(taken) & set(self._wanted.environments):
            self._refuse(node, f"is of environment {called(taken)}", quietly=True)
            return
        self.nodes[node.id] = taken
        also = "" if called(taken) == taken.environment else f" ({taken.environment})"
        self._audience.tell(f"{taken.host}: a node of environment {called(taken)}{also}")

    def _fault(self, found: Mapping[str, Any]) -> str | None:
        if found["version"] != __version__:
            return f"toto-autotune {found['version']} is installed there, {__version__} here"
        if self._wanted.store is not None and (self._file is None or found["file"] != list(self._file)):
            return (
                f"the store {self._wanted.store} is a file that this node does not share: SQLite is for one machine; "
                "copy it to a server with `autotune db copy` and give its address in AUTOTUNE_DB"
            )
        return None

    def _refuse(self, node: RayNode, reason: str, *, quietly: bool = False) -> None:
        self.refused[node.id] = f"{node.host}: {reason}"
        if not quietly:
            self._audience.tell(f"{node.host}: passed over: {reason}")


def names(node: Node) -> set[str]:
    """What an environment may be asked for by: its fingerprint, and its label."""
    return {node.environment, *([node.label] if node.label else [])}


def called(node: Node) -> str:
    """The environment of a node for people: its label, else its fingerprint."""
    return node.label or node.environment


def drive(
    fleet: Fleet,
    cluster: Cluster,
    schedule: Schedule,
    *,
    task_of: Callable[[Order], Task],
    audience: Audience,
) -> Iterator[Ended]:
    """Run every order, and tell of each as it ends, in whatever order.

    Of orders whose environment has lost its nodes for ``SECONDS_GONE`` as failed. Raises ``AutotuneError`` when the
    cluster is gone. On an interrupt every run stores that it was interrupted, within seconds.
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
                self._audience.begun(order, node.host)
                on_device += 1

    def hear(self) -> Iterator[Ended]:
        """What runs say; those that have ended."""
        for run in list(self._runs):
            try:
                news = self._cluster.news(run.handle)
            except LostError as error:
                self._end(run)
                yield from self._again(run, str(error))
                continue
            if news is None:
                continue
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
                reason = (
                    f"its environment has had no node for {SECONDS_GONE:.0f} s; run again when it has one"
                )
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
            return self._again(run, f"its process was killed: {found.cause}")
        self._schedule.ended(run.order, finished=found.document is not None)
        ended = Ended(order=run.order, document=found.document, reason=found.cause, host=run.node.host)
        return [self._told(ended)]

    def _again(self, run: _Run, why: str) -> Sequence[Ended]:
        if self._schedule.lost(run.order):
            self._audience.tell(f"{run.order.symbol} on {run.node.host}: lost ({why}): it is begun again")
            return []
        return [
            self._told(
                Ended(
                    order=run.order, document=None, reason=f"lost again and again: {why}", host=run.node.host
                )
            )
        ]

    def _told(self, ended: Ended) -> Ended:
        self._audience.ended(ended)
        return ended


def _none_fits(wanted: Wanted, refused: Mapping[str, str]) -> str:
    what = (
        "of environment " + " or ".join(wanted.environments)
        if wanted.environments
        else f"for --device {wanted.device}"
    )
    return f"the cluster has no node {what}: {'; '.join(refused.values()) or 'it has none at all'}"
