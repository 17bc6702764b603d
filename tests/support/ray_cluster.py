"""A Ray cluster of several nodes on this machine, each found by its own processes, and commands that drive it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.command import Cli

NEEDS_RAY = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("ray", "grpc")), reason="ray[client] is not installed"
)

_MARK = "AUTOTUNE_TEST_NODE"
_RAY = (sys.executable, "-m", "ray.scripts.scripts", "start", "--disable-usage-stats")
_SMALL = "--object-store-memory=100000000"


@dataclass(frozen=True)
class RayCluster:
    """A head without CPUs at ``address``; ``client`` is for Ray's client, ``variables`` are every node's."""

    variables: Mapping[str, str]
    folder: Path
    port: int
    client_port: int
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def client(self) -> str:
        return f"ray://127.0.0.1:{self.client_port}"

    def start_head(self) -> None:
        ports = (f"--port={self.port}", f"--ray-client-server-port={self.client_port}")
        rest = ("--num-cpus=0", "--include-dashboard=false", f"--temp-dir={self.folder}")
        self._start("head", "--head", *ports, *rest)

    def start_node(self, label: str) -> None:
        """A node with this environment label."""
        extra = {"AUTOTUNE_ENVIRONMENT_LABEL": label}
        self._start(label, f"--address={self.address}", "--num-cpus=2", extra=extra)

    def processes(self, label: str = "") -> list[psutil.Process]:
        """Everything that runs on a node, or on all."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(_MARK, "").startswith(f"{self.mark}-{label}"):
                    found.append(process)
        return found

    def kill_node(self, label: str) -> None:
        """End Ray's own process of a node, as a crash of the machine would: what it began has to notice."""
        for process in self.processes(label):
            with contextlib.suppress(psutil.Error):
                if process.name() == "raylet":
                    process.kill()

    def kill_run(self, label: str) -> None:
        """End the process of Ray in which a run of this node is waited for."""
        for process in self.processes(label):
            with contextlib.suppress(psutil.Error):
                if process.name().startswith("ray::Station"):
                    process.kill()

    def stop(self) -> None:
        """End all of it."""
        for _ in range(3):
            left = self.processes()
            for process in tuple(left):  # what has given itself a name shows its variables no more
                with contextlib.suppress(psutil.Error):
                    left += process.children(recursive=True)
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=10)

    def _start(self, name: str, *options: str, extra: Mapping[str, str] | None = None) -> None:
        variables = {**self.variables, "RAY_memory_monitor_refresh_ms": "0", _MARK: f"{self.mark}-{name}"}
        done = subprocess.run(
            [*_RAY, _SMALL, *options],
            env={**variables, **(extra or {})},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


class Driver:
    """``autotune run --on ray`` under way, with what it says in a file."""

    def __init__(
        self,
        cli: Cli,
        cluster: RayCluster,
        *arguments: str,
        log: Path,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        interpreter, code = cli.interpreter
        with log.open("wb") as err, log.with_suffix(".json").open("wb") as out:
            self.process = subprocess.Popen(
                [interpreter, "-c", code, "run", *arguments],
                env=cli.environment({"RAY_ADDRESS": cluster.address, **(extra or {})}),
                cwd=cli.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.log.with_suffix(".json").read_text(encoding="utf-8"))
        return found

    def ends(self, within: float) -> int:
        return self.process.wait(timeout=within)

    def until(self, reached: Callable[[], bool], within: float) -> None:
        end = time.monotonic() + within
        while not reached():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < end, self.said
            time.sleep(0.3)


@contextlib.contextmanager
def ray_cluster(variables: Mapping[str, str]) -> Iterator[RayCluster]:
    """A head whose processes and those of its nodes have these variables; gone afterwards."""
    kept = {name: text for name, text in variables.items() if not name.startswith("RAY_")}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # the paths of its sockets must be short
    cluster = RayCluster(variables=kept, folder=folder, port=_free_port(), client_port=_free_port())
    try:
        cluster.start_head()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
