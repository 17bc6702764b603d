"""The nodes of a cluster that runs can be put on, looked at as they come and forgotten as they go."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from autotuner import __version__
from autotuner.environment import Environment
from autotuner.errors import AutotuneError
from autotuner.fleet.cluster import Cluster, RayNode
from autotuner.fleet.station import file_here
from autotuner.machine.engine_versions import engine_text

SECONDS_TO_LOOK = 60.0
"""How long a node has to say what it is; a new process takes one to ten, more while others measure."""
SECONDS_ASIDE = 600.0
"""How long nothing is put on a node that others use."""
_SECONDS_OF_NODES = 5.0


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
    def facts(self) -> Environment:
        """The environment that it is known by."""
        return next(iter(self.environments.values()))

    @property
    def environment(self) -> str:
        """The fingerprint of that."""
        return self.facts.fingerprint

    def facts_for(self, engine: str) -> Environment:
        """The environment of an engine's processes there; of an engine not looked at, as its package here has it."""
        return self.environments.get(engine) or replace(self.facts, engine=engine_text(engine))


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a node must have; ``store`` is the path of a store that is a file, ``environments`` None for any."""

    device: str
    engines: tuple[str, ...]
    store: str | None
    environments: Collection[str] | None = None


class Teller(Protocol):
    """Hears of nodes."""

    def tell(self, line: str) -> None:
        """A node is found, gone or no use."""
        ...


class Fleet:
    """The nodes of a cluster that can be used, found anew as they come and go."""

    def __init__(self, cluster: Cluster, wanted: Wanted, audience: Teller) -> None:
        self._cluster, self._wanted, self._audience = cluster, wanted, audience
        self._file = None if wanted.store is None else file_here(wanted.store)
        self.nodes: dict[str, Node] = {}
        self.refused: dict[str, str] = {}
        self._looks: dict[str, tuple[RayNode, Any, float]] = {}
        self._aside: dict[str, float] = {}
        self._looked_at = -_SECONDS_OF_NODES

    @property
    def engine(self) -> str:
        """The engine whose environment stands for a node."""
        return self._wanted.engines[0]

    @property
    def environments(self) -> dict[str, list[Node]]:
        """Nodes by the fingerprint of their environment, each list by host."""
        found: dict[str, list[Node]] = {}
        for node in sorted(self.nodes.values(), key=lambda node: node.host):
            found.setdefault(node.environment, []).append(node)
        return found

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
            known = self.nodes.keys() | self.refused.keys() | self._looks.keys() | self._set_aside()
            for node_id in alive.keys() - known:
                self._begin_look(alive[node_id])
        for node_id, (node, asked, since) in list(self._looks.items()):
            found = self._cluster.looked(asked)
            if found is None and time.monotonic() - since > SECONDS_TO_LOOK:
                found = {"fault": f"it did not answer for {SECONDS_TO_LOOK:.0f} s"}
            if found is not None:
                del self._looks[node_id]
                self._take(node, found)

    def doubt(self, node: Node) -> None:
        """A run on it was lost: nothing is put there until it has been looked at again, if it is there at all."""
        if self.nodes.pop(node.ray.id, None) is not None:
            self._looked_at = -_SECONDS_OF_NODES
            self._audience.tell(f"{node.host}: looking at the node again")

    def set_aside(self, node: Node) -> None:
        """Others use it: nothing is put there for ``SECONDS_ASIDE``, then it is looked at again."""
        if self.nodes.pop(node.ray.id, None) is not None:
            self._aside[node.ray.id] = time.monotonic() + SECONDS_ASIDE
            self._audience.tell(f"{node.host}: others use the node: set aside for {SECONDS_ASIDE:.0f} s")

    def _set_aside(self) -> set[str]:
        now = time.monotonic()
        return {node_id for node_id, until in self._aside.items() if now < until}

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


def devices_of(nodes: Iterable[Node]) -> int:
    """How many runs these nodes take at a time: two on the CPUs of one machine take turns."""
    return sum({node.device: node.slots for node in nodes}.values())


def names(node: Node) -> set[str]:
    """What an environment may be asked for by: its fingerprint, and its label."""
    return {node.environment, *([node.label] if node.label else [])}


def called(node: Node) -> str:
    """The environment of a node for people: its label, else its fingerprint."""
    return node.label or node.environment


def _none_fits(wanted: Wanted, refused: Mapping[str, str]) -> str:
    what = (
        "of environment " + " or ".join(wanted.environments)
        if wanted.environments
        else f"for --device {wanted.device}"
    )
    return f"the cluster has no node {what}: {'; '.join(refused.values()) or 'it has none at all'}"
