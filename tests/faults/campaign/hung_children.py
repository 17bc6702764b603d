"""Children of a trial that hang, ignore, fork, flood, eat and crash: ended within their limit and five seconds."""

from __future__ import annotations

import os
import random
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from autotuner.measurement.outcome import Failed, Measured
from autotuner.workload import RequestShape, Workload
from tests.faults.campaign.counting import Tally, times
from tests.faults.campaign.running import MARK, new_place, tiny_model
from tests.faults.campaign.table import Row, Size
from tests.support.faulty_children import EAT_MEMORY, HANG, SEGFAULT, children_that
from tests.support.process_runners import EAGER, process_runner
from toto_core.compiling.headers import HEADERS_VARIABLE
from toto_core.settings import RuntimeSettings

SLACK_S = 5.0
"""How long after its limit a trial may end."""
COMPILED = RuntimeSettings(compile_mode="default", num_threads=1)
_FORKS = "[os.fork() or signal.pause() for _ in range(5)]; "
_ALL_HANG = "[signal.pause() for _ in iter(int, 1)]"
_MEMORY_BYTES = 1 << 30
_FLOOD_BYTES = 4 << 30
_MOST_DISK_BYTES = 1 << 30
"""Of a child's output: what is kept of it, and what it writes until that is looked at again."""
_STARTING_S = 120.0
_POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What a child does as it builds a pipeline, and as what the trial is then to count."""

    name: str
    action: str = "pass"
    kinds: tuple[str, ...] = ("timeout",)
    compiler_hangs: bool = False
    limits_s: tuple[float, float] = (4.0, 6.0)
    long: int
    short: int = 0


FAULTS = (
    Fault(name="a compile that hangs", action=HANG, long=50, short=1),
    Fault(
        name="a g++ that hangs and ignores SIGTERM",
        compiler_hangs=True,
        limits_s=(8.0, 10.0),
        long=50,
    ),
    Fault(
        name="a child that ignores SIGTERM, SIGINT and SIGHUP",
        action="import signal; [signal.signal(each, signal.SIG_IGN) for each in (15, 2, 1)]; " + _ALL_HANG,
        long=20,
        short=1,
    ),
    Fault(
        name="a child that forks children that hang",
        action=f"import os, signal; {_FORKS}{_ALL_HANG}",
        long=20,
    ),
    Fault(
        name="a child whose children are sessions of their own",
        action=f"import os, signal; os.fork() or (os.setsid(), {_ALL_HANG}); {_ALL_HANG}",
        long=10,
    ),
    Fault(name="a child that stops itself", action="import os, signal; os.kill(os.getpid(), 19)", long=20),
    Fault(
        name="a child that floods its output with 4 GB",
        action=f"import os; block = b'x' * (1 << 20); [os.write(1, block) for _ in range({_FLOOD_BYTES} >> 20)]; "
        f"import signal; {_ALL_HANG}",
        long=10,
    ),
    Fault(
        name="a child that eats memory",
        action=EAT_MEMORY,
        kinds=("out_of_memory",),
        limits_s=(30.0, 30.0),
        long=20,
    ),
    Fault(name="a child that crashes", action=SEGFAULT, kinds=("crashed",), limits_s=(30.0, 30.0), long=20),
    Fault(
        name="a child that exits without a word",
        action="import os; os._exit(3)",
        kinds=("crashed",),
        limits_s=(30.0, 30.0),
        long=20,
    ),
)


def rows(size: Size) -> Iterator[Row]:
    """A row for each fault, and one for what is left when the runner is closed."""
    rng = random.Random(20)
    with _Trials() as trials:
        if size == "long":
            trials.start_the_reference()
        for fault in FAULTS:
            wanted = times(size, short=fault.short, long=fault.long)
            if fault.short or size == "long":
                yield _row(trials, fault, wanted, rng)
    closed = Tally("the runner of all these closed")
    closed.add([f"left in TMPDIR: {name}" for name in trials.temporary])
    yield closed.row()


def _row(trials: _Trials, fault: Fault, wanted: int, rng: random.Random) -> Row:
    tally, late, largest = Tally(fault.name), list[float](), 0
    trials.become(fault)
    for _ in range(wanted):
        limit = rng.uniform(*fault.limits_s)
        outcome, took, disk = trials.one(limit)
        late.append(took - limit)
        largest = max(largest, disk)
        filled = [f"{disk >> 20} MiB of output on disk"] if disk > _MOST_DISK_BYTES else []
        tally.add([*_problems(fault, outcome, took, limit), *filled, *trials.left()])
    if trials.reached:
        tally.noted["it came to the fault"] = trials.reached
    told = f"; at most {largest >> 20} MiB of output on disk" if largest > 1 << 20 else ""
    return tally.row(f"ended at most {max(late):+.1f} s after its limit{told}")


def _problems(fault: Fault, outcome: object, took: float, limit: float) -> Iterator[str]:
    if took > limit + SLACK_S:
        yield f"ended late: {took:.1f} s at a limit of {limit:.1f} s"
    if not isinstance(outcome, Failed) or outcome.kind not in fault.kinds:
        yield f"counts as something else: {outcome}"


class _Trials:
    """Trials whose children do what a fault says, beside a reference that is started before and well."""

    def __init__(self) -> None:
        self.reached = 0
        self.temporary: list[str] = []
        self._measures, self._count = False, 0

    def __enter__(self) -> _Trials:
        (_, model, *_) = tiny_model()  # before TMPDIR is another one
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="campaign-")))
        self._place = self._stack.enter_context(new_place(self._folder))
        self._stack.callback(self._end)
        self._patch = self._stack.enter_context(pytest.MonkeyPatch.context())
        self._patch.setenv(MARK, self._place.mark)
        self._patch.setenv("TMPDIR", str(self._place.temporary))
        self._patch.setattr(tempfile, "tempdir", str(self._place.temporary))
        self._patch.setenv(HEADERS_VARIABLE, str(self._folder / "headers"))  # else nothing is left to compile
        shape = RequestShape(context_length=64, prediction_length=4, num_samples=8)
        workload = Workload(model=model, shapes=(shape,))
        self._runner = process_runner(self._folder, workload=workload, memory_bytes=_MEMORY_BYTES)
        self._stack.callback(self._runner.close)
        return self

    def start_the_reference(self) -> None:
        """From now on every other child is one that is measured beside it, rather than one that only builds."""
        first = self._runner.measure(EAGER, seconds=_STARTING_S)
        assert isinstance(first, Measured), first
        self._measures = True

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def become(self, fault: Fault) -> None:
        """From now on children that are to compile fail so."""
        self.reached = 0
        self._marker = self._folder / "came-to-it"
        compiler = self._folder / "g++"
        script = f"trap '' TERM INT HUP; touch {self._marker}; while :; do sleep 1000; done"
        compiler.write_text(f"#!/bin/sh\n{script}\n")
        compiler.chmod(0o700)
        if fault.compiler_hangs:
            self._patch.setenv("CXX", str(compiler))
        else:
            self._patch.delenv("CXX", raising=False)
        touch = f"open({str(self._marker)!r}, 'w').close()"
        action = "pass" if fault.compiler_hangs else f"{touch}; {fault.action}"
        children_that(action, folder=self._folder / "site", monkeypatch=self._patch)

    def one(self, limit: float) -> tuple[object, float, int]:
        """A trial: what it came to, the seconds it took, and the most bytes that its output took on disk."""
        largest, done = [0], threading.Event()

        def watch() -> None:
            while not done.wait(_POLL_S):
                largest[0] = max(largest[0], _bytes_of_unnamed_files())

        watcher = threading.Thread(target=watch)
        watcher.start()
        self._working = {each.pid for each in self._place.processes()}
        begun = time.monotonic()
        try:
            outcome = self._outcome(limit)
        finally:
            took = time.monotonic() - begun
            done.set()
            watcher.join()
        self.reached += self._marker.exists()
        self._marker.unlink(missing_ok=True)
        return outcome, took, largest[0]

    def _outcome(self, limit: float) -> object:
        self._count += 1
        if self._measures and self._count % 2:
            return self._runner.measure(COMPILED, seconds=limit)
        return self._runner.build([COMPILED], seconds=limit).get(COMPILED)

    def left(self) -> Iterator[str]:
        """What still runs of the trial, five seconds later; killed then."""
        trial = [each for each in self._place.processes() if each.pid not in self._working]
        for each in psutil.wait_procs(trial, timeout=SLACK_S)[1]:
            with suppress(psutil.Error):
                yield f"a process is left: {each.status()} {' '.join(each.cmdline())[-60:]}"
                each.kill()

    def _end(self) -> None:
        self.temporary = self._place.temporary_files()


def _bytes_of_unnamed_files() -> int:
    """What files take on disk that this process has open and nobody can see."""
    total = 0
    for descriptor in os.listdir("/proc/self/fd"):  # noqa: PTH208 - closed meanwhile, most of them
        with suppress(OSError):
            state = os.fstat(int(descriptor))
            if stat.S_ISREG(state.st_mode) and state.st_nlink == 0:
                total += state.st_blocks * 512
    return total
