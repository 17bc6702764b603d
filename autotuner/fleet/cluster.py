"""A Ray cluster, and the only module that speaks to Ray; every error of it becomes one line."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Self
from urllib.parse import urlsplit

from autotuner.daemon.cluster_address import CLIENT_PORT, ON_THIS_MACHINE, refuse_address, refuse_without_ray
from autotuner.errors import AutotuneError, one_line
from autotuner.fleet.station import News, Station, Task, look

ADDRESS_VARIABLE = "RAY_ADDRESS"
_SECONDS_TO_CONNECT = 10.0


class LostError(Exception):
    """The node or the process of a run is gone."""


@dataclass(frozen=True, kw_only=True)
class RayNode:
    """A node that is alive, with the resources it was started with."""

    id: str
    host: str
    cpus: int
    gpus: int


@dataclass(kw_only=True)
class Handle:
    """A run on a node; ``asked`` is the question that is out."""

    actor: Any
    asked: Any
    heard: int = 0


class Cluster:
    """A connection. Methods raise ``AutotuneError`` when the cluster is gone.

    Until it is closed standard output goes nowhere: Ray prints there what it has to say of lost workers, amid what a
    command prints.
    """

    def __init__(self, address: str) -> None:
        refuse_address(address)
        refuse_without_ray()
        self._ray = _ray()
        self._quiet = contextlib.redirect_stdout(_Nowhere())
        self._quiet.__enter__()
        try:
            self._connect(address)
        except BaseException:
            self._quiet.__exit__(None, None, None)
            raise
        self._affinity = importlib.import_module(
            "ray.util.scheduling_strategies"
        ).NodeAffinitySchedulingStrategy

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):  # a cluster that is gone cannot be left
            self._ray.shutdown()
        self._quiet.__exit__(None, None, None)

    def _connect(self, address: str) -> None:
        target = "auto"
        if address != ON_THIS_MACHINE:
            parts = urlsplit(address)
            _refuse_unreachable(str(parts.hostname), parts.port or CLIENT_PORT, address)
            if find_spec("grpc") is None:
                raise AutotuneError(f"{address}: grpcio missing: pip install 'toto-autotune[cluster]'")
            target = f"ray://{parts.netloc}" if parts.port else f"ray://{parts.netloc}:{CLIENT_PORT}"
        elif given := os.environ.get(ADDRESS_VARIABLE, ""):
            host, _, port = given.removeprefix("ray://").rpartition(":")
            if port.isdigit():
                _refuse_unreachable(host, int(port), f"{ADDRESS_VARIABLE}={given}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._ray.init(address=target, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            why = one_line(str(error))
            raise AutotuneError(
                f"--on {address}: no Ray cluster answers there ({why}); start one with `ray start --head`, or name "
                "one that runs"
            ) from None

    def nodes(self) -> tuple[RayNode, ...]:
        """Every node that is alive."""
        with self._one_line():
            return tuple(
                RayNode(
                    id=node["NodeID"],
                    host=node["NodeManagerHostname"],
                    cpus=int(node["Resources"].get("CPU", 0)),
                    gpus=int(node["Resources"].get("GPU", 0)),
                )
                for node in self._ray.nodes()
                if node["Alive"]
            )

    def begin_look(self, node: RayNode, device: str, engines: Sequence[str], store: str | None) -> Any:
        """Look at a node; ``looked`` has what was found."""
        with self._one_line():
            remote = self._ray.remote(look).options(
                num_cpus=0,
                num_gpus=1 if device == "cuda" else 0,
                max_retries=0,
                scheduling_strategy=self._affinity(node.id, soft=False),
            )
            return remote.remote(device, tuple(engines), store)

    def looked(self, asked: Any) -> dict[str, Any] | None:
        """What ``station.look`` found, None as long as it has not; in ``fault`` also what Ray says."""
        with self._one_line():
            if not self._ray.wait([asked], timeout=0)[0]:
                return None
            try:
                found: dict[str, Any] = self._ray.get(asked)
            except self._ray.exceptions.RayError as error:
                return {"fault": _told(error)}
            return found

    def begin(self, node: RayNode, task: Task) -> Handle:
        """Begin a run; for as long as it goes on no other task of Ray has its CPUs, or its card.

        Where others have them now, it begins once they are free, if ever.
        """
        on_gpu = task.device == "cuda"
        with self._one_line():
            remote = self._ray.remote(Station).options(
                num_cpus=node.cpus // max(1, node.gpus) if on_gpu else node.cpus,
                num_gpus=1 if on_gpu else 0,
                max_restarts=0,
                scheduling_strategy=self._affinity(node.id, soft=False),
            )
            actor = remote.remote(task)
            return Handle(actor=actor, asked=actor.news.remote(0))

    def news(self, handle: Handle) -> News | None:
        """What a run says, None while it has not answered. Raises ``LostError`` when it is gone."""
        with self._one_line():
            if not self._ray.wait([handle.asked], timeout=0)[0]:
                return None
            try:
                found: News = self._ray.get(handle.asked)
            except (
                self._ray.exceptions.ActorUnavailableError
            ):  # out of reach: Ray finds out whether it is gone
                handle.asked = handle.actor.news.remote(handle.heard)
                return None
            except self._ray.exceptions.RayError as error:
                raise LostError(_told(error)) from None
            handle.heard += len(found.lines)
            if found.ended is None:
                handle.asked = handle.actor.news.remote(handle.heard)
            return found

    def stop(self, handle: Handle) -> None:
        """Ask a run to end; ``news`` tells when it has."""
        with contextlib.suppress(Exception):  # one that is gone, or never began, has ended
            handle.actor.stop.remote()

    def end(self, handle: Handle) -> None:
        """Give the node's resources back; whatever still runs is killed."""
        with contextlib.suppress(Exception):
            self._ray.kill(handle.actor)

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what Ray will do otherwise one day
                yield
        except (self._ray.exceptions.RayError, ConnectionError, RuntimeError) as error:
            raise AutotuneError(
                f"the cluster is gone ({_told(error)}); what was measured is stored, and the same command goes on "
                "from there"
            ) from None


class _Nowhere(io.TextIOBase):
    """Takes what is written and keeps nothing."""

    def write(self, text: str) -> int:
        """As if it were written."""
        return len(text)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return importlib.import_module("ray")


def _refuse_unreachable(host: str, port: int, name: str) -> None:
    """Ray would try for half a minute, and end the process."""
    try:
        socket.create_connection((host, port), timeout=_SECONDS_TO_CONNECT).close()
    except OSError as error:
        raise AutotuneError(
            f"{name}: no Ray cluster answers there ({error.strerror or error}); start one with `ray start --head`, "
            "or name one that runs"
        ) from None


def _told(error: BaseException) -> str:
    text = str(error)
    if "No module named 'autotuner" in text:
        return "toto-autotune is not installed there in this version"
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    return one_line(lines[-1] if "ray::" in text else lines[0])
