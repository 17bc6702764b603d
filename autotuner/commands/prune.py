"""Removes from the compile cache what nobody has used for long, and what exceeds a limit of its size."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from autotuner.environment import current_environment
from autotuner.files import unsafe
from autotuner.paths import cache_folder
from autotuner.serving.artifacts import CacheRefused, settings_folder, wipe
from autotuner.serving.cache_folders import CacheFolder, cache_folders
from autotuner.store import Store

UNUSED_DAYS = 30.0
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
    """Remove what was not used for ``days``, then what was used longest ago until ``most_bytes`` hold the rest.

    What an active promotion or its predecessor, or a pin, starts from stays, as long as its environment was seen
    within ``days``; so does whatever was used within a day. A process that has loaded artifacts keeps them.
    Raises ``StorageError``.
    """
    root = cache_folder().absolute()
    folders = cache_folders(root)
    seen = _seen(folders, now - timedelta(days=days))
    kept = frozenset(_needed(store, root, folders, seen))
    going = to_remove(folders, kept, now=now, days=days, most_bytes=most_bytes)
    failed: list[str] = []
    if not dry_run:
        _sweep(root)
        failed = [reason for folder in going if (reason := _remove(folder.path))]
    left = tuple(folder for folder in folders if folder not in going)
    return Pruned(removed=going, left=left, failed=tuple(failed))


def to_remove(
    folders: Sequence[CacheFolder],
    kept: Collection[Path],
    *,
    now: datetime,
    days: float,
    most_bytes: int | None,
) -> tuple[CacheFolder, ...]:
    """Which of ``folders`` go, oldest use first; none that is in ``kept`` or was used within a day."""
    busy = (now - _AT_WORK).timestamp()
    free = [folder for folder in folders if folder.path not in kept and folder.used_at < busy]
    free.sort(key=lambda folder: folder.used_at)
    left, unused = sum(folder.bytes for folder in folders), (now - timedelta(days=days)).timestamp()
    going = []
    for folder in free:
        if folder.used_at < unused or (most_bytes is not None and left > most_bytes):
            going.append(folder)
            left -= folder.bytes
    return tuple(going)


def _seen(folders: Sequence[CacheFolder], since: datetime) -> frozenset[str]:
    """Fingerprints of the environments that are this machine's now or were used ``since``."""
    used = {folder.environment for folder in folders if folder.used_at >= since.timestamp()}
    return frozenset(used | {current_environment().fingerprint})


def _needed(
    store: Store, root: Path, folders: Sequence[CacheFolder], seen: Collection[str]
) -> Iterator[Path]:
    """Folders of artifacts that production starts from, or would after a rollback."""
    newest: dict[tuple[str, ...], list[str]] = {}
    for record in store.records.promotions():
        if record.rolled_back_at is None and record.environment_fingerprint in seen:
            made_for = (
                record.symbol,
                record.profile,
                record.workload_signature,
                record.environment_fingerprint,
            )
            newest.setdefault(made_for, []).append(record.settings_key)
    for (*_, environment), keys in newest.items():
        yield from (settings_folder(root, environment, key) for key in keys[-2:])
    for pin in store.records.pins():
        yield from (settings_folder(root, environment, pin.settings_key) for environment in seen)


def _remove(folder: Path) -> str:
    """Take a folder out of use at once, then remove it; why that failed, empty when it did not."""
    aside = folder.with_name(f"{_REMOVED}{folder.name}")
    try:
        if fault := unsafe(folder.lstat(), folder=True):
            return f"{folder} {fault}"
        folder.replace(aside)
        wipe(aside)
    except (OSError, CacheRefused) as error:
        return f"{folder}: {error}"
    return ""


def _sweep(root: Path) -> None:
    """Remove what an earlier, killed prune took out of use."""
    for left in (*root.glob(f"{_REMOVED}*"), *root.glob(f"*/{_REMOVED}*")):
        try:
            wipe(left)
        except CacheRefused:
            continue
