"""What runs on a node: a look at the machine, and one run of one symbol as a child process."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotuner import __version__
from autotuner.daemon.measuring_child import Tuned, run_tuner
from autotuner.device_lock import device_id
from autotuner.engines.interpreters import environment_of
from autotuner.environment import environment_label
from autotuner.errors import AutotuneError, cause
from autotuner.machine.process import this_host

_RAYS_OWN = "OMP_NUM_THREADS"
"""What Ray sets for its workers where nobody set it: a run chooses its threads itself."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One run: ``autotune`` with ``arguments``, in the environment of that fingerprint or not at all.

    It is stopped when it takes longer than ``seconds``, which is more than it is told to take.
    """

    arguments: tuple[str, ...]
    variables: Mapping[str, str] = field(repr=False)  # the store's address may hold a password
    device: str
    engine: str
    fingerprint: str
    seconds: float = math.inf


@dataclass(frozen=True, kw_only=True)
class News:
    """What a run said since it was asked last, and how it ended, None while it goes on."""

    lines: tuple[str, ...]
    ended: Tuned | None


def look(device: str, engines: Sequence[str], store: str | None) -> dict[str, Any]:
    """This node in plain values, which another version of this package can read; ``fault`` says why it is no use.

    ``store`` is the path of a store that is a file: its ``file`` there is told as ``file_here`` tells it.
    """
    found: dict[str, Any] = {"host": this_host(), "version": __version__, "fault": None}
    try:
        environments = {engine: dataclasses.asdict(environment_of(device, engine)) for engine in engines}
        found |= {"environments": environments, "label": environment_label(), "device": device_id(device)}
    except AutotuneError as error:
        found["fault"] = str(error)
    found["file"] = None if store is None else file_here(store)
    return found


def file_here(store: str) -> list[str | int] | None:
    """Which file of which machine that path is, None for none: SQLite's locks hold on one machine alone."""
    try:
        status = Path(store).stat()
    except OSError:
        return None
    return [device_id("cpu"), status.st_dev, status.st_ino]


class Station:
    """One run of one symbol on the node that it was put on; every method answers at once."""

    def __init__(self, task: Task) -> None:
        self._lines: list[str] = []
        self._ended: Tuned | None = None
        self._stop = threading.Event()
        threading.Thread(target=self._go, args=(task,), name="autotune-run", daemon=True).start()

    def news(self, since: int) -> News:
        """What was said after the first ``since`` lines; an end comes with all of them."""
        ended = self._ended  # before the lines, which are whole by then
        return News(lines=tuple(self._lines[since:]), ended=ended)

    def stop(self) -> None:
        """Ask the run to store that it was interrupted and to end, which takes seconds."""
        self._stop.set()

    def _go(self, task: Task) -> None:
        try:
            self._ended = self._run(task)
        except BaseException as error:
            self._ended = Tuned(document=None, cause=cause(error))

    def _run(self, task: Task) -> Tuned:
        here = environment_of(task.device, task.engine).fingerprint
        if here != task.fingerprint:  # another card of the node than the one that was looked at
            return Tuned(
                document=None,
                cause=f"this device is of environment {here}, not {task.fingerprint}: a node needs cards of one kind",
            )
        with contextlib.suppress(
            OSError
        ):  # Ray runs its workers with niceness 15; only root may take that back
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        return run_tuner(
            task.arguments,
            nice=0,
            seconds=task.seconds,
            stop=self._stop.is_set,
            beat=lambda: None,
            variables=task.variables,
            without=_set_by_ray(),
            heard=self._lines.append,
        )


def _set_by_ray() -> tuple[str, ...]:
    """Variables that this process has and Ray's process of the node, which started it, has not."""
    try:
        started_with = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return ()
    return () if any(each.startswith(f"{_RAYS_OWN}=".encode()) for each in started_with) else (_RAYS_OWN,)
