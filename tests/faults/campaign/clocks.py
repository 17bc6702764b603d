"""The clock is an hour or a year off, or at the beginning or end of its time: nothing is lost, nothing waits for it.

A preloaded library moves the time of day of one process, and the time of the boot that the kernel tells, as setting
the clock does. What is written so is used afterwards at the right time, and the other way round.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from autotuner.device_lock import held_lease
from autotuner.machine.process import Owner
from autotuner.serving.artifacts import workplace
from autotuner.serving.lookup import lookup
from autotuner.serving.spool import Labels
from autotuner.serving.telemetry import Telemetry
from autotuner.store import Store
from tests.faults.campaign.table import Row, Size
from tests.faults.campaign.tally import Tally
from tests.support import writing_commands
from tests.support.faulty_system import Fault, library
from tests.support.forked_commands import Done, Forks, shared_forks, variables_of
from tests.support.promoted_store import promotion
from tests.support.storage_samples import ROOT
from tests.support.store_states import damage_in, left_behind, lookup_fault, state_of
from tests.support.writing_commands import READING, WRITING
from toto_core.compile_report import CompileReport
from toto_core.settings import RuntimeSettings

_HOUR, _YEAR = 3600, 365 * 86_400
_PRINT = "0123456789abcdef"
_DEVICE = "clocks"
_TICK = ("daemon", "--once", "--config", "quiet.toml")


def rows(size: Size) -> Iterator[Row]:
    """A row for each clock."""
    forks, now = shared_forks(), int(time.time())
    shifts = {
        "an hour ahead": _HOUR,
        "an hour behind": -_HOUR,
        "a year ahead": _YEAR,
        "a year behind": -_YEAR,
        "in the first minute of 1970": 30 - now,
        "in 2100": int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()) - now,
    }
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        base.mkdir(mode=0o700)
        writing_commands.prepare(WRITING[0], base)
        for what, shift in shifts.items() if size == "long" else list(shifts.items())[3:4]:
            yield _shifted(_Moved(forks, Path(name), base, shift), what, size)


@dataclass(frozen=True)
class _Moved:
    forks: Forks
    place: Path
    base: Path
    shift: int

    @contextmanager
    def folder(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(dir=self.place))
        shutil.copytree(self.base, folder, dirs_exist_ok=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def run(self, folder: Path, *arguments: str, moved: bool) -> Done:
        """A command whose clock is off, or right."""
        return self.forks.run(
            folder, *arguments, variables=WRITING[0].variables(folder), fault=self.fault(folder, moved=moved)
        )

    def call(self, folder: Path, function: str, *arguments: object, moved: bool) -> Done:
        """A function of this module likewise."""
        return self.forks.call(
            folder, f"{__name__}:{function}", *arguments, fault=self.fault(folder, moved=moved), seconds=30
        )

    def fault(self, folder: Path, *, moved: bool) -> Fault:
        return Fault(folder=folder, kinds=0, clock_s=self.shift if moved else 0)


def _shifted(moved: _Moved, what: str, size: Size) -> Row:
    tally = Tally(fault=f"clock {what}")
    with moved.folder() as folder:
        for first in (True, False):
            tally.add(*_promoted_one_after_another(moved, first=first), about=f"changes, moved {first}")
            tally.add(*_ticks(moved, first=first), about=f"ticks, moved {first}")
            tally.add(*_notes(moved, written_moved=first), about=f"notes, moved {first}")
            tally.add(*_leases(moved, killed_moved=first), about=f"leases, moved {first}")
        tally.add(*_reads(moved, folder, size), about="reading")
        tally.add(*_running_processes(moved, folder), about="processes that go on")
        if size == "long":
            tally.add(*_runs(moved), about="runs")
    return tally.row()


def _reads(moved: _Moved, folder: Path, size: Size) -> Iterator[str]:
    for arguments in READING if size == "long" else READING[:3]:
        done = moved.run(folder, *arguments, moved=True)
        yield done.fault((0,))
    done = moved.call(folder, "answer", "AMD", moved=True)
    yield done.fault((0,))
    right = lookup("AMD", db=str(folder / "autotune.db"))
    yield "" if done.out.strip() == right.settings_key else f"lookup answers {done.out.strip()}"


def _promoted_one_after_another(moved: _Moved, *, first: bool) -> Iterator[str]:
    """Of two changes the second one holds, whichever was made at the wrong time."""
    with moved.folder() as folder:
        for clock_moved, mode in ((first, "default"), (not first, "max-autotune")):
            yield moved.call(folder, "promote", "TSLA", mode, moved=clock_moved).fault((0,))
            found = lookup("TSLA", db=str(folder / "autotune.db"))
            if found.settings.compile_mode != mode:
                yield f"{mode} was promoted, lookup gives {found.settings.compile_mode}"
            yield moved.run(folder, "pin", "AMD", "--mode", mode, moved=clock_moved).fault((0,))
            found = lookup("AMD", db=str(folder / "autotune.db"))
            if found.settings.compile_mode != mode:
                yield f"{mode} was pinned, lookup gives {found.settings.compile_mode}"
        yield moved.run(folder, "rollback", "TSLA", moved=first).fault((0,))
        found = lookup("TSLA", db=str(folder / "autotune.db"))
        if found.settings.compile_mode != "default":
            yield f"rolled back to default, lookup gives {found.settings.compile_mode}"
        yield moved.run(folder, "db", "check", moved=False).fault((0,))


def _ticks(moved: _Moved, *, first: bool) -> Iterator[str]:
    with moved.folder() as folder:
        for _ in range(2):
            moved.run(folder, *_TICK, moved=False)
        expected = state_of(folder).ledger
    with moved.folder() as folder:
        for clock_moved in (first, not first):
            yield moved.run(folder, *_TICK, moved=clock_moved).fault((0,))
            yield writing_commands.lost_notes(folder)
        yield (
            "" if state_of(folder).ledger == expected else "the ledger is not that of ticks at the right time"
        )
        yield damage_in(folder)
        left = left_behind(folder)
        yield f"left behind: {left}" if left else ""


def _notes(moved: _Moved, *, written_moved: bool) -> Iterator[str]:
    with moved.folder() as folder:
        yield moved.call(folder, "count_calls", moved=written_moved).fault((0,))
        yield moved.run(folder, *_TICK, moved=not written_moved).fault((0,))
        with Store(str(folder / "autotune.db")) as store:
            windows = [json.loads(each.payload_json) for each in store.records.telemetry("TSLA")]
        windows += [note for note in writing_commands.waiting_notes(folder, "*") if note["symbol"] == "TSLA"]
        yield "" if [each["calls"] for each in windows] == [3] else f"{len(windows)} windows of it are kept"


def _leases(moved: _Moved, *, killed_moved: bool) -> Iterator[str]:
    """A lease of a process that was killed is free at once, whatever its clock said."""
    with moved.folder() as folder:
        killed = moved.call(folder, "hold_and_die", moved=killed_moved)
        yield "" if killed.code == -signal.SIGKILL else f"not held: {killed.err}"
        begun = time.monotonic()
        yield moved.call(folder, "hold", moved=not killed_moved).fault((0,))
        seconds = time.monotonic() - begun
        yield f"the device was free after {seconds:.0f} s" if seconds > 10 else ""


def _running_processes(moved: _Moved, folder: Path) -> Iterator[str]:
    """A process with the right time is seen to be running by one that has the wrong one, and keeps its folder."""
    with _live(folder) as (owner, place):
        done = moved.call(folder, "look_around", owner, moved=True)
        yield done.fault((0,))
        yield "" if "running" in done.out else "a running process is taken for gone"
        yield "" if Path(place).is_dir() else "the folder of a running process was removed"


@contextmanager
def _live(folder: Path) -> Iterator[tuple[str, str]]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from {__name__} import live; live()"
    environment = os.environ | variables_of(folder) | {"LD_PRELOAD": str(library())}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(timeout=30)


def _runs(moved: _Moved) -> Iterator[str]:
    run = next(each for each in WRITING if each.name == "run --replay")
    with moved.folder() as folder:
        for clock_moved in (True, False):
            done = moved.run(folder, *run.arguments, moved=clock_moved)
            yield done.fault((0, 1) if clock_moved else (0,))
            if done.code and "lies in the future" not in done.err:  # the prices' times are refused, rightly
                yield done.err
            yield damage_in(folder) or lookup_fault(folder, "ETHUSD")
        yield moved.run(folder, "history", moved=False).fault((0,))


# What processes with a moved clock do


def answer(symbol: str) -> None:
    """Print what a lookup gives."""
    sys.stdout.write(lookup(symbol).settings_key)


def promote(symbol: str, mode: str) -> None:
    """Promote at the time that it is here."""
    from dataclasses import replace

    with Store(os.environ["AUTOTUNE_DB"]) as store:
        chosen = RuntimeSettings.from_dict({"compile_mode": mode})
        store.promote(replace(promotion(symbol, chosen), promoted_at=datetime.now(UTC)))


def count_calls() -> None:
    """Leave a window of three calls."""
    folder = Path(os.environ["AUTOTUNE_DB"]).with_name("autotune-spool")
    labels = Labels(symbol="TSLA", settings_key="k", environment_fingerprint=_PRINT)
    telemetry = Telemetry(labels, folder)
    for _ in range(3):
        telemetry.observe(2.0, (512, 8, 256), CompileReport(requested=False))
    telemetry.close()


def hold() -> None:
    """Hold the lease for a moment."""
    with (
        Store(os.environ["AUTOTUNE_DB"]) as store,
        held_lease(store.records, _DEVICE, seconds=15, say=lambda _: None),
    ):
        pass


def hold_and_die() -> None:
    """Be killed with the lease in hand."""
    with (
        Store(os.environ["AUTOTUNE_DB"]) as store,
        held_lease(store.records, _DEVICE, seconds=15, say=lambda _: None),
    ):
        os.kill(os.getpid(), signal.SIGKILL)


def live() -> None:
    """Print who this is and where it works, and go on until the input ends."""
    sys.stdout.write(f"{json.dumps(Owner.current().to_dict())}\n{workplace(_PRINT)}\n")
    sys.stdout.flush()
    sys.stdin.read()


def look_around(owner: str) -> None:
    """Say whether that process runs, and make a workplace beside its own."""
    found = Owner.from_dict(json.loads(owner))
    sys.stdout.write("running" if found is not None and found.is_alive() else "gone")
    workplace(_PRINT)
