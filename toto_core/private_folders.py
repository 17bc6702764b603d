"""Folders that nobody else can write to: what lies in them is unpickled, loaded and run."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

TORCH_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def make_private(folder: Path) -> None:
    """Make a folder, and those above that are missing, for this user alone. Raises ``OSError``."""
    for level in (*reversed(folder.parents), folder):
        if not level.is_dir():
            with suppress(FileExistsError):  # another process was sooner
                level.mkdir(mode=0o700)


def why_not_private(folder: Path) -> str:
    """What lets another user write to a folder, such as ``"belongs to user 33"``; empty where none can.

    One that is not there is nobody's, and one that cannot be looked at is not private.
    """
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"cannot be looked at ({error.strerror})"
    if not stat.S_ISDIR(found.st_mode):
        return "is a link" if stat.S_ISLNK(found.st_mode) else "is no folder"
    if found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid}"
    return "is writable by others" if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else ""
