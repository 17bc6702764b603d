"""What a disk may hold when the power fails: recorded calls up to a cut, of which only what was synced must be there.

Simulated, more strictly than any file system in use: of what was written and not synced, any 512 bytes may be there
or not, in any order; lengths likewise. Of names that were made, changed or removed without a sync of their folder,
those up to some moment are (as on journalling file systems), or any subset. To sync a file keeps its name not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_SECTOR = 512


@dataclass(frozen=True)
class Call:
    """One recorded call: C made, W written, T cut to a length, S synced, R renamed, U removed, D folder, A a note."""

    kind: str
    path: str
    other: str
    offset: int
    data: bytes


@dataclass
class _File:
    """``durable`` is on the disk for sure; ``pending`` is what was done since."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Call] = field(default_factory=list)

    def sync(self) -> None:
        for call in self.pending:
            _apply(self.durable, call)
        self.pending.clear()

    def after(self, chance: random.Random) -> bytes:
        """What of it may be there."""
        content, kept = bytearray(self.durable), chance.choice((0.0, 0.3, 0.7, 1.0))
        for call in self.pending:
            if call.kind == "T":
                if chance.random() < kept:
                    _apply(content, call)
                continue
            for place in range(0, len(call.data), _SECTOR):
                if chance.random() < kept:
                    part = call.data[place : place + _SECTOR]
                    _apply(content, Call("W", "", "", call.offset + place, part))
        return bytes(content)


def calls(recorded: Path) -> Iterator[Call]:
    """What the library recorded."""
    with recorded.open("rb") as file:
        while head := file.readline():
            kind, path, other, offset, length = head.decode().rstrip("\n").split("\t")
            yield Call(kind, path, other, int(offset), file.read(int(length)))


class Disk:
    """Files below one folder as they are on the disk, and as processes see them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, _File] = {
            str(path): _File(bytearray(path.read_bytes())) for path in folder.rglob("*") if path.is_file()
        }
        self._durable = dict(self._seen)
        self._pending: list[tuple[str, str, str, _File | None]] = []

    def do(self, call: Call) -> None:
        """Take in the next call."""
        if call.kind == "S":
            self._sync(call.path)
        elif call.kind == "C":
            self._seen[call.path] = _File()
            self._pending.append(("set", call.path, "", self._seen[call.path]))
        elif call.kind in "WT" and call.path in self._seen:  # else it has no name any more
            self._seen[call.path].pending.append(call)
        elif call.kind == "R":
            moved = self._seen.pop(call.path)
            self._seen[call.other] = moved
            self._pending.append(("move", call.path, call.other, moved))
        elif call.kind == "U" and call.path in self._seen:
            del self._seen[call.path]
            self._pending.append(("drop", call.path, "", None))

    def cut(self, chance: random.Random, target: Path, *, ordered: bool) -> None:
        """Write into ``target`` what may be on the disk if the power fails now."""
        names = dict(self._durable)
        until = chance.randrange(len(self._pending) + 1)
        for number, change in enumerate(self._pending):
            if (number < until) if ordered else (chance.random() < 0.5):
                _rename(names, *change)
        for name, file in names.items():
            path = target / Path(name).relative_to(self._folder)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_bytes(file.after(chance))

    def _sync(self, path: str) -> None:
        if path in self._seen:
            self._seen[path].sync()
            return
        here = [change for change in self._pending if path in {_above(change[1]), _above(change[2])}]
        for change in here:
            _rename(self._durable, *change)
            self._pending.remove(change)


def random_cuts(
    before: Path, made: Sequence[Call], chance: random.Random, times: int
) -> Iterator[tuple[int, Disk]]:
    """``times`` disks at random moments while ``made`` was done to the files of ``before``, in order of time."""
    moments = sorted(chance.randrange(len(made) + 1) for _ in range(times))
    disk, done = Disk(before), 0
    for moment in moments:
        for call in made[done:moment]:
            disk.do(call)
        done = moment
        yield moment, disk


def _above(path: str) -> str:
    return path.rpartition("/")[0]


def _rename(names: dict[str, _File], kind: str, path: str, other: str, file: _File | None) -> None:
    if kind == "drop":
        names.pop(path, None)
    elif file is not None and kind == "set":
        names[path] = file
    elif file is not None:
        names.pop(path, None)
        names[other] = file


def _apply(content: bytearray, call: Call) -> None:
    if call.kind == "T":
        del content[call.offset :]
        content.extend(bytes(call.offset - len(content)))
        return
    if call.offset > len(content):
        content.extend(bytes(call.offset - len(content)))
    content[call.offset : call.offset + len(call.data)] = call.data
