"""What lies in the compile cache: its folders, what each is of, how large it is and when it was last used."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["artifacts", "trials", "headers"]
"""Artifacts that production loads, what the trials of runs have compiled, and parsed headers of torch."""

_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_TRIALS = re.compile(r"trials-(?P<environment>[0-9a-f]{16})-.+")
_HEADERS = re.compile(r"[0-9a-f]{24}")


@dataclass(frozen=True, kw_only=True)
class CacheFolder:
    """One folder; ``environment`` is a fingerprint, empty for headers, ``used_at`` seconds since the epoch."""

    path: Path
    kind: Kind
    environment: str
    bytes: int
    used_at: float


def mark_used(folder: Path) -> None:
    """Say that a folder of the cache is in use now; where that cannot be said it is left."""
    with contextlib.suppress(OSError):
        os.utime(folder)


def cache_folders(root: Path) -> tuple[CacheFolder, ...]:
    """Every folder of the cache at ``root`` that can be read and is no link, none where there is no cache."""
    found = []
    for path, kind, environment in _named(root):
        with contextlib.suppress(OSError):  # gone meanwhile
            size, used_at = size_and_use(path)
            found.append(
                CacheFolder(path=path, kind=kind, environment=environment, bytes=size, used_at=used_at)
            )
    return tuple(found)


def _named(root: Path) -> Iterator[tuple[Path, Kind, str]]:
    for path in _folders(root):
        if _FINGERPRINT.fullmatch(path.name):
            for settings in _folders(path):
                if _FINGERPRINT.fullmatch(settings.name):
                    yield settings, "artifacts", path.name
        elif trials := _TRIALS.fullmatch(path.name):
            yield path, "trials", trials["environment"]
        elif path.name == "headers":
            for header in _folders(path):
                if _HEADERS.fullmatch(header.name):
                    yield header, "headers", ""


def _folders(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    yield from (Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))


def size_and_use(folder: Path) -> tuple[int, float]:
    """Bytes of the files below, and when the newest of them was written or the folder marked. Raises ``OSError``."""
    size, newest = 0, folder.lstat().st_mtime
    for above, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # gone meanwhile
                state = (Path(above) / name).lstat()
                size, newest = size + state.st_size, max(newest, state.st_mtime)
    return size, newest
