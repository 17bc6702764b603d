"""Removes what killed commands left behind: temporary folders and half-written files whose lock nobody holds."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from autotuner.paths import cache_folder, is_file, snapshot_path, spool_folder, store_path, studies_path
from storage import whole_files
from storage.sqlite_files import undo_interrupted
from toto_core import held_folders

_FOLDERS = (
    ("*", "run-"),
    ("trials-*", "apart-"),
    ("trials-*/*/packages", "building-"),
    ("headers/*", "building-"),
)
"""Where below the cache folder held folders of which prefix are made."""


def clear_up(location: str, *, deep: bool = False) -> int:
    """Remove what this user's killed processes left in the temporary folder, the cache and beside the store.

    How many things went. ``deep`` also looks at every folder of artifacts, which takes as long as to count their
    bytes. What a living process uses is left alone, whatever container it runs in.
    """
    removed = 0
    with contextlib.suppress(OSError, RuntimeError):  # a folder that cannot be looked at is no reason to fail
        for above, prefix in _places():
            removed += held_folders.remove_left_behind(above, prefix)
        for folder in (*_store_folders(location), *(_artifact_folders() if deep else ())):
            removed += whole_files.remove_left_behind(folder)
        if is_file(location):  # the store itself is open by now
            removed += undo_interrupted(studies_path(store_path(location)))
    return removed


def left_behind(location: str) -> list[Path]:
    """What ``clear_up`` would remove of the temporary folder, the cache and the store's folder."""
    found: list[Path] = []
    with contextlib.suppress(OSError, RuntimeError):
        for above, prefix in _places():
            found += held_folders.left_behind(above, prefix)
        for folder in _store_folders(location):
            found += [path for path in whole_files.left_behind(folder) if not whole_files.is_held(path)]
    return found


def _places() -> Iterator[tuple[Path, str]]:
    yield _temporary_folder(), "autotune-"
    root = cache_folder()
    for pattern, prefix in _FOLDERS:
        for above in root.glob(pattern):
            yield above, prefix


def _temporary_folder() -> Path:
    """The machine's. Python tries it out with a file, which an interrupt between making and removing would leave."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        return Path(tempfile.gettempdir())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _store_folders(location: str) -> Iterator[Path]:
    yield snapshot_path(location).parent
    yield spool_folder(location)
    if is_file(location):
        yield store_path(location).parent


def _artifact_folders() -> Iterator[Path]:
    """Every folder of artifacts that production loads: each of their files is written whole."""
    for environment in cache_folder().glob("[0-9a-f]*"):
        for above, _, _ in os.walk(environment):
            yield Path(above)
