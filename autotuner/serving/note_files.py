"""The files that notes lie in: read without following, opening or waiting for what is no plain file of ours."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection
from pathlib import Path

from autotuner.paths import store_path
from autotuner.serving.spool import NoteError
from storage.errors import StorageError

LARGEST_BYTES = 1 << 20
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# Without waiting for the writer of a pipe that takes the file's place after it was looked at.
_HOW = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def owners_of(store: str | None = None) -> frozenset[int]:
    """The users whose notes count: whoever this process runs as, and whose the store is."""
    found = {os.geteuid()}
    if store is None:
        return frozenset(found)
    with contextlib.suppress(OSError, StorageError):  # a store on a server has no owner here
        found.add(store_path(store).stat().st_uid)
    return frozenset(found)


def spool_fault(folder: Path, owners: Collection[int], *, change: bool = True) -> str:
    """Why no note is taken from this spool, empty when they are; one that others could write to is made private.

    Without ``change`` it is left as it is, and said.
    """
    try:
        state = folder.lstat()
        if not stat.S_ISDIR(state.st_mode):
            return f"is {_kind(state)}, not a folder"
        if state.st_uid not in owners:
            return f"belongs to user {state.st_uid}"
        if state.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            if not change:
                return "" if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH) == 0 else "is writable by others"
            folder.chmod(stat.S_IRWXU)
    except FileNotFoundError:
        return ""  # nothing was ever left
    except OSError as error:
        return f"cannot be made private: {error.strerror}"
    return "" if os.access(folder, os.R_OK | os.W_OK | os.X_OK) else "cannot be read and written"


def read_text(path: Path, owners: Collection[int]) -> str:
    """What a note's file holds. Raises ``NoteError``, and ``FileNotFoundError`` when it is gone."""
    try:
        _check(path.lstat(), owners)  # a device is not even opened
        with open(os.open(path, _HOW), "rb") as file:  # noqa: PTH123 - of a descriptor
            _check(os.fstat(file.fileno()), owners)
            content = file.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise _too_large()
        return content.decode("utf-8")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise NoteError(f"file: cannot be read: {error}") from None


def _check(state: os.stat_result, owners: Collection[int]) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise NoteError(f"file: is {_kind(state)}, not a plain file")
    if state.st_uid not in owners:
        raise NoteError(f"file: belongs to user {state.st_uid}")
    if state.st_size > LARGEST_BYTES:
        raise _too_large()


def _too_large() -> NoteError:
    return NoteError(f"file: is larger than {LARGEST_BYTES} bytes")


def _kind(state: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(state.st_mode), "a file")
