"""A daemon that owns a cluster: each tick has a child process that speaks to it, and puts there what is due."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from autotuner.daemon.away import away_places
from autotuner.daemon.intake import Log
from autotuner.daemon.measuring_child import INTERRUPT_SECONDS, Tuned, last_line
from autotuner.daemon.places import Job, Place
from autotuner.environment import Environment
from autotuner.errors import AutotuneError
from autotuner.paths import DATABASE_VARIABLE
from autotuner.store import Store

_POLL_SECONDS = 0.1
_SECONDS_TO_LEAVE = 5.0


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
    is known is still settled and taken back: only nothing is measured. ``quiet`` says why nothing may be measured
    now, None where it may.
    """

    owned: Owned
    store: Store
    stop: threading.Event
    quiet: Callable[[], str | None]
    beat: Callable[[], None]
    log: Log
    nice: int = 0
    fault: str | None = None
    _child: _Child | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        if not self._pulse():  # in a quiet window nothing is asked of the cluster
            return self
        try:
            self._child = _Child(self.owned, self.store.location, self._pulse, nice=self.nice)
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
        return "the daemon is stopping" if self.stop.is_set() else self.fault

    def places(self) -> Sequence[Place]:
        """The cluster's environments, and those of it that have no node now."""
        present = () if self._child is None else self._child.places
        return (*present, *away_places(self.store, self.owned.device, self.owned.environments, present))

    def measure(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Tuned]]:
        """Side by side, on as many nodes as there are; a stop or a quiet window ends those under way."""
        every = list(jobs)
        if not every or self._child is None:
            return
        by_number = dict(enumerate(every))
        begun: set[int] = set()
        try:
            for event in self._child.work(every):
                job = by_number[event["job"]]
                if "host" in event:
                    begun.add(event["job"])
                    self.log("begun", symbol=job.symbol, environment=job.place.name, host=event["host"])
                    continue
                begun.discard(event["job"])
                yield job, Tuned(document=event["document"], cause=event["cause"])
        except AutotuneError as error:
            self._gone(str(error))
        why = "stopped" if self.fault is None else self.fault
        for number in sorted(begun):  # they store that they were interrupted, and are gone on with
            yield by_number[number], Tuned(document=None, cause=why, stopped=True)

    def _pulse(self) -> bool:
        """Whether to go on."""
        self.beat()
        return not self.stop.is_set() and self.quiet() is None

    def _gone(self, reason: str) -> None:
        self.fault = reason
        self.log("cluster", reason=reason, kept="nothing is measured until the next tick")


class _Child:
    """The process that speaks to the cluster, in JSON lines; ``goes_on`` is asked all the while.

    Raises ``AutotuneError`` when it ends before it is told to.
    """

    def __init__(self, owned: Owned, store: str, goes_on: Callable[[], bool], *, nice: int) -> None:
        self._goes_on = goes_on
        self._why = ""  # it ended, once it has
        self._lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - for as long as the process lives
        lifeline, self._ours = os.pipe()
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "autotuner.cli.fleet_child",
                    str(lifeline),
                    str(nice),
                    owned.to_json(),
                ],
                env={**os.environ, DATABASE_VARIABLE: store},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                pass_fds=(lifeline,),
                start_new_session=True,
                text=True,
            )
        finally:
            os.close(lifeline)
        self._listener = threading.Thread(target=self._listen, name="autotune-cluster", daemon=True)
        self._listener.start()
        try:
            found = self._next()
            if found is None:
                raise AutotuneError("stopped before the cluster answered")
            self.places = tuple(
                Place(
                    environment=Environment.from_dict(each["facts"]),
                    name=each["name"],
                    engines=tuple(map(Environment.from_dict, each.get("engines", ()))),
                )
                for each in found["places"]
            )
        except BaseException:
            self._kill()
            raise

    def work(self, jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
        """What becomes of the jobs, until all have ended or it does not go on."""
        assert self._process.stdin is not None
        if self._why:
            raise self._ended()
        asked = [
            {
                "environment": job.place.environment.fingerprint,
                "seconds": job.seconds,
                "arguments": job.arguments,
            }
            for job in jobs
        ]
        try:
            self._process.stdin.write(f"{json.dumps(asked)}\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        while (event := self._next()) is not None and "done" not in event:
            yield event

    def leave(self) -> None:
        """End it, which takes a moment where it is idle."""
        if self._why:
            return
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_SECONDS_TO_LEAVE)
        self._kill()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self._lines.put(dict(json.loads(line)))
            except ValueError:  # the cut end of a line of a process that was killed
                break
        self._lines.put(None)

    def _next(self) -> dict[str, Any] | None:
        """What it says next; None once it was stopped."""
        while self._goes_on():
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=_POLL_SECONDS)
                if line is None:
                    raise self._ended()
                return line
        self._process.terminate()
        until = time.monotonic() + INTERRUPT_SECONDS
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, until - time.monotonic()))
        self._kill()
        return None

    def _ended(self) -> AutotuneError:
        if not self._why:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_SECONDS_TO_LEAVE)  # it has closed its output, and may say why yet
            self._kill()
        return AutotuneError(self._why.removeprefix("Error: "))

    def _kill(self) -> None:
        """End its whole group, and let go of everything; once."""
        if self._why:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._why = last_line(self._said, self._process.wait())
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()
        os.close(self._ours)
