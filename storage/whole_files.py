"""Files written whole or not at all: filled aside, synced, and renamed over what was there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

STALE_AFTER_S = 3600.0  # a writer takes milliseconds; older files beside the target belong to killed ones


@contextmanager
def written_whole(target: Path, *, synced: bool = True, mode: int = 0o600) -> Iterator[Path]:
    """A new, empty file of that `mode` beside `target` to fill; afterwards it is synced and renamed over `target`.

    A missing folder is made 0700. When anything fails, `target` is as before. Without `synced` it is renamed
    at once, for what can be told by a checksum when the power fails. Raises `OSError`.
    """
    aside = target.with_name(f".{target.name}.{os.urandom(8).hex()}.new")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_stale(target)
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
        yield aside
        if synced:
            _sync(aside)
        aside.replace(target)
        if synced:
            _sync(target.parent)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(target: Path) -> None:
    for left in target.parent.glob(f".{escape(target.name)}.*.new"):
        with suppress(FileNotFoundError):  # another writer may be done with it by now
            if time.time() - left.stat().st_mtime > STALE_AFTER_S:
                left.unlink()
