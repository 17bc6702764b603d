"""Takes the artifacts of this machine's environments into the cache, sealed as what is built here."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autotuner.errors import AutotuneError
from autotuner.files import failing_as
from autotuner.serving.artifacts import CacheRefused, compile_cache
from autotuner.serving.cache_folders import mark_used
from autotuner.serving.manifest import Damaged, add_files, listed_files
from autotuner.sharing.fetching import fetch_blob, read_blob
from autotuner.sharing.here import environments_here
from autotuner.sharing.places import Place
from autotuner.sharing.release import Blob, Files, unpack_list
from toto_core.held_folders import held_folder, remove_left_behind

_MADE = "run-sync-"
_SPARE_BYTES = 256 << 20
"""What is left free on the disk of the cache."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What was new here, and what could not be taken, a line each; ``folders`` are configurations that are here."""

    folders: int = 0
    files: int = 0
    bytes: int = 0
    said: tuple[str, ...] = ()


def take_artifacts(place: Place, lists: Mapping[str, Blob]) -> Taken:
    """Take what a release, whose signature was verified, lists for environments of this machine.

    A configuration is taken whole or not at all; what is here already is not fetched again.
    """
    folders = files = size = 0
    said: list[str] = []
    for fingerprint in sorted(lists.keys() & environments_here()):
        try:
            listed = unpack_list(read_blob(place, lists[fingerprint]), place.shown)
        except AutotuneError as error:
            said.append(str(error))
            continue
        for key, wanted in listed.items():
            try:
                new = _take(place, fingerprint, key, wanted)
            except AutotuneError as error:
                said.append(str(error))
                continue
            folders, files = folders + 1, files + len(new)
            size += sum(blob.bytes for blob, _ in new.values())
    return Taken(folders=folders, files=files, bytes=size, said=tuple(said))


def _take(place: Place, fingerprint: str, settings_key: str, wanted: Files) -> Files:
    """What of a configuration was missing here and is not any more."""
    folder = compile_cache(fingerprint, settings_key)
    remove_left_behind(folder.parent, _MADE)  # of one that was killed
    with failing_as(CacheRefused, f"compile cache {folder} cannot be filled"):
        here = _listed(folder)
        missing = {
            name: each for name, each in wanted.items() if here.get(name) != (each[0].sha256, each[0].bytes)
        }
        if missing:
            _refuse_full(folder, sum(blob.bytes for blob, _ in missing.values()))
            with held_folder(_MADE, folder.parent) as made:
                for name, (blob, executable) in missing.items():
                    target = made / name
                    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    fetch_blob(place, blob, target)
                    target.chmod(0o700 if executable else 0o600)
                add_files(made, folder)
    mark_used(folder)
    return missing


def _listed(folder: Path) -> dict[str, tuple[str, int]]:
    try:
        return listed_files(folder)
    except Damaged:  # all of it is fetched, and listed anew
        return {}


def _refuse_full(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + _SPARE_BYTES > free:
        raise CacheRefused(
            f"compile cache {folder}: {needed / 2**20:,.0f} MB are to be fetched and {free / 2**20:,.0f} MB free: "
            "make room, or name another folder in AUTOTUNE_CACHE"
        )
