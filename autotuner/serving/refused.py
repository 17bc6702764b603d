"""Notes that were refused: set aside beside the others with the reason, the oldest given up for the newest."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from autotuner.errors import one_line
from autotuner.serving.note_files import LARGEST_BYTES

FOLDER = "refused"
MOST, MOST_BYTES = 200, 16 << 20
"""What is kept of refused notes; beyond either the oldest go."""
_KEPT_OF_A_LARGE_ONE = 1 << 16
_MOST_LOOKED_AT = 1_000
_REASON = ".reason"


@dataclass(frozen=True, kw_only=True)
class Refused:
    """How many notes lie there, and the newest's name and reason in one line, empty for none."""

    count: int = 0
    newest: str = ""


def set_aside(path: Path, reason: str) -> bool:
    """Move ``path``, which is no note, to the refused ones; it is removed where it cannot be moved.

    A link goes as the link it is. Of a file that is larger than a note only the beginning is kept. Whether it is
    gone from its place: a folder of somebody else's may stay.
    """
    try:
        _keep(path, reason)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
    return not os.path.lexists(path)


def refused(spool: Path) -> Refused:
    """What lies among the refused notes of ``spool``."""
    found = _entries(spool / FOLDER)
    newest = max(found, default=None)
    return Refused(count=len(found), newest="" if newest is None else _reason(newest))


def give_up_the_oldest(spool: Path) -> None:
    """Remove refused notes until they are few and small enough; never raises."""
    entries = sorted(_entries(spool / FOLDER))
    sizes = [_bytes(entry) for entry in entries]
    left, many = sum(sizes), len(entries)
    for entry, size in zip(entries, sizes, strict=True):
        if many <= MOST and left <= MOST_BYTES:
            return
        left, many = left - size, many - 1
        _remove(entry)


def _keep(path: Path, reason: str) -> None:
    folder = path.parent / FOLDER
    _make_private(folder)
    # By time, so that the names sort by age; the rest makes the name one that nothing has.
    kept = folder / f"{time.time_ns():020}-{os.urandom(4).hex()}"
    state = path.lstat()
    if stat.S_ISREG(state.st_mode) and state.st_size > LARGEST_BYTES:
        _keep_the_beginning(path, kept)
    else:
        path.rename(kept)
    with contextlib.suppress(OSError):
        _written(kept.with_name(kept.name + _REASON), one_line(f"{path.name}: {reason}").encode())


def _make_private(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(folder.lstat().st_mode):
            folder.unlink()  # also a link that leads elsewhere
    folder.mkdir(mode=0o700, exist_ok=True)
    if stat.S_IMODE(folder.lstat().st_mode) != stat.S_IRWXU:
        folder.chmod(stat.S_IRWXU)


def _keep_the_beginning(path: Path, kept: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
        beginning = file.read(_KEPT_OF_A_LARGE_ONE)
    _written(kept, beginning)
    path.unlink()


def _written(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
        file.write(content)


def _entries(folder: Path) -> list[Path]:
    try:
        if folder.is_symlink():
            return []
        return [path for path in folder.iterdir() if path.suffix != _REASON]
    except OSError:
        return []


def _reason(entry: Path) -> str:
    try:
        with entry.with_name(entry.name + _REASON).open("rb") as file:
            return one_line(file.read(_KEPT_OF_A_LARGE_ONE).decode("utf-8", "replace"))
    except OSError:
        return "its reason is not known"


def _bytes(entry: Path) -> int:
    total, looked_at = 0, 0
    with contextlib.suppress(OSError):
        total = entry.lstat().st_size
        if entry.is_symlink():  # else what it leads to would be walked, however large that is
            return total
        for folder, _, names in os.walk(entry):  # of a folder; links in it are not followed
            for name in names:
                total += Path(folder, name).lstat().st_size
            looked_at += 1 + len(names)
            if looked_at > _MOST_LOOKED_AT:
                return MOST_BYTES  # too many to count is too many to keep
    return total


def _remove(entry: Path) -> None:
    with contextlib.suppress(OSError):
        entry.with_name(entry.name + _REASON).unlink(missing_ok=True)
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
