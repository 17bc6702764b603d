"""Files written whole or not at all: filled aside, synced, and renamed over what was there.

Who fills a file aside holds a lock on it, which ends with its process, however that ends and in whatever container
it ran: a file whose lock is free was left behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNLOCKED_FOR_S = 3600.0
"""How long a file that its writer could not lock, or an earlier version's did not, counts as one being filled."""
_ASIDE = re.compile(r"\..+\.[0-9a-f]{16}\.(held|new)(-journal|-wal|-shm)?", re.DOTALL)
_UNLOCKED = re.compile(r".*\.new(-journal|-wal|-shm)?", re.DOTALL)  # as an earlier version named them
_BESIDE_IT = ("-journal", "-wal", "-shm")  # what SQLite keeps beside a file that it fills
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def written_whole(target: Path, *, synced: bool = True, mode: int = 0o600) -> Iterator[Path]:
    """A new, empty file of that `mode` beside `target` to fill; afterwards it is synced and renamed over `target`.

    Missing folders are made 0700. When anything fails, `target` is as before. Without `synced` it is renamed
    at once, for what can be told by a checksum when the power fails. Raises `OSError`.
    """
    with held_aside(target, mode=mode) as aside:
        yield aside
        if synced:
            sync(aside)
        take_place(aside, target, synced=synced)


@contextmanager
def held_aside(target: Path, *, mode: int = 0o600) -> Iterator[Path]:
    """A new, empty file of that `mode` beside `target`, gone afterwards unless it has taken another name.

    Missing folders are made 0700; what killed writers left in the folder is removed. Raises `OSError`.
    """
    make_folders(target.parent)
    remove_left_behind(target.parent)
    aside, held = _new(target, mode)
    try:
        yield aside
    finally:
        _remove(aside)
        os.close(held)


def make_folders(folder: Path) -> None:
    """Make a folder and those above that are missing, all 0700. Raises `OSError`, and `ValueError` for no name."""
    with suppress(OSError):
        folder.stat()  # ValueError for what no file system holds, before any folder is made
    for level in (*reversed(folder.parents), folder):
        if not level.is_dir():  # with `parents`, all but the last would be as the umask says
            level.mkdir(mode=0o700, exist_ok=True)


def take_place(aside: Path, target: Path, *, synced: bool = True) -> None:
    """Rename a file, whose content is synced, over `target`, and have that last if `synced`. Raises `OSError`."""
    aside.replace(target)
    if synced:
        sync(target.parent)


def sync(path: Path) -> None:
    """Have a file's or a folder's content last when the power fails. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_left_behind(folder: Path) -> int:
    """Remove the files of this user that killed writers left in a folder; how many. Nothing where it is not there."""
    removed = 0
    for path in left_behind(folder):
        removed += _remove_unheld(path)
    return removed


def left_behind(folder: Path) -> list[Path]:
    """Files aside in a folder that are this user's, whether or not anyone still fills them."""
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if _is_own_aside(entry)]
    except OSError:
        return []


def is_held(path: Path) -> bool:
    """Whether a living process fills this file; what cannot be looked at counts as held."""
    held = _lock_of(path)
    if held is None:
        return True
    os.close(held)
    return False


def _is_own_aside(entry: os.DirEntry[str]) -> bool:
    if not _ASIDE.fullmatch(entry.name):
        return False
    with suppress(OSError):  # gone meanwhile
        state = entry.stat(follow_symlinks=False)
        return stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid()
    return False


def _new(target: Path, mode: int) -> tuple[Path, int]:
    """A new file beside `target` and the descriptor that holds its lock."""
    while True:
        aside = target.with_name(f".{target.name}.{os.urandom(8).hex()}.held")
        held = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        with suppress(OSError):  # a file system without locks: its age says who is gone
            fcntl.flock(held, fcntl.LOCK_EX)
        if _is_still(aside, held):
            return aside, held
        os.close(held)  # someone who cleared up was sooner than the lock


def _remove_unheld(path: Path) -> bool:
    filled = path.with_name(path.name.rpartition("-")[0]) if path.name.endswith(_BESIDE_IT) else path
    if filled != path and filled.exists():
        return False  # goes with that
    held = _lock_of(path)
    if held is None:
        return False
    try:
        if not _is_still(path, held):
            return False
        _remove(path)
        return True
    finally:
        os.close(held)


def _lock_of(path: Path) -> int | None:
    """A descriptor that holds the lock of a file that nobody else holds, None when somebody does."""
    try:
        held = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tells = not _UNLOCKED.fullmatch(path.name)
    except OSError as error:
        taken, tells = error.errno not in _NO_LOCKS, False
        if taken:
            os.close(held)
            return None
    if tells or time.time() - os.fstat(held).st_mtime > UNLOCKED_FOR_S:
        return held
    os.close(held)
    return None


def _is_still(path: Path, held: int) -> bool:
    """Whether `path` is the file that is open as `held`."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(held))
    except OSError:
        return False


def _remove(aside: Path) -> None:
    for name in (
        *(f"{aside.name}{suffix}" for suffix in _BESIDE_IT),
        aside.name,
    ):  # itself last: it is the mark
        with suppress(OSError):
            aside.with_name(name).unlink(missing_ok=True)
