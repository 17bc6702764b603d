"""Removes from the compile cache what nobody has used for long, and what exceeds a limit of its size."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from autotuner.commands.clear_up import clear_up
from autotuner.environment import current_environment
from autotuner.files import levels, unsafe
from autotuner.machine.engine_versions import engine_names
from autotuner.paths import cache_folder
from autotuner.serving.artifacts import CacheRefused, settings_folder, wipe
from autotuner.serving.cache_folders import CacheFolder, cache_folders, size_and_use
from autotuner.store import Store

UNUSED_DAYS, MOST_DAYS = 30.0, 36_500.0
DEVICES = ("cpu", "cuda")
_AT_WORK = timedelta(days=1)
"""What was used so lately may be in use by a process: not even a limit of the size removes it."""
_REMOVED = ".removed-"


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What was removed, or would be, what was left, and what could not be removed with the reason."""

    removed: tuple[CacheFolder, ...]
    left: tuple[CacheFolder, ...]
    failed: tuple[str, ...] = ()


def prune(
    store: Store,
    *,
    now: datetime,
    days: float = UNUSED_DAYS,
    most_bytes: int | None = None,
    dry_run: bool = False,
) -> Pruned:
    """Remove what was not used for ``days``, then what runs have compiled until ``most_bytes`` hold the rest.

    What an active promotion or its predecessor, or a pin, starts from stays, as long as its environment was seen
    within ``days``; so does whatever was used within a day. A process that has loaded artifacts keeps them.
    Raises ``StorageError``.
    """
    root = cache_folder().absolute()
    folders = cache_folders(root)
    days = min(days, MOST_DAYS)
    seen = _seen(folders, now - timedelta(days=days))
    kept = frozenset(_needed(store, root, folders, seen))
    going = to_remove(folders, kept, now=now, days=days, most_bytes=most_bytes)
    faults: dict[Path, str] = {}
    if not dry_run:
        clear_up(store.location, deep=True)
        _sweep(root)
        faults = {folder.path: fault for folder in going if (fault := _remove(root, folder))}
    removed = tuple(folder for folder in going if folder.path not in faults)
    left = tuple(folder for folder in folders if folder not in removed)
    return Pruned(
        removed=removed, left=left, failed=tuple(f"{path} {fault}" for path, fault in faults.items())
    )


def to_remove(
    folders: Sequence[CacheFolder],
    kept: Collection[Path],
    *,
    now: datetime,
    days: float,
    most_bytes: int | None,
) -> tuple[CacheFolder, ...]:
    """Which of ``folders`` go, oldest use first; none that is in ``kept`` or was used within a day.

    Artifacts that production loads go for their age alone: what another store has promoted is not known here.
    """
    busy = (now - _AT_WORK).timestamp()
    free = [folder for folder in folders if folder.path not in kept and folder.used_at < busy]
    free.sort(key=lambda folder: folder.used_at)
    left, unused = sum(folder.bytes for folder in folders), (now - timedelta(days=days)).timestamp()
    going = []
    for folder in free:
        too_much = most_bytes is not None and left > most_bytes and folder.kind != "artifacts"
        if folder.used_at < unused or too_much:
            going.append(folder)
            left -= folder.bytes
    return tuple(going)


def _seen(folders: Sequence[CacheFolder], since: datetime) -> frozenset[str]:
    """Fingerprints of the environments that are this machine's now or were used ``since``."""
    used = {folder.environment for folder in folders if folder.used_at >= since.timestamp()}
    here = (current_environment(device, engine) for device in DEVICES for engine in engine_names())
    return frozenset(used | {each.fingerprint for each in here})


def _needed(
    store: Store, root: Path, folders: Sequence[CacheFolder], seen: Collection[str]
) -> Iterator[Path]:
    """Folders of artifacts that production starts from, or would after a rollback."""
    newest: dict[tuple[str, ...], list[str]] = {}
    for *made_for, settings_key in store.records.promoted_keys():
        if made_for[-1] in seen:  # the environment
            newest.setdefault(tuple(made_for), []).append(settings_key)
    for (*_, environment), keys in newest.items():
        distinct = list(dict.fromkeys(reversed(keys)))  # a canary that was confirmed stands there twice
        yield from (settings_folder(root, environment, key) for key in distinct[:2])
    for pin in store.records.pins():
        yield from (settings_folder(root, environment, pin.settings_key) for environment in seen)


def _remove(root: Path, folder: CacheFolder) -> str:
    """Take a folder out of use at once, then remove it; why it stays, empty when it is gone."""
    path = folder.path
    try:
        for level in (root, *levels(root, path)):
            if fault := unsafe(level.lstat(), folder=True):
                return f"stays: {level} {fault}"
        if size_and_use(path)[1] > folder.used_at:
            return "stays: it was used meanwhile"
        aside = path.with_name(f"{_REMOVED}{path.name}")
        path.replace(aside)
        wipe(aside)
    except (OSError, CacheRefused) as error:
        return f"stays: {error}"
    return ""


def _sweep(root: Path) -> None:
    """Remove what an earlier, killed prune took out of use."""
    for left in (*root.glob(f"{_REMOVED}*"), *root.glob(f"*/{_REMOVED}*")):
        try:
            wipe(left)
        except CacheRefused:
            continue
