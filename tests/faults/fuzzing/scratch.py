"""Where targets put their files: a folder of this process, in memory where that can be, gone when it ends."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

_MEMORY = Path("/dev/shm")


@functools.cache
def _root() -> Path:
    inside = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="autotune-fuzz-", dir=inside))
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(root, ignore_errors=True) if os.getpid() == owner else None)
    return root


def folder(name: str) -> Path:
    """The folder of that name, the same each time."""
    path = _root() / name
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def empty_folder(name: str) -> Path:
    """The folder of that name without anything in it."""
    shutil.rmtree(_root() / name, ignore_errors=True)
    return folder(name)
