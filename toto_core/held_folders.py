"""Temporary folders that tell whether their maker still lives: it holds a lock on the folder, which ends with it.

A process id would not do: ids are used again, and containers that share a folder cannot ask after each other's.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUFFIX = ".held"
"""What the name of every such folder ends with."""
FOREIGN_LASTS_S = 86_400.0
"""A folder of another machine, or of this one before it started, is its maker's for so long after its last change:
some network file systems show nobody the locks of other machines."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class HeldFolder:
    """A new, private folder of this process below ``above``, or where temporary things lie.

    It is called ``<prefix><machine>-<random>.held`` and gone after ``remove()``; when the process is killed,
    ``remove_left_behind`` takes it. Raises ``OSError`` when it cannot be made.
    """

    def __init__(self, prefix: str = "autotune-", above: Path | None = None) -> None:
        self._maker = os.getpid()
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=f"{prefix}{_machine()}-", suffix=SUFFIX, dir=above))
            try:
                held = os.open(self.path, _FOLDER)
            except FileNotFoundError:  # someone who cleared up was sooner than the lock
                continue
            except OSError:
                self.path.rmdir()
                raise
            with contextlib.suppress(OSError):  # no locks here: then nobody takes it for left behind either
                fcntl.flock(held, fcntl.LOCK_EX)
            if _is_still(self.path, held):
                self._held = held
                return
            os.close(held)

    def remove(self) -> None:
        """Remove the folder with all it holds, as far as that can be done; safe to call twice."""
        if self._held < 0 or os.getpid() != self._maker:  # a forked copy ends without its parent's folder
            return
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._held)
        self._held = -1


@contextmanager
def held_folder(prefix: str = "autotune-", above: Path | None = None) -> Iterator[Path]:
    """A ``HeldFolder`` for a block. Raises ``OSError``."""
    folder = HeldFolder(prefix, above)
    try:
        yield folder.path
    finally:
        folder.remove()


def remove_left_behind(above: Path, prefix: str = "") -> int:
    """Remove this user's held folders directly below ``above`` whose maker is gone; how many. Follows no link."""
    return sum(_remove_abandoned(path) for path in _held_below(above, prefix))


def left_behind(above: Path, prefix: str = "") -> list[Path]:
    """What ``remove_left_behind`` would remove."""
    found = []
    for path in _held_below(above, prefix):
        held = _lock_of(path)
        if held is not None:
            os.close(held)
            found.append(path)
    return found


def _held_below(above: Path, prefix: str) -> list[Path]:
    try:
        with os.scandir(above) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if entry.name.startswith(prefix)
                and entry.name.endswith(SUFFIX)
                and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []


def _remove_abandoned(path: Path) -> bool:
    held = _lock_of(path)
    if held is None:
        return False
    try:
        if _is_still(path, held):
            shutil.rmtree(path, ignore_errors=True)
        return not path.exists()
    finally:
        os.close(held)


def _lock_of(path: Path) -> int | None:
    """A descriptor of this user's folder that holds its lock, None when somebody else has that."""
    held = _opened(path)
    if held is None:
        return None
    try:
        state = os.fstat(held)
        here = f"{_machine()}-" in path.name or time.time() - state.st_mtime > FOREIGN_LASTS_S
        if here and state.st_uid == os.geteuid():
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return held
    except OSError:
        pass
    os.close(held)
    return None


@functools.cache
def _machine() -> str:
    """Tells this machine, as it runs since it was started, from others; its containers share it."""
    try:
        name = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        name = platform.node()
    return hashlib.sha256(name.encode()).hexdigest()[:8]


def _opened(path: Path) -> int | None:
    try:
        return os.open(path, _FOLDER)
    except OSError:
        return None


def _is_still(path: Path, held: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(held))
    except OSError:
        return False
