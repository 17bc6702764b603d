"""Folders that nobody else can write to: what lies in them is unpickled, loaded and run."""

from __future__ import annotations

import atexit
import functools
import os
import re
import stat
import warnings
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


def keep_torch_private() -> None:
    """Before torch compiles: let its own caches, which it unpickles, lie where no other user can write.

    Its folder in /tmp has a name that anyone can guess and make first. One that is not private is left alone, with
    one warning, for a temporary one of this process.
    """
    chosen = Path(os.environ.get(TORCH_CACHE_VARIABLE) or _torch_default())
    with suppress(OSError):
        chosen.mkdir(mode=0o700)  # where it is missing: what is ours now stays ours
    fault = why_not_private(chosen)
    if fault:
        os.environ[TORCH_CACHE_VARIABLE] = str(_temporary())
        warnings.warn(
            f"{chosen} {fault}, and torch would load code from it: compiling into a temporary folder instead; chmod "
            f"it to 0700 or name another one in {TORCH_CACHE_VARIABLE}",
            RuntimeWarning,
            stacklevel=2,
        )


def _torch_default() -> Path:
    """As ``torch._inductor.runtime.cache_dir_utils`` names it."""
    import getpass  # a lookup, which comes by here, does without these
    import tempfile

    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid_{os.getuid()}"
    user = re.sub(r'[\\/:*?"<>|]', "_", user)
    return Path(tempfile.gettempdir()) / f"torchinductor_{user}"


@functools.cache
def _temporary() -> Path:
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="autotune-inductor-"))  # 0700
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
