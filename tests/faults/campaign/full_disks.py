"""Every command that writes meets a full disk, a failing one and one that is read-only, at each of its writes.

Two mechanisms: a preloaded library lets the k-th system call that writes fail, for every k until the command gets
through; and, where this may mount, a small file system of which so many bytes are left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.campaign.table import Row, Size
from tests.faults.campaign.tally import Tally
from tests.support import writing_commands
from tests.support.faulty_system import ALL, GROWING, Fault
from tests.support.forked_commands import Done, Forks, shared_forks
from tests.support.loading_artifacts import real_artifact
from tests.support.store_states import StoreState, damage_in, left_behind, lookup_fault, state_of
from tests.support.writing_commands import READING, WRITING, Writing

_PAGE = 4096
_DISK_BYTES = 8 << 20
_MOST_CALLS = 25  # of each kind for each command


@dataclass(frozen=True)
class _Kind:
    """A way for a disk to fail, from the k-th call on or only then."""

    name: str
    error: int
    kinds: int = GROWING
    lasting: bool = True
    partial: bool = False

    def fault(self, folder: Path, call: int) -> Fault:
        """At that call on files below ``folder``."""
        return Fault(
            folder=folder,
            first=call,
            error=self.error,
            kinds=self.kinds,
            lasting=self.lasting,
            partial=self.partial,
        )


KINDS = (
    _Kind("full", errno.ENOSPC, partial=True),
    _Kind("full for a moment", errno.ENOSPC, lasting=False),
    _Kind("input/output error", errno.EIO, kinds=ALL, lasting=False),
    _Kind("read-only from there on", errno.EROFS, kinds=ALL),
)


def rows(size: Size) -> Iterator[Row]:
    """The rows of every command, then those of read-only places and of output that cannot be written."""
    forks = shared_forks()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        chosen = [each for each in WRITING if size == "long" or not each.slow]
        cases = [_prepared(forks, place, each) for each in chosen]
        for case in cases:
            yield _failing_calls(forks, place, case, size)
        yield from _small_disks(forks, cases, size)
        yield _no_output(forks, place, cases, size)
        if size == "long":
            yield _production(place, "eager")
            yield _production(place, "default")


@dataclass(frozen=True)
class _Case:
    command: Writing
    base: Path
    before: StoreState
    after: StoreState
    calls: int


def _prepared(forks: Forks, place: Path, command: Writing) -> _Case:
    """The folder that the command starts from, and what it comes to undisturbed."""
    base = place / f"base-{command.name.replace(' ', '-')}"
    base.mkdir(mode=0o700)
    writing_commands.prepare(command, base)
    before, whole = state_of(base), _copied(base, place)
    done = forks.run(whole, *command.arguments, fault=Fault(folder=whole), variables=command.variables(whole))
    if done.fault() or done.code:
        raise AssertionError(f"{command.name} fails undisturbed: {done.err}")
    case = _Case(command, base, before, state_of(whole), done.calls)
    shutil.rmtree(whole)
    return case


def _copied(base: Path, place: Path) -> Path:
    """A folder like ``base``; the numbers in its path make it one of its own, which a cache of lookups asks for."""
    folder = Path(tempfile.mkdtemp(dir=place))
    shutil.copytree(base, folder, dirs_exist_ok=True)
    return folder


def _failing_calls(forks: Forks, place: Path, case: _Case, size: Size) -> Row:
    tally = Tally(fault=f"disk fails at each write of `{case.command.name}`")
    chosen = range(1, case.calls + 1)
    for kind in KINDS if size == "long" else KINDS[:1]:
        most = 1 if size == "short" else 8 if case.command.slow else _MOST_CALLS
        picked: Sequence[int] = sorted(random.Random(kind.name).sample(chosen, min(most, len(chosen))))
        for call in picked:
            folder = _copied(case.base, place)
            fault = kind.fault(folder, call)
            done = forks.run(
                folder, *case.command.arguments, fault=fault, variables=case.command.variables(folder)
            )
            removable = not (kind.lasting and kind.kinds == ALL)
            tally.add(
                *_broken(forks, case, folder, done, removable=removable), about=f"{kind.name}, call {call}"
            )
            shutil.rmtree(folder)
    return tally.row(f"{case.calls} calls undisturbed")


def _broken(forks: Forks, case: _Case, folder: Path, done: Done, *, removable: bool = True) -> Iterator[str]:
    """What does not hold after the command met the fault, and after it was given again without."""
    yield done.fault()
    yield damage_in(folder)
    yield lookup_fault(folder, "AMD", "BTCUSD", "ETHUSD")
    found = state_of(folder)
    yield _neither_old_nor_new(case, found, done)
    yield writing_commands.lost_notes(folder)
    again = forks.run(folder, *case.command.arguments, variables=case.command.variables(folder))
    if not (case.command.is_done(again) and found.ledger == case.after.ledger):
        yield again.fault()
        if again.code:
            yield f"the next one failed: {again.err.strip()[-200:]}"
    yield damage_in(folder)
    if not case.command.repeats and state_of(folder).ledger != case.after.ledger:
        yield "the next one came to something else"
    left = _left_for_good(forks, case, folder)
    yield f"left behind: {', '.join(left[:3])}" if left and (removable or case.command.repeats) else ""
    yield writing_commands.lost_notes(folder)


def _left_for_good(forks: Forks, case: _Case, folder: Path) -> list[str]:
    """What lies about; of files that could not even be removed, what does so an hour later."""
    left = left_behind(folder)
    if left and (case.command.repeats or case.command.later):
        for name in left:
            os.utime(folder / name, (time.time() - 7200,) * 2)
        arguments = (*case.command.arguments, *case.command.later)
        forks.run(folder, *arguments, variables=case.command.variables(folder))
        left = left_behind(folder)
    return left


def _neither_old_nor_new(case: _Case, found: StoreState, done: Done) -> str:
    old, new = case.before, case.after
    if found.snapshot not in {old.snapshot, new.snapshot}:
        return f"the snapshot is neither the old nor the new: {found.snapshot[:80]}"
    if found.ledger not in {old.ledger, new.ledger}:
        return "the ledger is neither the old nor the new"
    if done.code == 0 and (found.ledger, found.snapshot) != (new.ledger, new.snapshot):
        return "said it was done, and it is not"
    if done.code and case.command.once and new.ledger != old.ledger:
        if found.ledger != old.ledger and not _says_what_is_kept(done):
            return f"failed, yet the ledger is changed: {done.err.strip()[-160:]}"
        if found.ledger == old.ledger and found.snapshot != old.snapshot and not _says_what_is_kept(done):
            return "failed and changed the snapshot, not the ledger"
    return ""


def _says_what_is_kept(done: Done) -> bool:
    return any(word in done.err for word in ("is stored", "was stored", "is kept", "stays in"))


def _small_disks(forks: Forks, cases: list[_Case], size: Size) -> Iterator[Row]:
    with _disk() as disk:
        if disk is None:
            yield Row(fault="small disks: passed over, nothing may be mounted here", times=1, held=1)
            return
        read_only = Tally(fault="a read-only file system, every command that writes")
        for case in cases if size == "long" else cases[:2]:
            tally = Tally(fault=f"so many bytes left for `{case.command.name}`")
            steps = range(0, 64, 4) if size == "long" else (20,)
            for pages in steps:
                tally.add(*_with_space(forks, case, disk, pages * _PAGE), about=f"{pages} pages left")
            read_only.add(*_read_only(forks, case, disk, size), about=case.command.name)
            yield tally.row()
        yield read_only.row()


@contextlib.contextmanager
def _disk() -> Iterator[Path | None]:
    """A small file system of its own, None where this may not mount."""
    with tempfile.TemporaryDirectory() as name:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES},mode=0700", "autotune-tests", name]
        may = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
        try:
            yield Path(name) if may else None
        finally:
            if may:
                subprocess.run(["umount", name], check=True)


def _with_space(forks: Forks, case: _Case, disk: Path, left: int) -> Iterator[str]:
    folder = _copied(case.base, disk)
    filler = disk / "filler"
    _fill(filler, left)
    done = forks.run(folder, *case.command.arguments, variables=case.command.variables(folder))
    filler.unlink()
    yield from _broken(forks, case, folder, done)
    shutil.rmtree(folder)


def _fill(filler: Path, left: int) -> None:
    """Take all of the disk but ``left`` bytes."""
    state = os.statvfs(filler.parent)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, state.f_bavail * state.f_frsize - left))


def _read_only(forks: Forks, case: _Case, disk: Path, size: Size) -> Iterator[str]:
    folder = _copied(case.base, disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        done = forks.run(folder, *case.command.arguments, variables=case.command.variables(folder))
        yield done.fault()
        # A tick that has nothing else to write says that it takes in no notes, and ends well.
        said = done.code or "cannot be read and written: no note is taken in" in done.err
        yield "" if said else "was done on a read-only file system"
        for reading in READING if size == "long" else READING[:2]:
            read = forks.run(folder, *reading, variables=case.command.variables(folder))
            if case.before.ledger and not case.command.old_store:
                yield read.fault()
                yield f"{' '.join(reading)}: {read.err}" if read.code else ""
        yield lookup_fault(folder, "AMD", "BTCUSD")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    yield from _broken(forks, case, folder, done)
    shutil.rmtree(folder)


def _no_output(forks: Forks, place: Path, cases: list[_Case], size: Size) -> Row:
    tally = Tally(fault="standard output on a full disk, every command")
    reading = [(cases[0], each) for each in READING]
    writing = [(each, each.command.arguments) for each in cases]
    for case, arguments in (*reading, *writing) if size == "long" else (*reading[:2], *writing[:2]):
        folder = _copied(case.base, place)
        variables = case.command.variables(folder)
        done = forks.ask({"arguments": arguments}, folder, variables=variables, output="/dev/full")
        tally.add(done.fault(), damage_in(folder), lookup_fault(folder), about=" ".join(arguments))
        shutil.rmtree(folder)
    return tally.row()


def _production(place: Path, mode: str) -> Row:
    """Forecasts go on and are the same, whatever becomes of notes, caches and temporary files."""
    real = real_artifact()
    tally = Tally(fault=f"disk fails at each write of a forecast in mode {mode}")
    folder = _copied(real.folder, place)
    calls = real.load(folder, mode=mode, fault=Fault(folder=folder)).calls
    shutil.rmtree(folder)
    for kind in (KINDS[0], KINDS[3]):
        for number, call in enumerate(random.Random(mode).sample(range(1, calls + 1), min(10, calls))):
            folder = _copied(real.folder, place)
            done = real.load(folder, mode=mode, fault=kind.fault(folder, call))
            tally.add(real.fault(done), about=f"{kind.name}, call {call}")
            if number % 5 == 0:
                again = real.load(folder, mode=mode)
                tally.add(real.fault(again), about=f"the next after {kind.name}, call {call}")
            shutil.rmtree(folder)
    return tally.row(f"{calls} calls undisturbed")
